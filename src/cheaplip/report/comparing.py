"""Several runs side by side: one table and overlaid curves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, final

from cheaplip.report import curves, words
from cheaplip.report.charts import Chart
from cheaplip.report.radii import robustness
from cheaplip.report.reading import Run
from cheaplip.report.views import target_of
from cheaplip.report.words import number, percent
from cheaplip.runs import Compared, shortest
from cheaplip.runs import compare as compare_runs

NOTHING = "–"


@final
class Cell(NamedTuple):
    """What a table says of one quantity of one run.

    Attributes:
        value: the figure.
        note: a second, smaller line.
        best: whether it is better than that of every other run by more than chance.
    """

    value: str
    note: str = ""
    best: bool = False


@final
@dataclass(frozen=True)
class Comparison:
    """What a page says of several runs together.

    Args:
        runs: name and key of each.
        rows: of the table: a quantity, and its cell for each run.
        warnings: sentences on what does not compare.
        training: overlaid curves over epochs.
        robustness: overlaid curves over the radius.
    """

    runs: Sequence[tuple[str, str]]
    rows: Sequence[tuple[str, Sequence[Cell]]]
    warnings: Sequence[str]
    training: Sequence[Chart]
    robustness: Sequence[Chart]


def compare(runs: Sequence[Run]) -> Comparison:
    """Return the comparison of two runs or more."""
    tested = _tested(runs)
    return Comparison(
        runs=[(run.name, run.key) for run in runs],
        rows=list(_rows(runs, tested)),
        warnings=_warnings(runs),
        training=curves.training(runs, "all")[0],
        robustness=robustness(runs, "all"),
    )


def _tested(runs: Sequence[Run]) -> dict[str, Compared]:
    """Return the attacks that can be compared image by image; nothing for runs of different data."""
    if len({run.settings.data for run in runs}) > 1:
        return {}
    return {row.name: row for row in compare_runs([run.folder for run in runs]).rows}


def _rows(runs: Sequence[Run], tested: Mapping[str, Compared]) -> Iterator[tuple[str, list[Cell]]]:
    """Yield the rows of the table, without those that no run has anything to say of."""
    attacks = {_key(entry): words.attack(entry) for run in runs for entry in run.result.get("robust", [])}
    quantities: list[tuple[str, Callable[[Run], Cell | None]]] = [
        *((name, partial(_setting, name=name)) for name in ("data", "model", "penalty", "adversary")),
        ("target", _target),
        ("seed", partial(_setting, name="seed")),
        ("epochs", partial(_figure, path=("epochs",), form=number)),
        ("training accuracy", partial(_figure, path=("accuracy", "train"), form=percent)),
        ("clean accuracy", partial(_figure, path=("accuracy", "clean"), form=percent)),
        ("training loss", partial(_figure, path=("loss", "train"), form=number)),
        ("clean loss", partial(_figure, path=("loss", "clean"), form=number)),
        *(
            (f"accuracy under {name}", partial(_attacked, key=key, runs=runs, tested=tested))
            for key, name in attacks.items()
        ),
        ("Lip, lower bound", partial(_figure, path=("lipschitz", "lower"), form=number)),
        ("Lip, upper bound", partial(_figure, path=("lipschitz", "upper"), form=number)),
        ("λ", partial(_figure, path=("weight",), form=number)),
        ("time to train", partial(_figure, path=("seconds", "train"), form=words.seconds)),
        ("time to evaluate", partial(_figure, path=("seconds", "evaluate"), form=words.seconds)),
    ]
    for name, said in quantities:
        cells = [said(run) for run in runs]
        if any(cell is not None for cell in cells):
            yield name, [Cell(NOTHING) if cell is None else cell for cell in cells]


def _setting(run: Run, name: str) -> Cell:
    return Cell(str(getattr(run.settings, name)))


def _target(run: Run) -> Cell | None:
    return Cell(target_of(run)) if "target" in run.result else None


def _figure(run: Run, path: tuple[str, ...], form: Callable[[float], str]) -> Cell | None:
    found: Any = run.result
    for name in path:
        found = found.get(name, {})
    return None if found == {} else Cell(form(found))


def _key(entry: dict[str, Any]) -> tuple[str, str]:
    return words.attack(entry), entry.get("norm", "")


def _attacked(run: Run, key: tuple[str, str], runs: Sequence[Run], tested: Mapping[str, Compared]) -> Cell | None:
    entry = next((entry for entry in run.result.get("robust", []) if _key(entry) == key), None)
    if entry is None:
        return None
    name = entry["attack"] + (f"@{shortest(entry['eps'])}" if "eps" in entry else "")
    row, place, note = tested.get(name), list(runs).index(run), words.between(entry)
    against = row.against[place - 1] if row is not None and place else None
    if against is not None:
        chance = "p < 0.001" if against.chance < 0.001 else f"p = {against.chance:.2g}"
        note += f"; {100 * against.accuracy:+.1f} against the first, {chance}"
    return Cell(percent(entry["accuracy"]), note, row is not None and row.best == place)


def _warnings(runs: Sequence[Run]) -> list[str]:
    """Say what of the table does not compare."""
    said = []
    if len({run.settings.data for run in runs}) > 1:
        said.append("The runs are of different data: their accuracies, losses and Lip do not compare.")
    images = {entry["images"] for run in runs for entry in run.result.get("robust", [])}
    if len(images) > 1:
        said.append("The attacks ran over different numbers of test images: see the table of each run.")
    if len({words.norms(run.result.get("lipschitz", {})) for run in runs}) > 1:
        said.append("Lip is measured in different norms: see the figures of each run.")
    if len({run.settings.penalty for run in runs if "weight" in run.result}) > 1:
        said.append("The runs have different penalties, whose λ have different units; of several, λ is the first’s.")
    return said
