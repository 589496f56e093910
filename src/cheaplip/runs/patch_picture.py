"""The picture of a patch: itself, what it does to images, and how often, beside controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from torch import Tensor

from cheaplip.attacks.patch import Patch, Success, success
from cheaplip.drawing import BLACK, BLUE, GREY, ORANGE, styled
from cheaplip.modes import Model

AREAS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25)
# The size at which images are shown, and how many.
SHOWN_AREA, SHOWN = 0.25, 5
REAL, NOISE = "image of the target class", "noise"


def curves(
    model: Model, patch: Patch, x: Tensor, y: Tensor, real: Tensor, *, seed: int = 0
) -> dict[str, list[Success]]:
    """Count the success of a patch and of two controls, at each of ``AREAS``.

    Args:
        model: a classifier, in eval mode.
        patch: the patch.
        x: images that it was not trained on.
        y: their labels.
        real: an image of the target class, the control that a patch has to beat.
        seed: of places; the same for all.
    """
    shown = {"patch": patch, REAL: patch.showing(real), NOISE: patch.noise(seed)}
    return {name: [success(model, one.on(area), x, y, seed=seed) for area in AREAS] for name, one in shown.items()}


def draw_patch(
    model: Model, patch: Patch, x: Tensor, y: Tensor, real: Tensor, names: Sequence[str] | None = None, *, seed: int = 0
) -> Figure:
    """Draw a patch, some images under it and under a control, and success over size with 95 % intervals.

    Args:
        model: a classifier, in eval mode.
        patch: the patch.
        x: images that it was not trained on, ``(n, channels, height, width)``.
        y: their labels.
        real: an image of the target class.
        names: of the classes; None for their numbers.
        seed: of places.
    """
    called = str if names is None else (lambda k: str(names[k]))
    with styled(), torch.no_grad():
        figure = Figure(figsize=(10.4, 6.4), layout="constrained")
        parts: Any = figure.subfigures(1, 2, width_ratios=(1, 1.25))
        top, bottom = parts[0].subplots(2, 1, height_ratios=(1, 1.1))
        show_patch(top, patch)
        top.set_title(f"the patch: “{called(patch.target)}”", weight="bold")
        show_curves(bottom, curves(model, patch, x, y, real, seed=seed))
        bottom.set_ylabel(f"taken for “{called(patch.target)}” in %")
        _examples(parts[1], model, patch, x, y, real, called, seed)
        return figure


def _examples(
    figure: Any, model: Model, patch: Patch, x: Tensor, y: Tensor, real: Tensor, called: Any, seed: int
) -> None:
    """Show images of other classes that the model is right about: alone, under the patch, under the control."""
    rows = chosen(model, x, y, patch.target)
    if not len(rows):
        return
    one = patch.on(SHOWN_AREA)
    kinds = {"test image": x[rows]}
    controls = {"the patch": one, f"an image\nof “{called(patch.target)}”": one.showing(real), "noise": one.noise(seed)}
    for name, shown in controls.items():  # all at the same places
        kinds[f"under {name}"] = shown.lay(x[rows], torch.Generator().manual_seed(seed))
    grid = figure.subplots(len(kinds), len(rows), squeeze=False)
    for cells, (kind, images) in zip(grid, kinds.items(), strict=True):
        found = model(images).argmax(1)
        for axes, image, label, answer in zip(cells, images, y[rows].tolist(), found.tolist(), strict=True):
            show_image(axes, image, patch.box)
            color = ORANGE if answer == patch.target else BLUE if answer == label else BLACK
            axes.set_xlabel(called(answer), color=color, size=9, weight="bold" if answer == patch.target else "normal")
        cells[0].set_ylabel(kind, size=9)
    figure.suptitle(f"{100 * SHOWN_AREA:g} % of the area covered, and what the network says", size=10)


def chosen(model: Model, x: Tensor, y: Tensor, target: int) -> Tensor:
    """Return the numbers of the images to show: right ones of other classes than the target, of many classes."""
    right = ((model(x).argmax(1) == y) & (y != target)).nonzero().squeeze(1).tolist()
    first: dict[int, int] = {}
    for row in right:
        first.setdefault(int(y[row]), row)
    order = [*first.values(), *(row for row in right if row not in set(first.values()))]
    return torch.tensor(order[:SHOWN], dtype=torch.int64, device=x.device)


def show_image(axes: Any, image: Tensor, box: Any) -> None:
    """Show an image, ink on paper where it has one channel."""
    low, high = (torch.as_tensor(bound).reshape(-1, 1, 1) for bound in box)
    values = ((image.cpu() - low) / (high - low)).clamp(0, 1).permute(1, 2, 0).numpy()
    if values.shape[2] == 1:
        axes.imshow(values[:, :, 0], cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    else:
        axes.imshow(values, interpolation="nearest")
    axes.set(xticks=(), yticks=())
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set(visible=True, color=GREY, linewidth=0.8)


def show_patch(axes: Any, patch: Patch) -> None:
    """Show a patch in its shape."""
    show_image(axes, patch.picture, patch.box)
    side = patch.picture.shape[-1]
    for spine in axes.spines.values():
        spine.set_visible(False)
    if patch.shape == "round":
        edge: Any = Circle(((side - 1) / 2,) * 2, side / 2, fill=False, color=GREY, linewidth=1)
    else:
        edge = Rectangle((-0.5, -0.5), side, side, fill=False, color=GREY, linewidth=1)
    axes.add_patch(edge)
    axes.images[0].set_clip_path(edge)
    axes.set(xlim=(-0.7, side - 0.3), ylim=(side - 0.3, -0.7))


def show_curves(axes: Any, found: Mapping[str, Sequence[Success]]) -> None:
    """Plot success over the area with its 95 % intervals."""
    looks = {"patch": (ORANGE, "o-"), REAL: (BLUE, "s--"), NOISE: (GREY, "^:")}
    for name, successes in found.items():
        color, mark = looks[name]
        shares = [100 * area for area in AREAS]
        axes.plot(shares, [100 * one.rate for one in successes], mark, color=color, label=name, markersize=5)
        low, high = zip(*(one.interval for one in successes), strict=True)
        axes.fill_between(shares, [100 * v for v in low], [100 * v for v in high], color=color, alpha=0.15, linewidth=0)
    axes.set(xlabel="area of the patch in % of the image", ylim=(0, 100), xlim=(0, 26))
    axes.legend(loc="upper left", fontsize=9)
