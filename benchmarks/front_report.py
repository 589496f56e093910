"""What ``front.py`` measured, as a table and a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from tables import Table

from cheaplip.drawing import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, SKY, YELLOW, styled

Found = dict[str, Any]
RADII, CERTIFIED = ("1", "1.5", "2"), ("0.5", "1")
LOOKS = {
    "plain": (GREY, "o"),
    "weight": (GREY, "s"),
    "layer product": (SKY, "s"),
    "CLIP": (BLUE, "o"),
    "CLIP, roaming": (BLUE, "D"),
    "Jacobian": (PINK, "v"),
    "ALP": (PINK, "^"),
    "one-step": (ORANGE, "o"),
    "PGD-7": (ORANGE, "s"),
    "TRADES": (YELLOW, "D"),
    "one-step + CLIP": (GREEN, "o"),
    "one-step + CLIP, roaming": (GREEN, "D"),
}


def mean(runs: Sequence[Found], part: str, key: str) -> float:
    """Return the mean over the runs that have it; NaN where none has."""
    values = [float(run[part][key]) for run in runs if key in run.get(part, {})]
    return sum(values) / len(values) if values else math.nan


def percent(runs: Sequence[Found], part: str, keys: Sequence[str]) -> str:
    """Return mean accuracies in percent, one per key, nothing where there is none."""
    values = [mean(runs, part, key) for key in keys]
    return "" if all(map(math.isnan, values)) else " / ".join(f"{100 * value:.1f}" for value in values)


def row(name: str, knob: str, runs: Sequence[Found], cost: Found) -> tuple[str, ...]:
    """Return a row of the table: means over the seeds."""
    steep = [mean(runs, "lipschitz", key) for key in ("jacobian", "lower", "upper")]
    return (
        name,
        f"{knob} = {runs[0]['value']:g}",
        f"{cost[name]['median']:.1f}" if name in cost else "",
        percent(runs, "test", ["clean"]),
        percent(runs, "test", [f"pgd@{eps}" for eps in RADII]),
        percent(runs, "autoattack", [f"autoattack-fast@{eps}" for eps in RADII]),
        percent(runs, "proof", [f"certified@{eps}" for eps in CERTIFIED]),
        f"{steep[0]:.2f}",
        f"{steep[1]:.2f} to {steep[2]:.2f}",
    )


def table(rows: Sequence[tuple[str, ...]], title: str) -> Table:
    """Return the table of all rows."""
    heads = ("training", "its number", "step ×", "clean", "PGD, ε = 1 / 1.5 / 2", "autoattack-fast, the same",
             "certified, 0.5 / 1", "Jacobian", "Lip")  # fmt: skip
    return Table(title, heads, tuple(rows))


def draw(trials: dict[str, list[Found]], tuned: dict[str, Found], cost: Found) -> Figure:
    """Draw clean against attacked accuracy of all trials, and what is proven of the tuned ones.

    Args:
        trials: runs of the first seed by method, in the order of their number.
        tuned: the run that was chosen, by method.
        cost: of a step by method.
    """
    with styled():
        figure = Figure(figsize=(12, 6.2))
        left, right = figure.subplots(1, 2, width_ratios=(1.6, 1))
        for name, (colour, marker) in LOOKS.items():
            if name not in tuned:
                continue
            times = float(cost.get(name, {}).get("median", 1.0))
            look: dict[str, Any] = {"color": colour, "marker": marker}
            line = [_point(run, ("test", "clean"), ("test", "pgd@1.5")) for run in trials[name]]
            left.plot(*zip(*line, strict=True), lw=1, ms=3.5, alpha=0.6, zorder=2, **look)
            best = _point(tuned[name], ("test", "clean"), ("test", "pgd@1.5"))
            left.scatter(*best, s=40 * times, edgecolors="white", linewidths=0.8, zorder=3, **look)
            _name(left, best, name, times)
            proven = _point(tuned[name], ("proof", "certified@0.5"), ("test", "pgd@1.5"))
            if not math.isnan(proven[0]):
                right.scatter(*proven, s=60, edgecolors="white", linewidths=0.8, zorder=3, **look)
                _name(right, proven, name)
        left.set(xlabel="clean accuracy, %", ylabel="accuracy under PGD, ε = 1.5, %")
        left.set_title("Clean against attacked; area: cost of a step", loc="left")
        right.set(xlabel="proven at ε = 0.5, % of 200 images", ylabel="accuracy under PGD, ε = 1.5, %")
        right.set_title("What is proven of it", loc="left")
        right.set_xlim(-4, 116)
        right.set_ylim(left.get_ylim())
    return figure


def _point(run: Found, x: tuple[str, str], y: tuple[str, str]) -> tuple[float, float]:
    first, second = (100 * float(run.get(part, {}).get(key, math.nan)) for part, key in (x, y))
    return first, second


# Where a name stands beside its point, in points, left and right; chosen by looking.
USUAL = (8, 4)
SHIFTS: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {
    "TRADES": ((-15, 7), (8, 2)),
    "PGD-7": ((13, 6), (-7, 2)),
    "one-step": ((8, -11), USUAL),
    "one-step + CLIP": ((-6, 9), (-8, -3)),
    "one-step + CLIP, roaming": ((-20, -21), (8, 3)),
    "CLIP": ((6, 7), USUAL),
    "CLIP, roaming": ((6, 8), USUAL),
    "weight": ((-6, 6), USUAL),
    "plain": ((-7, 3), USUAL),
    "Jacobian": ((-7, -6), USUAL),
}


def _name(axes: Any, at: tuple[float, float], name: str, times: float | None = None) -> None:
    shift = SHIFTS.get(name, (USUAL, USUAL))[times is None]
    side = "right" if -20 < shift[0] < 0 else "left"
    text = name if times is None else f"{name} ({times:.1f} ×)"
    axes.annotate(text, at, shift, textcoords="offset points", fontsize=8.5, color=BLACK, ha=side, zorder=4)


def curve(runs: Sequence[Found]) -> Table:
    """Return the table of reductions between the mean and the maximum."""
    cells = [
        (
            str(run["method"]).removeprefix("CLIP, "),
            str(run["seed"]),
            f"{100 * run['last']['accuracy']:.1f}",
            percent([run], "test", ["clean"]),
            percent([run], "test", [f"pgd@{eps}" for eps in RADII]),
            f"{run['lipschitz']['jacobian']:.2f}",
            f"{run['lipschitz']['lower']:.2f}",
            f"{run['last']['weight']:.2f}",
        )
        for run in runs
    ]
    heads = ("quotients are reduced by", "seed", "train", "clean", "PGD, ε = 1 / 1.5 / 2", "Jacobian", "Lip ≥", "λ")
    return Table("Mean, soft maximum, maximum", heads, tuple(cells))
