"""The paper's tables and figures, one command each, and sweeps over settings, on the public modules of the package."""

from __future__ import annotations

import importlib
from pathlib import Path

from cheaplip.experiments.outcome import Outcome
from cheaplip.experiments.sweeping import sweep
from cheaplip.settings import ReproduceSettings

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
