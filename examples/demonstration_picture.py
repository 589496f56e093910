"""The picture of the demonstration: image + perturbation = attacked image, and what a network takes them for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from matplotlib.figure import Figure
from torch import Tensor, nn

from cheaplip.drawing import BLUE, GREY, ORANGE, styled
from cheaplip.experiments.figure1.words import percent

MOST = 4  # classes that are listed


@final
@dataclass(frozen=True, eq=False)
class Case:
    """One network and one image.

    Args:
        name: of the network.
        model: the network, in eval mode.
        x: the image, ``(1, channels, height, width)`` in [0, 1].
        y: what it shows, ``(1,)``.
        names: of the classes.
    """

    name: str
    model: nn.Module
    x: Tensor
    y: Tensor
    names: Sequence[str]


def draw(cases: Sequence[Case], attacked: Sequence[Tensor], norm: float, eps: float) -> Figure:
    """Draw a row for each network.

    Args:
        cases: networks and images.
        attacked: the attacked image of each.
        norm: in which the perturbation counts.
        eps: its largest norm.
    """
    with styled():
        figure = Figure(figsize=(9.2, 4.6 * len(cases)))
        figure.set_layout_engine("none")
        height = 1 / len(cases)
        for k, (case, x) in enumerate(zip(cases, attacked, strict=True)):
            _row(figure, 1 - (k + 1) * height, height, case, x, (norm, eps))
        return figure


def _row(figure: Figure, bottom: float, height: float, case: Case, x: Tensor, threat: tuple[float, float]) -> None:
    """Draw one network's row into a strip of the figure."""

    def place(left: float, low: float, width: float, high: float) -> Any:
        return figure.add_axes((left, bottom + low * height, width, (high - low) * height))

    figure.text(0.5, bottom + 0.955 * height, case.name, ha="center", va="center", weight="bold", size=12)
    lefts, width = (0.04, 0.365, 0.69), 0.27
    images = [place(left, 0.345, width, 0.885) for left in lefts]
    change = x - case.x
    largest = float(change.abs().max())
    shown = (case.x, change if case.x.shape[1] == 1 else 0.5 + 0.5 * change / max(largest, 1e-12), x)
    for k, (axes, picture) in enumerate(zip(images, shown, strict=True)):
        _image(axes, picture, signed=largest if k == 1 and case.x.shape[1] == 1 else None)
    for left, sign in ((0.3375, "+"), (0.6625, "=")):
        figure.text(left, bottom + 0.615 * height, sign, ha="center", va="center", size=22)
    for axes, title in zip(images, ("the image", "perturbation", "attacked image"), strict=True):
        axes.set_title(title, color=GREY, size=10, pad=3)
    _bars(place(lefts[0], 0.04, width, 0.325), case, case.x)
    _bars(place(lefts[2], 0.04, width, 0.325), case, x)
    sign = {1.0: "₁", 2.0: "₂", math.inf: "∞"}[threat[0]]
    size = float(change.flatten().norm(p=threat[0]))
    factor = "no change" if largest == 0 else f"magnified {0.5 / largest:.3g} ×"
    if case.x.shape[1] == 1 and largest:
        factor += "\nred darkens, blue lightens"
    lines = f"{factor}\n‖δ‖{sign} = {size:.3g}, at most {threat[1]:g}\nno pixel changes by over {largest:.2g}"
    figure.text(lefts[1] + width / 2, bottom + 0.31 * height, lines, ha="center", va="top", size=10, linespacing=1.5)


def _image(axes: Any, picture: Tensor, signed: float | None) -> None:
    values = picture[0].permute(1, 2, 0).numpy()
    if signed is not None:
        signed = max(signed, 1e-12)
        axes.imshow(values[:, :, 0], cmap="RdBu_r", vmin=-signed, vmax=signed, interpolation="nearest")
    elif values.shape[2] == 1:
        axes.imshow(values[:, :, 0], cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    else:
        axes.imshow(values.clip(0, 1), interpolation="nearest")
    axes.set(xticks=(), yticks=())
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set(visible=True, color=GREY, linewidth=0.8)


def _bars(axes: Any, case: Case, x: Tensor) -> None:
    """List the likeliest classes, each with a bar as long as its confidence; the image's own class in blue."""
    shares, classes = case.model(x)[0].softmax(0).topk(min(MOST, len(case.names)))
    for k, (share, found) in enumerate(zip(shares.tolist(), classes.tolist(), strict=True)):
        colour = BLUE if found == int(case.y) else ORANGE
        bold = "bold" if k == 0 else "normal"
        axes.barh(k, share, color=colour, height=0.28, align="edge")
        axes.text(0, k - 0.08, case.names[found], va="bottom", weight=bold, size=9, color=colour)
        axes.text(1, k - 0.08, percent(share), va="bottom", ha="right", weight=bold, size=9, color=colour)
    axes.set(xlim=(0, 1), ylim=(MOST - 0.5, -0.7))
    axes.set_axis_off()
