"""The pair before and after, and the sequence of its updates as an animation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, ScalarFormatter
from numpy.typing import NDArray

from cheaplip.drawing import BLACK, BLUE, GREY, ORANGE, animate, frame, save, styled
from cheaplip.experiments.figure1.search import Climb
from cheaplip.experiments.figure1.words import percent

SIGNS = ("x", "x′")  # noqa: RUF001 (a prime)
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


def draw(climb: Climb, names: Sequence[str], folder: Path) -> list[Path]:
    """Write figure1.png, figure1.svg and figure1.gif.

    Args:
        climb: the pair that is shown.
        names: of the classes.
        folder: where to.

    Returns:
        The files.
    """
    with styled():
        still = _still(climb, names)
        files = [save(still, folder / f"figure1.{kind}") for kind in ("png", "svg")]
        frames = [frame(_moving(climb, names, update), dpi=80) for update in range(len(climb.quotients))]
    return [*files, animate(frames, folder / "figure1.gif", seconds=0.15, last=3.0)]


def _still(climb: Climb, names: Sequence[str]) -> Figure:
    """Draw a row before and a row after, and beside them quotient and distance over all updates."""
    last = len(climb.quotients) - 1
    figure = Figure(figsize=(10.4, 5.2))
    halves: Any = figure.subfigures(1, 2, width_ratios=(1.75, 1))
    left, right = halves
    cells = left.subplots(2, 3)
    for row, update, moment in zip(cells, (0, last), ("before", f"after {last} updates"), strict=True):
        _show_pair(row, climb, names, update)
        row[0].text(
            -0.12, 0.5, moment, transform=row[0].transAxes, rotation=90, ha="center", va="center", weight="bold"
        )
    top, bottom = right.subplots(2, 1, sharex=True)
    _curve(top, climb.quotients, BLUE, "quotient", (0, last))
    _curve(bottom, climb.distances, GREY, f"distance ‖{SIGNS[0]} − {SIGNS[1]}‖", (0, last))
    bottom.set_xlabel("update")
    return figure


def _moving(climb: Climb, names: Sequence[str], update: int) -> Figure:
    """Draw one frame: the pair at an update, and the curve up to there; everything keeps its place."""
    figure = Figure(figsize=(8.4, 5.2))
    figure.set_layout_engine("none")
    figure.suptitle(f"update {update}:  quotient {climb.quotients[update]:.2f}", weight="bold", y=0.975)
    upper = figure.add_gridspec(1, 3, left=0.02, right=0.98, bottom=0.43, top=0.865, wspace=0.06)
    _show_pair([figure.add_subplot(upper[0, k]) for k in range(3)], climb, names, update)
    axes = figure.add_axes((0.085, 0.105, 0.895, 0.23))
    _curve(axes, climb.quotients, BLUE, "quotient", (update,))
    axes.set_xlabel("update")
    return figure


def _show_pair(cells: Any, climb: Climb, names: Sequence[str], update: int) -> None:
    """Show both images at an update, with class and confidence, and their difference."""
    low, high = climb.box or (float(climb.points[0].min()), float(climb.points[0].max()))
    for k, (axes, sign) in enumerate(zip(cells[:2], SIGNS, strict=True)):
        _image(axes, climb.points[update][k], low, high)
        taken, own = climb.classes[update][k], climb.labels[k]
        colour = BLUE if taken == own else ORANGE
        axes.set_title(f"{sign}, {_article(names[own])}", color=BLACK)
        told = f"{'✓' if taken == own else '✗'} {names[taken]}, {percent(climb.confidences[update][k])}"
        axes.set_xlabel(told, color=colour, weight="bold")
    difference = climb.points[update][0] - climb.points[update][1]
    largest = float(np.abs(difference).max())
    difference = difference.mean(0)
    cells[2].imshow(difference, cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest")
    cells[2].set_title(" − ".join(SIGNS))
    cells[2].set_xlabel(f"norm {climb.distances[update]:.3g}, pixels ≤ {largest:.2g}")
    for axes in cells:
        axes.set(xticks=(), yticks=())
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set(visible=True, color=GREY, linewidth=0.8)


def _image(axes: Any, image: NDArray[np.float32], low: float, high: float) -> None:
    if len(image) == 3:
        axes.imshow(((image - low) / (high - low)).clip(0, 1).transpose(1, 2, 0), interpolation="nearest")
    else:
        axes.imshow(image[0], cmap="gray_r", vmin=low, vmax=high, interpolation="nearest")


def _article(name: str) -> str:
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _curve(axes: Any, values: Sequence[float], colour: str, label: str, marked: Sequence[int]) -> None:
    """Draw values on a logarithmic axis up to the last marked update; the axes are those of all updates."""
    until = marked[-1]
    axes.plot(range(until + 1), values[: until + 1], color=colour)
    axes.plot(until, values[until], "o", color=colour, clip_on=False)
    low, high = min(values), max(values)
    axes.set_yscale("log")
    axes.set(xlim=(0, 1.02 * (len(values) - 1)), ylim=(low / 1.6, high * 1.9), ylabel=label)
    axes.set_yticks([tick for tick in TICKS if low / 1.6 <= tick <= high * 1.9])
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_locator(NullLocator())
    for update in marked:
        # Where the curve does not go: beside a rising one below its beginning and above its end.
        end, rising = update > len(values) // 2, values[until] > values[0]
        place: dict[str, Any] = {"xytext": (-2 if end else 8, 7 if end == rising else -15)}
        if len(marked) == 1:
            place = {"xytext": (-2 if end else 8, 7)}
        place |= {"textcoords": "offset points", "color": colour, "weight": "bold", "ha": "right" if end else "left"}
        axes.annotate(f"{values[update]:.3g}", (update, values[update]), **place)
