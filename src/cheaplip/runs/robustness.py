"""Pictures of an evaluation: accuracy over the radius, by attack and by proof; and images that attacks changed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from cheaplip.attacks import Attack
from cheaplip.data import Data, class_names
from cheaplip.drawing import BLACK, CYCLE, GREEN, GREY, ORANGE, save, styled
from cheaplip.evaluation import Result
from cheaplip.runs.samples import Samples

Entry: TypeAlias = "Mapping[str, Any]"
CURVES, ATTACKED = "robustness.png", "attacked.png"
NORMS = {"1": "₁", "2": "₂", "inf": "∞"}
# So many images are shown, one of each class first, under so many attacks.
IMAGES, ATTACKS = 8, 7
# Height of a row of images: the image, and the words below it; two lines of them where classes have long names.
HEIGHT, TALL = 1.3, 1.48
LONG = 4  # characters
# An attack that would take longer to show, in seconds, is left out.
PATIENCE = 20.0


def draw_curves(folder: Path, result: Mapping[str, Any], samples: Mapping[str, Samples]) -> Path | None:
    """Draw accuracy over the radius for each norm of the attacks of a run; nothing without attacks that have one.

    Args:
        folder: of the run, where ``robustness.png`` goes.
        result: what ``result.json`` holds.
        samples: what ``robust.npz`` holds.
    """
    from matplotlib.figure import Figure

    entries = [entry for entry in result.get("robust", []) if "eps" in entry]
    norms = [norm for norm in NORMS if any(entry.get("norm") == norm for entry in entries)]
    if not norms:
        return None
    with styled():
        figure = Figure(figsize=(7.2 * len(norms), 4.2), layout="constrained")
        for axes, norm in zip(np.atleast_1d(figure.subplots(1, len(norms))), norms, strict=True):
            _curves(axes, norm, [entry for entry in entries if entry.get("norm") == norm], result, samples)
        return save(figure, folder / CURVES, make=False)


def _curves(axes: Any, norm: str, entries: Sequence[Entry], result: Entry, samples: Mapping[str, Samples]) -> None:
    far = 1.15 * max(entry["eps"] for entry in entries)
    colors = itertools.cycle(color for color in CYCLE if color not in (GREEN, GREY))
    for name in dict.fromkeys(entry["attack"] for entry in entries):
        mine = sorted((entry for entry in entries if entry["attack"] == name), key=_radius)
        proven, weak = bool(mine[0].get("proven")), bool(mine[0].get("weak"))
        color = GREEN if proven else GREY if weak else next(colors)
        label = f"{name}, proven" if proven else f"{name} (weak)" if weak else name
        kept = samples.get(name)
        if kept is not None and kept.distance is not None:
            radii, shares = steps(kept.distance, far)
            axes.step(radii, shares, where="post", color=color, label=label)
            if proven:
                axes.fill_between(radii, shares, step="post", color=color, alpha=0.15, linewidth=0)
            continue
        x, y = [entry["eps"] for entry in mine], [entry["accuracy"] for entry in mine]
        bars = [[max(0.0, e["accuracy"] - e["interval"][0]) for e in mine],
                [max(0.0, e["interval"][1] - e["accuracy"]) for e in mine]]  # fmt: skip
        line = "--" if weak else "-"
        axes.errorbar(x, y, bars, color=color, marker="o", markersize=4, capsize=2, linestyle=line, label=label)
    images = {entry["images"] for entry in entries}
    clean = _clean(images, result, samples)
    if clean is not None:
        axes.plot([0], [clean], "o", color=BLACK, markersize=5, clip_on=False, zorder=5, label="clean")
    whose = f"the first {images.pop()} test images" if len(images) == 1 else "test images"
    axes.set(xlim=(0, far), ylim=(0, 1.0), xlabel=f"radius ε, ‖δ‖{NORMS[norm]} ≤ ε", ylabel=f"accuracy on {whose}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _clean(images: set[int], result: Entry, samples: Mapping[str, Samples]) -> float | None:
    """Return the clean accuracy on the images that were attacked, or else on all."""
    kept = samples.get("clean")
    if kept is not None and len(images) == 1:
        return float(kept.robust[: min(images)].double().mean())
    clean = result.get("accuracy", {}).get("clean")
    return None if clean is None else float(clean)


def _radius(entry: Mapping[str, Any]) -> float:
    return float(entry["eps"])


def steps(distance: Tensor, far: float) -> tuple[list[float], list[float]]:
    """Return the share of images that is left at each radius, as the steps of a curve, up to a radius.

    Args:
        distance: of each image, ``(n,)``; 0 where it was never right.
        far: where the curve ends.

    Example:
        >>> steps(torch.tensor([0.0, 1.0, 2.0, 9.0]), 5.0)
        ([0.0, 1.0, 2.0, 5.0], [0.75, 0.5, 0.25, 0.25])
    """
    ordered = distance.double().sort().values
    radii = [0.0, *sorted({float(d) for d in ordered.tolist() if 0 < d <= far})]
    shares = [float((ordered > radius).double().mean()) for radius in radii]
    return [*radii, far], [*shares, shares[-1]]


def draw_attacked(
    folder: Path, model: nn.Module, data: Data, attacks: Mapping[str, Attack], found: Mapping[str, Result], seed: int
) -> Path | None:
    """Draw test images that the network gets right, and what attacks make of them; nothing for data that is no images.

    Args:
        folder: of the run, where ``attacked.png`` goes.
        model: the network.
        data: of the run.
        attacks: by name; of one with several radii the last counts.
        found: their results; attacks that take long are left out.
        seed: of the attacks.
    """
    from matplotlib.figure import Figure

    slow = {result.name for result in found.values() if IMAGES * result.seconds / result.images > PATIENCE}
    chosen = {name.partition("@")[0]: attack for name, attack in attacks.items()}
    chosen = {name: attack for name, attack in chosen.items() if name not in slow}
    if len(data.shape) != 3 or data.shape[0] not in (1, 3) or not chosen:
        return None
    x, y = _of_all_classes(model, data)
    if not len(x):
        return None
    rows: dict[str, Tensor] = {"clean": x}
    for name, attack in list(chosen.items())[:ATTACKS]:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            rows[name] = attack(model, x.clone(), y.clone()).detach()
    with styled():
        # One pair of axes for all: 64 of them would take seconds.
        height = _height(data)
        figure = Figure(figsize=(0.95 * len(x) + 1.6, 0.885 * height * len(rows) + 0.3), layout="constrained")
        axes = figure.subplots()
        for number, (name, points) in enumerate(rows.items()):
            _row(axes, -height * number, name, points, x, model, data)
        axes.set(xlim=(-1.5, len(x)), ylim=(1 - height * len(rows), 1.05), aspect="equal")
        axes.axis("off")
        figure.suptitle("Below each image: the class that the network says, and ‖δ‖₂ of the change", fontsize=9)
        return save(figure, folder / ATTACKED, make=False)


def _of_all_classes(model: nn.Module, data: Data) -> tuple[Tensor, Tensor]:
    """Return correctly classified images of different classes, on the model's device."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    x, y = data.test.x[:500].to(device), data.test.y[:500].to(device)
    with torch.no_grad():
        right = model(x).argmax(1) == y
    chosen = [int(found[0]) for label in torch.unique(y) if len(found := (right & (y == label)).nonzero().flatten())]
    return x[chosen[:IMAGES]], y[chosen[:IMAGES]]


