"""The path as a picture: risk, Lip and distance from the barycentre over λ, and the functions for some λ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cheaplip.drawing import BLACK, BLUE, GREY, ORANGE, styled
from cheaplip.experiments.path.exact import INTERVAL, X, Y, best, largest_slope
from cheaplip.experiments.path.training import WEIGHTS, places
from cheaplip.experiments.propositions import constant_from

# The panels of functions, from the smallest λ to the largest.
SHOWN = (0, 6, 9, 12)
LOOKS = {"growing": (BLUE, "o", "-", 7.0), "falling": (ORANGE, "x", "--", 6.0)}
FINE = np.geomspace(WEIGHTS[0], WEIGHTS[-1], 61)
EXACT = "exact: best of all functions"


def draw(runs: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw both directions of a path.

    Args:
        runs: for each direction ``direction`` and ``points``, as training measured them.
    """
    with styled():
        figure = Figure(figsize=(10.5, 6.6))
        halves: Any = figure.subfigures(2, 1, height_ratios=(1.35, 1))
        upper, lower = halves
        curves = upper.subplots(1, 3)
        exact = [best(X, Y, float(weight)) for weight in FINE]
        _path(curves[0], runs, "risk", [found.risk for found in exact])
        _path(curves[1], runs, "lipschitz", [found.lipschitz for found in exact])
        _path(curves[2], runs, "distance", [float(np.abs(found.values - Y.mean()).max()) for found in exact])
        _label(curves)
        panels = lower.subplots(1, len(SHOWN), sharex=True, sharey=True)
        for axes, number in zip(panels, SHOWN, strict=True):
            _functions(axes, runs, WEIGHTS[number])
        panels[0].set_ylabel("f(x)")
        handles, names = curves[1].get_legend_handles_labels()
        figure.legend(handles[:3], names[:3], loc="outside upper center", ncols=3)
    return figure


def _path(axes: Axes, runs: Sequence[Mapping[str, Any]], name: str, exact: Sequence[float]) -> None:
    axes.plot(FINE, exact, color=GREY, linewidth=5, alpha=0.45, label=EXACT, solid_capstyle="round")
    for run in runs:
        colour, marker, line, size = LOOKS[run["direction"]]
        points = sorted(run["stages"], key=_weight)
        axes.plot(
            [point["weight"] for point in points],
            [point[name] for point in points],
            color=colour,
            marker=marker,
            markersize=size,
            markerfacecolor="none",
            linestyle=line,
            linewidth=1.2,
            label=f"trained along {run['direction']} λ",
        )


def _weight(point: Mapping[str, Any]) -> float:
    return float(point["weight"])


def _label(curves: Sequence[Axes]) -> None:
    """Name axes, and mark what the propositions speak of."""
    risk, lip, apart = curves
    smallest, constant, spread = largest_slope(X, Y), constant_from(X, Y), float(Y.var())
    risk.set_yscale("log")
    risk.set_title("Risk: never falls (Prop. 2)")
    risk.set_ylabel("mean squared error")
    _line(risk, spread, f"of the mean of y: {spread:.3f}")
    lip.set_title("Lip: never rises (Prop. 2),\nfor small λ that of the flattest fit (Prop. 3)")
    lip.set_ylabel("Lip(f) on the interval")
    _line(lip, smallest, f"largest slope between neighbours: {smallest:.2f}")
    apart.set_title("Distance from the mean of y:\nvanishes for large λ (Prop. 4)")
    apart.set_ylabel("largest |f(x) - mean of y|")
    apart.axvline(constant, color=BLACK, linewidth=1, linestyle=":")
    apart.text(constant * 0.85, 0.02, f"exactly constant\nfrom λ = {constant:.2f} on", ha="right", fontsize=8)
    for axes in curves:
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.set_xlabel("λ")


def _line(axes: Axes, height: float, words: str) -> None:
    axes.axhline(height, color=BLACK, linewidth=1, linestyle=":")
    axes.annotate(words, (0.02, height), xycoords=("axes fraction", "data"), xytext=(0, 3), textcoords="offset points",
                  fontsize=8)  # fmt: skip


def _functions(axes: Axes, runs: Sequence[Mapping[str, Any]], weight: float) -> None:
    """Draw the functions of one λ, and the points."""
    low, high = INTERVAL
    found = best(X, Y, weight).values
    x, y = [low, *X, high], [found[0], *found, found[-1]]
    axes.plot(x, y, color=GREY, linewidth=5, alpha=0.45, solid_capstyle="round")
    for run in runs:
        colour, _, line, _ = LOOKS[run["direction"]]
        point = next(point for point in run["stages"] if point["weight"] == weight)
        axes.plot(places(), point["curve"], color=colour, linestyle=line, linewidth=1.4)
    axes.plot(X, Y, "o", color=BLACK, markersize=4, zorder=3)
    axes.set_title(f"λ = {weight:.4g}", fontsize=10)
    axes.set_xlabel("x")
