"""The table as a picture: accuracy under strong PGD, one panel a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cheaplip.drawing import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, styled
from cheaplip.experiments.table1.cells import interval
from cheaplip.experiments.table1.layout import by_data
from cheaplip.experiments.table1.plan import TARGETS, Row

_RADII = (("clean", 0.0), ("pgd@1", 1.0), ("pgd@1.5", 1.5), ("pgd@2", 2.0))
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
        grid = figure.subplots(len(groups), len(TARGETS), sharex=True, sharey=True, squeeze=False)
        for line, group in zip(grid, groups, strict=True):
            for axes, target in zip(line, TARGETS, strict=True):
                for row in group:
                    if row.get("target") in (None, target):
                        _curve(axes, row)
                axes.set_title(f"{group[0]['data']}, target {100 * target:.0f} %")
                axes.set(ylim=(0, 101), xlim=(-0.03, 2.03), xticks=[radius for _, radius in _RADII])
            line[0].set_ylabel("test accuracy in %")
        for axes in grid[-1]:
            axes.set_xlabel("radius ε of strong L2 PGD")
        known = {label: handle for axes in grid.flat for handle, label in zip(*axes.get_legend_handles_labels())}  # noqa: B905
        figure.legend(known.values(), known.keys(), loc="outside lower center", ncols=len(known))
    return figure


def _curve(axes: Axes, row: Mapping[str, Any]) -> None:
    points = [(name, radius) for name, radius in _RADII if name in row["cells"]]
    colour, marker, dashes = _LOOKS[row["method"]]
    radii = [radius for _, radius in points]
    shares = [100 * row["cells"][name]["mean"] for name, _ in points]
    label = Row(row["data"], row["method"]).title
    axes.plot(radii, shares, marker=marker, linestyle=dashes, color=colour, label=label, markersize=5)
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
