"""Adversarial examples: test images, the change that breaks each of them, and what the network then says."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from cheaplip.attacks import PGD
from cheaplip.data import Data
from cheaplip.pairs import scale_of
from cheaplip.report.pictures import Range, Shown, change_of, opinion, picture_of, range_of
from cheaplip.report.words import number, percent

COUNT = 6
LOOKED_AT = 1000  # test images among which correctly classified ones are sought
BATCH = 100  # of them at a time
STEPS = 100
SIDE = 96  # pixels
# Without a radius that was evaluated: in units of the typical distance of two images.
SHARE = 0.15


@final
class Example(NamedTuple):
    """One image and what an attack made of it.

    Attributes:
        pictures: the image, the magnified change, the changed image.
        size_text: the 2-norm of the change, as it is written.
        broken: whether the network takes it for another class now.
    """

    pictures: tuple[Shown, Shown, Shown]
    size_text: str
    broken: bool


@final
@dataclass(frozen=True)
class Examples:
    """Some examples of one attack.

    Args:
        attack: what was used.
        found: the examples; there are none where no image was classified correctly.
        chosen_from: how many test images were looked at.
    """

    attack: PGD
    found: list[Example]
    chosen_from: int


def radius_for(data: Data, robust: list[dict[str, Any]]) -> float:
    """Return the middle one of the radii at which strong PGD was run; without any, a share of the data's scale.

    Example:
        >>> radius_for(None, [{"attack": "pgd", "norm": "2", "eps": eps} for eps in (1.0, 1.5, 2.0)])
        1.5
    """
    radii = sorted(e["eps"] for e in robust if (e["attack"], e.get("norm")) == ("pgd", "2") and e.get("eps", 0) > 0)
    if radii:
        return float(radii[len(radii) // 2])
    return float(f"{SHARE * scale_of(data.test.x):.2g}")


def examples(model: nn.Module, data: Data, eps: float, seed: int, device: torch.device) -> Examples:
    """Attack the first test images of different classes that a network gets right.

    Args:
        model: the network, in eval mode on the device.
        data: of the run, images in classes.
        eps: the radius, in units of the input.
        seed: of the random starts.
        device: where to compute.
    """
    attack = PGD(eps, 2, steps=STEPS, box=data.box, generator=torch.Generator().manual_seed(seed))
    x, y = data.test.x[:LOOKED_AT].to(device), data.test.y[:LOOKED_AT].to(device)
    with torch.no_grad():
        right = (torch.cat([model(part).argmax(1) for part in torch.split(x, BATCH)]) == y).tolist()
    first = {int(label): k for k, label in reversed(list(enumerate(y.tolist()))) if right[k]}
    chosen = sorted(first.values())[:COUNT]
    if not chosen:
        return Examples(attack, [], len(x))
    x, y = x[chosen], y[chosen]
    x_adv = attack(model, x, y)
    with torch.no_grad():
        before, after = ([opinion(logits, data.name) for logits in model(points)] for points in (x, x_adv))
    within = range_of(data, SIDE)
    found = [_example(*parts, within) for parts in zip(x, x_adv, before, after, strict=True)]
    return Examples(attack, found, min(LOOKED_AT, len(data.test)))


def _example(x: Tensor, x_adv: Tensor, before: tuple[str, float], after: tuple[str, float], within: Range) -> Example:
    uri, magnified = change_of(x_adv - x, within)
    size = math.sqrt(float((x_adv - x).double().square().sum()))
    pictures = (
        _seen("image", x, before, within),
        Shown(uri, f"the change, magnified {number(magnified)} times", "change", f"× {number(magnified)}"),
        _seen("changed image", x_adv, after, within),
    )
    return Example(pictures, f"{size:.3g}", before[0] != after[0])


def _seen(what: str, x: Tensor, says: tuple[str, float], within: Range) -> Shown:
    chance = percent(says[1], 0)
    return Shown(picture_of(x, within), f"{what}, taken for {says[0]} with {chance}", says[0], chance)
