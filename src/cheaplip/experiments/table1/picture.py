"""The table as a picture: accuracy under strong PGD, one panel a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cheaplip.drawing import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, styled
from cheaplip.experiments.table1.cells import interval
from cheaplip.experiments.table1.layout import by_data
from cheaplip.experiments.table1.plan import NAMES, RADII, TARGETS, Row

_LOOKS = {
    "standard": (BLACK, "o", "-"),
    "weight": (ORANGE, "s", "--"),
    "clip": (BLUE, "D", "-"),
    "layers": (GREEN, "^", ":"),
    "one-step": (GREY, "v", "-."),
    "pgd-7": (PINK, "P", "-."),
}


def draw(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw accuracy against radius; a line of panels a data set, and one panel a target.

    Args:
        rows: of ``table1.json``, one or more.
    """
    groups = by_data(rows)
    with styled():
        figure = Figure(figsize=(11, 0.6 + 3.5 * len(groups)))
        grid = figure.subplots(len(groups), len(TARGETS), sharex="row", sharey=True, squeeze=False)
        for line, group in zip(grid, groups, strict=True):
            for axes, target in zip(line, TARGETS, strict=True):
                for row in group:
                    if row.get("target") in (None, target):
                        _curve(axes, row)
                axes.set_title(f"{NAMES[group[0]['data']]}, target {100 * target:.0f} %")
                radii = RADII[group[0]["data"]]
                axes.set(ylim=(0, 101), xlim=(-0.015 * radii[-1], 1.015 * radii[-1]), xticks=(0.0, *radii))
            line[0].set_ylabel("test accuracy in %")
        for axes in grid[-1]:
            axes.set_xlabel("radius ε of strong L2 PGD")
        known: dict[str, Any] = {}
        for axes in grid.flat:
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                known.setdefault(label, handle)
        figure.legend(known.values(), known.keys(), loc="outside lower center", ncols=len(known))
    return figure


def _curve(axes: Axes, row: Mapping[str, Any]) -> None:
    radii = {"clean": 0.0, **{f"pgd@{eps:g}": eps for eps in RADII[row["data"]]}}
    points = [(name, radius) for name, radius in radii.items() if name in row["cells"]]
    colour, marker, dashes = _LOOKS[row["method"]]
    shares = [100 * row["cells"][name]["mean"] for name, _ in points]
    label = Row(row["data"], row["method"]).title
    face = "none" if row.get("reached") is False else colour
    axes.plot(
        [radius for _, radius in points],
        shares,
        marker=marker,
        linestyle=dashes,
        color=colour,
        label=label,
        markersize=5,
        markerfacecolor=face,  # hollow where the target was missed
    )
    attacked = [(name, radius) for name, radius in points if name in row["images"]]
    ends = [interval(row, name) for name, _ in attacked]
    axes.fill_between(
        [radius for _, radius in attacked],
        [100 * low for low, _ in ends],
        [100 * high for _, high in ends],
        color=colour,
        alpha=0.15,
        linewidth=0,
    )
