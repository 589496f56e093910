"""Curves over epochs: of one run by quantity, of several by run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import final

from cheaplip.report.charts import Axes, Chart, Line, Style, draw
from cheaplip.report.reading import Run
from cheaplip.report.words import number, percent


@final
@dataclass(frozen=True)
class _Quantity:
    """Something that is drawn over epochs.

    Args:
        key: what its id ends with.
        title: of the card.
        axis: what the vertical axis is called.
        lines: of a run, its number, and whether there are several.
        note: a sentence below the chart.
        missing: a sentence in its place where no run has it.
    """

    key: str
    title: str
    axis: str
    lines: Callable[[Run, int, bool], list[Line]]
    note: str = ""
    missing: str = ""


def training(runs: Sequence[Run], key: str) -> tuple[list[Chart], list[str]]:
    """Return the curves over epochs of one run or several, and sentences on what there is no curve of.

    Args:
        runs: one or more.
        key: what ids begin with.
    """
    charts, missing = [], []
    for quantity in _quantities(runs):
        lines = [line for number, run in enumerate(runs) for line in quantity.lines(run, number, len(runs) > 1)]
        if lines:
            charts.append(_drawn(quantity, runs, lines, key))
        elif quantity.missing:
            missing.append(quantity.missing)
    return charts, missing


def _drawn(quantity: _Quantity, runs: Sequence[Run], lines: Sequence[Line], key: str) -> Chart:
    targets = sorted({target for run in runs if (target := _target(run, quantity.key)) is not None})
    share = quantity.key == "accuracy"
    shown = ", ".join(map(percent if share else number, targets))
    levels = "" if not targets else f"target {shown}" if len(targets) == 1 else f"targets {shown}"
    axes = Axes("epoch", quantity.axis, share=share, levels=targets, kept=_kept(runs))
    return draw(f"{key}-{quantity.key}", quantity.title, lines, axes, levels=levels, note=quantity.note)


def _target(run: Run, key: str) -> float | None:
    held = run.held
    if held == "value" and "lipschitz" in run.settings.penalties:
        held = "lip"
    target: float | None = run.result.get("target") if key == held else None
    return target


def _kept(runs: Sequence[Run]) -> float | None:
    """Return the epoch whose weights one run kept, where it is not the last."""
    kept = runs[0].result.get("kept") if len(runs) == 1 else None
    return kept if kept is not None and 0 < kept < len(runs[0].history) else None


def _quantities(runs: Sequence[Run]) -> list[_Quantity]:
    penalties = dict.fromkeys(name for run in runs for name in run.settings.penalties)
    weights = [
        _Quantity(f"weight-{name}", f"Weight of the penalty: {name}", "λ", partial(_weight, penalty=name))
        for name in penalties
    ]
    return [
        _Quantity("loss", "Loss", "training loss, without penalties", _loss),
        _Quantity(
            *("accuracy", "Accuracy", "accuracy", _accuracy), missing="There is no accuracy: this is a regression."
        ),
        _Quantity(
            *("lip", "Lipschitz constant", "Lip, output norm per input norm", _lip),
            note="Lower bounds of the true constant, by difference quotients of pairs of inputs.",
            missing="There is no curve of Lip: no epoch measured it.",
        ),
        *(weights or [_Quantity("weight", "", "", _nothing, missing="There is no λ: nothing was penalised.")]),
    ]


def _loss(run: Run, place: int, several: bool) -> list[Line]:
    return _line(run, "loss", run.name if several else "training loss", _plain(place))


def _accuracy(run: Run, place: int, several: bool) -> list[Line]:
    lines = _line(run, "accuracy", run.name if several else "training accuracy", _plain(place))
    if not several:
        lines += _line(run, "train_accuracy", "training accuracy at the epoch’s end", Style(2, 2))
        attacked = f"under PGD on the selection split, ε = {run.settings.select_eps:g}"
        lines += _line(run, "score", attacked, Style(1, 1))
    return lines


def _lip(run: Run, place: int, several: bool) -> list[Line]:
    lines = []
    if "lipschitz" in run.settings.penalties:
        column = _column("value", run, "lipschitz")
        lines = _line(run, column, f"{run.name}, value" if several else "value of the penalty", _plain(place))
    style = Style(place if several else 1, 3, marker=place + 1, hollow=several)
    return lines + _line(run, "lower", f"{run.name}, search" if several else "a stronger search (lower)", style)


def _weight(run: Run, place: int, several: bool, penalty: str) -> list[Line]:
    if penalty not in run.settings.penalties:
        return []
    return _line(run, _column("weight", run, penalty), run.name if several else "λ", _plain(place))


def _nothing(run: Run, place: int, several: bool) -> list[Line]:
    return []


def _column(name: str, run: Run, penalty: str) -> str:
    place = run.settings.penalties.index(penalty)
    return name if place == 0 else f"{name}_{place + 1}"


def _plain(place: int) -> Style:
    return Style(place, place)


def _line(run: Run, column: str, label: str, style: Style) -> list[Line]:
    if column not in run.history.columns:
        return []
    both = zip(run.history.column("epoch"), run.history.column(column), strict=True)
    points = [(x, y) for x, y in both if not math.isnan(y)]
    return [Line(label, [x for x, _ in points], [y for _, y in points], style)]