def _height(data: Data) -> float:
    return TALL if any(len(name) > LONG for name in class_names(data.name, data.classes or 0)) else HEIGHT


def _row(axes: Any, bottom: float, name: str, points: Tensor, x: Tensor, model: nn.Module, data: Data) -> None:
    low, high = (0.0, 1.0) if data.box is None else (float(np.min(data.box[0])), float(np.max(data.box[1])))
    with torch.no_grad():
        outputs = model(points)
        before, after = model(x).argmax(1).tolist(), outputs.argmax(1).tolist()
    names = class_names(data.name, outputs.shape[1])
    axes.text(-0.15, bottom + 0.5, name, fontsize=8, ha="right", va="center")
    between = ", " if _height(data) == HEIGHT else "\n"
    for k, point in enumerate(points):
        shown = ((point.cpu().double() - low) / (high - low)).clamp(0, 1).permute(1, 2, 0).numpy()
        place = (k + 0.02, k + 0.98, bottom, bottom + 0.96)
        axes.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest", extent=place)
        fooled = before[k] != after[k]
        size = float((point - x[k]).norm())
        says = names[after[k]] if name == "clean" else f"{names[after[k]]}{between}{size:.1f}"
        axes.text(k + 0.5, bottom - 0.03, says, fontsize=8, ha="center", va="top", color=ORANGE if fooled else BLACK)
