"""The commands: each calls the library and prints what it returns."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cheaplip.cli.show import (
    show_bounds,
    show_comparison,
    show_files,
    show_outcome,
    show_result,
    show_sources,
    show_verified,
)
from cheaplip.settings import BoundsSettings, ReproduceSettings, SweepSettings, TrainSettings, from_mapping


def train(options: Any) -> None:
    """``cheaplip train``."""
    values = options.as_dict()
    for beside in ("config", "input", "versions"):
        values.pop(beside, None)
    settings = from_mapping(TrainSettings, values)
    from cheaplip import runs

    done_before = settings.resume and runs.finished(runs.folder_of(settings))
    folder = runs.train(settings)
    if not runs.leading():
        return
    if done_before:
        print(f"the run in {folder} is finished: nothing is left to do")
    show_result(runs.read_result(folder), folder)


def evaluate(options: Any) -> None:
    """``cheaplip evaluate``."""
    names = _listed(options.attacks, "attacks")
    eps = None if options.eps is None else [_number(text) for text in _listed(options.eps, "eps")]
    from cheaplip import runs

    result = runs.evaluate_run(
        options.run,
        names,
        eps=eps,
        limit=options.limit,
        seed=options.seed,
        data_dir=options.data_dir,
        device=options.device,
    )
    show_result(result, options.run)


def bounds(options: Any) -> bool:
    """``cheaplip bounds``; tells whether a claim was refuted."""
    values = options.as_dict()
    target = values.pop("target")
    settings = from_mapping(BoundsSettings, values)
    from cheaplip import runs

    if settings.check is not None:
        show_verified(runs.verify(target, settings), settings.check)
        return False
    found = runs.bound(target, settings)
    show_bounds(found)
    return found.verdict == "refuted"


def reproduce(options: Any) -> None:
    """``cheaplip reproduce``."""
    values = options.as_dict()
    name = values.pop("experiment")
    settings = from_mapping(ReproduceSettings, values)
    from cheaplip import experiments

    show_outcome(experiments.reproduce(name, settings, progress=sys.stderr.isatty()))


def sweep(options: Any) -> None:
    """``cheaplip sweep``."""
    values = options.as_dict()
    file = values.pop("config")
    if file is None:
        raise ValueError("sweep needs a YAML file of settings with a grid: name it by --config")
    if values["out"] is None:
        values["out"] = str(Path("runs") / Path(file).stem)
    settings = from_mapping(SweepSettings, values)
    from cheaplip import experiments
    from cheaplip.cli.config import read_config

    show_outcome(experiments.sweep(read_config(Path(file)), settings, progress=sys.stderr.isatty()))


def report(options: Any) -> None:
    """``cheaplip report``."""
    from cheaplip.report import write_report

    print(write_report(options.runs, options.out, data_dir=options.data_dir, device=options.device))


def compare(options: Any) -> None:
    """``cheaplip compare``."""
    from cheaplip import runs

    show_comparison(runs.compare(options.runs))


def data(options: Any) -> None:
    """``cheaplip data``."""
    from cheaplip.data import fetch, sources, verify

    known = sources(options.data_dir)
    if options.action == "list":
        show_sources(known)
        return
    names = [source.name for source in known if source.needs_files] if options.data is None else [options.data]
    if options.action == "fetch":
        for name in names:
            print(f"{name}: {fetch(name, options.data_dir)}")
        return
    checks = {name: verify(name, options.data_dir) for name in names}
    # A data set of which nothing is here is no fault, unless it was asked for.
    here = {n: found for n, found in checks.items() if options.data or any(c.status != "missing" for c in found)}
    if not here:
        raise FileNotFoundError("found no files to verify: fetch them with `cheaplip data fetch`, or give --data-dir")
    show_files(here)
    wrong = [check for found in here.values() for check in found if check.status != "ok"]
    if wrong:
        raise ValueError(
            f"{len(wrong)} of {sum(map(len, here.values()))} files are not as they should be, the first: "
            f"{wrong[0].file} is {wrong[0].status}; `cheaplip data fetch` gets it anew"
        )


def _listed(text: str, name: str) -> Sequence[str]:
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise ValueError(f"--{name} must be a list joined by commas; got {text!r}")
    return words


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"--eps must be numbers above 0, joined by commas; got {text!r}") from None
