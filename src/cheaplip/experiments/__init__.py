"""The paper's tables and figures, one command each, and sweeps over settings, on the public modules of the package."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cheaplip.experiments.outcome import Outcome
from cheaplip.settings import ReproduceSettings, SweepSettings

__all__ = ["NAMES", "Outcome", "reproduce", "sweep"]

NAMES = ("table1", "figure1", "figure2", "toy", "path")


def reproduce(name: str, settings: ReproduceSettings | None = None, *, progress: bool = False) -> Outcome:
    """Run an experiment of the paper and leave its tables, pictures and numbers in a folder.

    What is finished in the folder is not done again, so a command that was stopped is given again to go on.

    Args:
        name: ``table1``, ``figure1``, ``figure2``, ``toy`` or ``path``.
        settings: how much of it, on what and where to; by default the experiment's own.
        progress: show bars.

    Returns:
        A table, remarks, and the files that were written.

    Raises:
        ValueError: for an unknown experiment, settings that it does not have, or a folder of another one.
        FileNotFoundError: if data is missing.
        ImportError: if a package is missing; it names the extra to install.

    Reference: Bungert et al. 2021, section 4.

    Example:
        >>> reproduce("table2")
        Traceback (most recent call last):
        ValueError: unknown experiment 'table2': choose among table1, figure1, figure2, toy, path
    """
    if name not in NAMES:
        raise ValueError(f"unknown experiment {name!r}: choose among {', '.join(NAMES)}")
    settings = ReproduceSettings() if settings is None else settings
    folder = Path("runs") / name if settings.out is None else Path(settings.out).expanduser()
    outcome: Outcome = importlib.import_module(f"cheaplip.experiments.{name}").run(settings, folder, progress=progress)
    return outcome


def sweep(plan: Mapping[str, Any], settings: SweepSettings | None = None, *, progress: bool = False) -> Outcome:
    """Train a network for each combination of a grid of settings, many at a time, each in a run folder of its own.

    Finished runs are kept, others go on from their checkpoint, so that a sweep that was stopped, or whose grid has
    grown, is called again to go on. The table lies in ``sweep.json``, ``.csv`` and ``.md``.

    Args:
        plan: settings of all runs, ``grid`` and ``cases``; see :func:`cheaplip.experiments.grid.runs_of`.
        settings: where the runs are done, and where to.
        progress: show a bar.

    Returns:
        The table of the runs, and the files that were written.

    Raises:
        ValueError: for a grid that is none, settings that do not fit the data, a folder of something else; if a run
            failed, when all others are done.
        TypeError: for a value of another type.
        FileNotFoundError: if data is missing.
        ImportError: if a package is missing; it names the extra to install.

    Example:
        >>> sweep({"epochs": 1, "grid": {"target": []}})
        Traceback (most recent call last):
        ValueError: grid: target must be a list of one value or more, such as [0.9, 0.95]; got an empty list
    """
    # Not before: workers import this package, and are to have one thread before torch is loaded.
    from cheaplip.experiments import sweeping

    settings = SweepSettings() if settings is None else settings
    folder = Path("runs/sweep" if settings.out is None else settings.out).expanduser()
    return sweeping.run(plan, settings, folder, progress=progress)
