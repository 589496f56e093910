"""A sweep: many runs that differ in their settings, and the table of what came out."""

from __future__ import annotations

import csv
import functools
import io
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cheaplip import runs
from cheaplip.data import load
from cheaplip.experiments.grid import Planned, runs_of, text_of
from cheaplip.experiments.jobs import Job, Place, run_all
from cheaplip.experiments.outcome import Outcome, check_claimed, claim, write_json, write_text
from cheaplip.runs.parts import assemble
from cheaplip.runs.pipeline import check_folder
from cheaplip.settings import SweepSettings, TrainSettings

# How a number of a result is called in a table, where it lies in it, and how it is written.
NUMBERS: dict[str, tuple[tuple[str, ...], Callable[[float], str]]] = {
    "accuracy": (("accuracy", "clean"), lambda value: f"{100 * value:.2f} %"),
    "loss": (("loss", "clean"), lambda value: f"{value:.5g}"),
    "Lip ≥": (("lipschitz", "lower"), lambda value: f"{value:.4g}"),
    "Lip ≤": (("lipschitz", "upper"), lambda value: f"{value:.4g}"),
    "λ": (("weight",), lambda value: f"{value:.4g}"),
    "seconds": (("seconds", "train"), lambda value: f"{value:.1f}"),
}
KEPT = ("accuracy", "loss", "lipschitz", "weight", "weights", "seconds")  # of a result, in sweep.json


def run(plan: Mapping[str, Any], settings: SweepSettings, folder: Path, *, progress: bool = False) -> Outcome:
    """Train what a grid lists, each run in a folder of its own; see :func:`cheaplip.experiments.sweep`."""
    planned = runs_of(plan, folder)
    _check(planned)
    claim(folder, "sweep", {})
    left = [run for run in planned if not runs.finished(folder / run.name)]
    jobs = [_job(run, folder / run.name) for run in left]
    place = Place.of(settings, folder, gpu=any(run.settings.device == "cuda" for run in planned))
    found = run_all(jobs, place, title=f"{len(planned)} runs", progress=progress, keep_going=True)
    check_claimed(folder)
    failed = [(run, error) for run, error in zip(left, found, strict=True) if isinstance(error, Exception)]
    outcome = _tell(folder, [run for run in planned if runs.finished(folder / run.name)], len(planned))
    if failed:
        first, error = failed[0]
        raise ValueError(
            f"{len(failed)} of {len(planned)} runs failed, the first {first.name}: {error}; the others are done, in "
            f"{folder / 'sweep.md'}"
        ) from error
    return outcome


def _check(planned: Sequence[Planned]) -> None:
    """Raise where a run would fail before its first step: what is wrong is told before anything is trained."""
    loaded: dict[Any, Any] = {}
    seen: set[str] = set()
    for run in planned:
        chosen = check_folder(runs.folder_of(run.settings), run.settings)
        source = (chosen.data, chosen.data_dir)
        if source not in loaded:
            loaded[source] = load(chosen.data, data_dir=chosen.data_dir, seed=chosen.seed)
        same = repr(replace(chosen, seed=0, epochs=1, out=None))
        if same not in seen:
            seen.add(same)
            try:
                assemble(chosen, loaded[source], torch.device("cpu"))
            except (ValueError, TypeError) as error:
                raise type(error)(f"the run {run.name}: {error}") from error


def _job(run: Planned, folder: Path) -> Job:
    return Job(run.name, _train, (run.settings,), run.settings.epochs, functools.partial(runs.epochs_done, folder))


def _train(settings: TrainSettings) -> None:
    runs.train(settings, progress=False)


def _tell(folder: Path, done: Sequence[Planned], planned: int) -> Outcome:
    """Write the table of the finished runs, and return it."""
    results = [runs.read_result(folder / run.name) for run in done]
    names = list(dict.fromkeys(name for run in done for name in run.told))
    names = [name for name in names if len({str(run.value(name)) for run in done}) > 1] or names
    shown = [head for head in NUMBERS if any(_number(result, head) is not None for result in results)]
    heads = (*names, *shown)
    rows = [
        (*map(run.value, names), *(_number(result, head) for head in shown))
        for run, result in zip(done, results, strict=True)
    ]
    lines = [tuple(_written(head, value) for head, value in zip(heads, row, strict=True)) for row in rows]
    content = [
        {"run": run.name, "settings": dict(run.told)} | {key: result[key] for key in KEPT if key in result}
        for run, result in zip(done, results, strict=True)
    ]
    files = [
        write_text(folder / "sweep.md", _markdown(heads, lines)),
        write_text(
            folder / "sweep.csv",
            _comma_separated(("run", *heads), [(r.name, *row) for r, row in zip(done, rows, strict=True)]),
        ),
        write_json(folder / "sweep.json", {"runs": content}),
    ]
    folders = f"{shlex.quote(str(folder))}/*/"
    remarks = [
        "accuracy and loss are those on the test set; seconds are those of training",
        f"see them on one page: cheaplip report {folders} --out report.html; side by side: cheaplip compare {folders}",
    ]
    return Outcome(f"{len(done)} of {planned} runs in {folder}", heads, lines, remarks, files)


def _number(result: Mapping[str, Any], head: str) -> Any:
    """Return what a column holds of a result, None if nothing."""
    value: Any = result
    for key in NUMBERS[head][0]:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _written(head: str, value: Any) -> str:
    if head in NUMBERS:
        return "" if value is None else NUMBERS[head][1](value)
    return text_of(value)


def _markdown(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [[cell.replace("|", "\\|") for cell in row] for row in (heads, ["---"] * len(heads), *lines)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _comma_separated(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([heads, *rows])
    return stream.getvalue()
