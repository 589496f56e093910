"""Curves as inline SVG: legends are HTML, so that no text of a user's gets into a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from cheaplip.drawing import styled
from cheaplip.report import svg
from cheaplip.report.words import SPACE, number, percent

# Units of the SVG; on a phone one of them is a little less than a pixel.
SIZE = (310, 205)
LETTERS = 10.5
# Of each the name in Matplotlib, and what draws the same in a legend.
DASHES: tuple[tuple[Any, str], ...] = (
    ("solid", ""),
    ((0, (4, 2)), "8 4"),
    ((0, (5, 1.5, 1, 1.5)), "9 3 2 3"),
    ((0, (1, 1.4)), "2 3"),
)
MARKERS = (
    ("o", "M12 5a3 3 0 1 0 6 0a3 3 0 1 0-6 0z"),
    ("s", "M12.2 2.2h5.6v5.6h-5.6z"),
    ("D", "M15 1.3l3.7 3.7-3.7 3.7-3.7-3.7z"),
    ("^", "M15 1.5l3.7 6.5h-7.4z"),
    ("v", "M15 8.5l3.7-6.5h-7.4z"),
)
# Lines that differ by more than this are drawn over a logarithmic axis: a linear one would hide the lower.
WIDE = 50.0


@final
@dataclass(frozen=True)
class Style:
    """How a line is drawn: colour, dashes and marker say the same. All numbers are counted on without end.

    Args:
        colour: the number of a colour.
        dash: the number of a kind of dashes, 0 for none.
        marker: the number of a marker, or None.
        hollow: draw the marker's outline alone.
    """

    colour: int
    dash: int = 0
    marker: int | None = None
    hollow: bool = False

    @property
    def variable(self) -> str:
        """The colour, as a variable of the page."""
        return f"--s{self.colour % len(svg.SERIES)}"

    @property
    def dashes(self) -> str:
        """The dashes, as an attribute of the legend."""
        return DASHES[self.dash % len(DASHES)][1]

    @property
    def shape(self) -> str:
        """The marker, as a path of the legend; empty for none."""
        return "" if self.marker is None else MARKERS[self.marker % len(MARKERS)][1]


@final
@dataclass(frozen=True)
class Line:
    """One curve.

    Args:
        label: what the legend says.
        x: where, one point or more.
        y: the values, finite.
        style: how it is drawn.
        interval: for each point its 95 % interval, or None; empty for none at all.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    style: Style
    interval: Sequence[tuple[float, float] | None] = ()


@final
@dataclass(frozen=True)
class Axes:
    """What a chart is drawn over.

    Args:
        x: the name of the horizontal axis.
        y: the name of the vertical one.
        share: values are fractions of 1, shown in per cent.
        whole: the horizontal axis has whole numbers.
        levels: values at which a line goes across, such as a target.
        kept: the epoch whose weights were kept, or None.
    """

    x: str
    y: str
    share: bool = False
    whole: bool = True
    levels: Sequence[float] = ()
    kept: float | None = None


@final
@dataclass(frozen=True)
class Chart:
    """A figure for the page.

    Args:
        title: of its card.
        svg: the figure.
        legend: its lines.
        levels: what the lines across are called, empty for none.
        kept: what the mark of the kept epoch is called, empty for none.
        note: a sentence below it.
    """

    title: str
    svg: Markup
    legend: Sequence[Line]
    levels: str = ""
    kept: str = ""
    note: str = ""


def draw(key: str, title: str, lines: Sequence[Line], axes: Axes, *, levels: str = "", note: str = "") -> Chart:
    """Draw a chart.

    Args:
        key: unique in the page.
        title: of its card.
        lines: one or more.
        axes: what they are drawn over.
        levels: what the lines across are called.
        note: a sentence below it.
    """
    with styled():
        matplotlib.rcParams.update(_LOOK)
        figure = Figure(figsize=(SIZE[0] / 72, SIZE[1] / 72))
        plot = figure.subplots()
        for level in axes.levels:
            plot.axhline(level, color=svg.INK, linewidth=1, linestyle=DASHES[1][0], zorder=1)
        if axes.kept is not None:
            plot.axvline(axes.kept, color=svg.AXIS, linewidth=1, linestyle=DASHES[3][0], zorder=1)
        for line in lines:
            _add(plot, line)
        _finish(plot, lines, axes)
        drawn = svg.inline(figure, key, title, _told(lines, axes, levels))
    kept = "" if axes.kept is None else f"kept epoch, {axes.kept:g}"
    return Chart(title, drawn, lines, levels, kept, note)


