"""Table 1 of the paper: Standard, weight regularisation and CLIP at three targets, and the rivals beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cheaplip import runs
from cheaplip.data import load
from cheaplip.drawing import save
from cheaplip.experiments.jobs import Job, Place, run_all
from cheaplip.experiments.outcome import Outcome, check_claimed, claim, has_only, write_json, write_text
from cheaplip.experiments.table1.cells import remarks, row_of
from cheaplip.experiments.table1.layout import by_data, caption, comma_separated, heads, latex, markdown, texts
from cheaplip.experiments.table1.picture import draw
from cheaplip.experiments.table1.plan import COSTS, MODELS, Row, rows_of
from cheaplip.experiments.table1.work import finished, train_and_attack
from cheaplip.settings import ReproduceSettings, TrainSettings

__all__ = ["run"]

LIMIT = 1000
PAPER = ("mnist", "fashion-mnist")


def run(settings: ReproduceSettings, folder: Path, *, progress: bool = False) -> Outcome:
    """Train and attack every network of the table, as many at a time as there are cores; see :func:`reproduce`.

    All finished runs of the folder are in its table: ``table1.json``, ``.csv``, ``.md``, ``.tex`` and ``.png``.

    Raises:
        ValueError: for settings that it does not have, or a folder of another experiment.
        FileNotFoundError: if data is missing.

    Reference: Bungert et al. 2021, Table 1.
    """
    has_only(settings, "table1", "data", "seeds", "epochs", "limit")
    names = PAPER if settings.data is None else (settings.data,)
    rows = [row for name in names for row in rows_of(name)]
    # What is missing is told, or fetched, before anything is trained.
    images = {name: len(load(name, data_dir=settings.data_dir).test.x) for name in names}
    limit = LIMIT if settings.limit is None else settings.limit
    claim(folder, "table1", {"limit": limit})
    jobs = [
        _job(row, chosen, seed, limit, images[row.data])
        for seed in range(settings.seeds)
        for row in rows
        if not finished(chosen := _settings(row, seed, folder, settings), limit, images[row.data])
    ]
    # Seed by seed, and the longest first, so that no core is left with one in the end.
    jobs.sort(key=lambda job: (job.arguments[0].seed, -job.units))
    run_all(jobs, Place.of(settings, folder, gpu=settings.device == "cuda"), title="table1", progress=progress)
    check_claimed(folder)
    return tell(folder)


def _settings(row: Row, seed: int, out: Path, settings: ReproduceSettings) -> TrainSettings:
    others: dict[str, Any] = {"device": settings.device, "data_dir": settings.data_dir}
    if settings.epochs is not None:
        others["epochs"] = settings.epochs
    return row.settings(row.folder(out, seed), seed, **others)


def _job(row: Row, chosen: TrainSettings, seed: int, limit: int, images: int) -> Job:
    own, cost = Path(chosen.out or ""), COSTS[row.method]

    def done() -> float:
        return cost * runs.epochs_done(own)

    # The attacks in the end take about as long as a fifth of training.
    units = 1.2 * cost * chosen.epochs
    return Job(f"{row.data} {row.title}, seed {seed}", train_and_attack, (chosen, limit, images), units, done)


def tell(folder: Path) -> Outcome:
    """Write the table of all finished runs of a folder, and return it.

    Args:
        folder: that of the experiment.

    Raises:
        ValueError: if the results of a run are damaged.
    """
    found = []
    for row in (row for name in MODELS for row in rows_of(name)):
        results = dict(_finished(row, folder))
        if results:
            found.append(row_of(row, results))
    said = remarks(found)
    files = [
        save(draw(found), folder / "table1.png"),
        write_text(folder / "table1.md", markdown(found, said)),
        write_text(folder / "table1.tex", latex(found)),
        write_text(folder / "table1.csv", comma_separated(found)),
        write_json(folder / "table1.json", {"rows": found, "remarks": said}),
    ]
    title = "; ".join(caption(group) for group in by_data(found))
    lines = [(row["data"], *texts(row)) for row in found]
    return Outcome(title, ("data", *heads(found)), lines, said, files)


def _finished(row: Row, folder: Path) -> Any:
    """Yield seed and results of the finished runs of a row."""
    for own in sorted(row.folder(folder, 0).parent.glob("seed-*")):
        if runs.finished(own):
            result = runs.read_result(own)
            if result.get("robust"):
                yield int(result["seed"]), result