def _add(plot: Any, line: Line) -> None:
    style = line.style
    colour = svg.SERIES[style.colour % len(svg.SERIES)]
    dot = 0 if len(line.x) == 1 and style.marker is None else style.marker  # a line through one point is invisible
    plot.plot(
        *(line.x, line.y),
        color=colour,
        linestyle=DASHES[style.dash % len(DASHES)][0],
        linewidth=1.8,
        marker="" if dot is None else MARKERS[dot % len(MARKERS)][0],
        markersize=5 if len(line.x) <= 12 else 3.5,
        markerfacecolor=svg.PAPER if style.hollow else colour,
        zorder=3,
    )
    for x, y, ends in zip(line.x, line.y, line.interval, strict=False):
        if ends is not None:
            bars = [[max(0.0, y - ends[0])], [max(0.0, ends[1] - y)]]
            plot.errorbar([x], [y], yerr=bars, ecolor=colour, elinewidth=1.2, capsize=3, fmt="none", zorder=2)


def _finish(plot: Any, lines: Sequence[Line], axes: Axes) -> None:
    """Set the scales, the ticks and the names of the axes."""
    plot.set_xlabel(axes.x)
    plot.margins(x=0.02 if axes.whole else 0.05)
    plot.set_title(axes.y, loc="left", fontsize=LETTERS, pad=7)
    plot.grid(axis="x", visible=False)
    plot.spines["left"].set_visible(False)
    plot.tick_params(axis="y", length=0)
    plot.xaxis.set_major_locator(MaxNLocator(6, integer=axes.whole))
    plot.xaxis.set_major_formatter(FuncFormatter(_tick))
    if axes.share:
        plot.yaxis.set_major_formatter(FuncFormatter(_percent_tick))
        plot.yaxis.set_major_locator(MaxNLocator(5))
        low, high = plot.get_ylim()
        plot.set_ylim(max(low, -0.02), min(high, 1.02))
        return
    least, peaks = min(min(line.y) for line in lines), [max(line.y) for line in lines]
    if least > 0 and max(peaks) > WIDE * min(peaks):
        plot.set_yscale("log")
        plot.yaxis.set_minor_locator(NullLocator())
    else:
        plot.yaxis.set_major_locator(MaxNLocator(5))
        plot.set_ylim(bottom=0 if least >= 0 else None, top=1 if least == max(peaks) == 0 else None)
    plot.yaxis.set_major_formatter(FuncFormatter(_tick))


def _tick(value: float, place: int | None) -> str:
    return f"{value:g}"


def _percent_tick(value: float, place: int | None) -> str:
    return f"{100 * value:g}{SPACE}%"


def _told(lines: Sequence[Line], axes: Axes, levels: str) -> str:
    """Say in words what a chart shows."""
    shown = percent if axes.share else number
    told = [f"{axes.y} over {axes.x}."]
    for line in lines:
        begin = "" if len(line.x) == 1 else f"{shown(line.y[0])} at {line.x[0]:g}, "
        told.append(f"{line.label}: {begin}{shown(line.y[-1])} at {line.x[-1]:g}.")
    return " ".join([*told, *([f"A line across: {levels}."] if levels else [])])


_LOOK: Any = {
    "axes.edgecolor": svg.AXIS,
    "axes.labelcolor": svg.INK,
    "axes.titlecolor": svg.INK,
    "axes.ymargin": 0.08,
    "font.size": LETTERS,
    "grid.alpha": 1.0,
    "grid.color": svg.GRID,
    "grid.linewidth": 0.8,
    "text.parse_math": False,
    "xtick.color": svg.AXIS,
    "xtick.labelcolor": svg.INK,
    "ytick.labelcolor": svg.INK,
}
