"""The smallest adversarial change that PGD finds, image by image."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from cheaplip.attacks.losses import check_call, others
from cheaplip.attacks.protocol import Threat, checked_count, checked_norm, plain_box
from cheaplip.attacks.region import Region
from cheaplip.attacks.search import Found, climb, cosine, gradient_of, output_of
from cheaplip.modes import Model
from cheaplip.norms import Box, box_tensors, dual, per_sample, vector_norm

# The first radius is so much of the largest, and radii are told apart to this part of them.
FIRST, PRECISE = 0.05, 0.002
# Without a box no radius is larger than so many times the norm of the largest image.
FAR = 10.0
# The first step in units of the radius.
STEP = 2.0
# So many wrong classes are looked at.
CLASSES = 9
# How often the way from an adversarial point back to its image is halved.
HALVINGS = 6


@final
@dataclass(frozen=True)
class Bisection:
    """The smallest change that breaks an image, by projected gradient descent in balls that shrink or grow.

    The radius of each image's ball is doubled until PGD breaks it, and bisected from there. PGD climbs the margin, and
    towards the class that would be nearest if the model were linear. What breaks the image is drawn back to it as far
    as it stays adversarial, and is where the next search starts.

    Args:
        norm: 1, 2 or inf.
        rounds: how many radii are tried for an image, at most.
        steps: gradient steps for each.
        box: ``(low, high)``, numbers or one number per channel, in which images lie and stay; None for no box.
        generator: where random starts are drawn; None for torch's global generator.

    Raises:
        ValueError: for a value out of range, images outside the box, or a model whose output is NaN or no logits.
        TypeError: for labels that are no whole numbers.

    Reference: Carlini and Wagner 2017 (a binary search for the smallest change); Madry et al. 2018 (PGD).

    Example:
        >>> model = torch.nn.Linear(2, 2)
        >>> model.weight.data, model.bias.data = torch.eye(2), torch.zeros(2)
        >>> x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
        >>> x_adv = Bisection(box=None)(model, x, y)
        >>> round(float((x_adv - x).norm()), 2)  # the nearest point of the other class is half way to (0, 1)
        0.71
    """

    norm: float | str = 2
    _: KW_ONLY
    rounds: int = 12
    steps: int = 30
    box: Box | None = (0.0, 1.0)
    generator: torch.Generator | None = None

    minimal: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm", checked_norm(self.norm))
        checked_count(self.rounds, "rounds")
        checked_count(self.steps, "steps")
        object.__setattr__(self, "box", plain_box(self.box))

    @property
    def threat(self) -> Threat:
        """The norm that is made small, and the box."""
        return Threat(float(self.norm), None, self.box)

    @property
    def label(self) -> str:
        """What tables call it."""
        sign = {1.0: "₁", 2.0: "₂", math.inf: "∞"}[float(self.norm)]
        return f"smallest ‖δ‖{sign}, bisection of PGD, {self.rounds} radii, {self.steps} steps each"

    def __call__(self, model: Model, x: Tensor, y: Tensor) -> Tensor:
        """Return the closest adversarial images found, the shape of ``x``; where there is none, the image itself."""
        y = check_call(model, x, y)
        x = x.detach()
        best = x.clone()
        if not len(x):
            return best
        z = output_of(model, x, y, regression=False)
        rows = (z.argmax(1) == y).nonzero().squeeze(1)
        if not len(rows):
            return best
        target = nearest_class(model, x, y, z, float(self.norm))
        largest = self._largest(x)
        low, high = x.new_zeros(len(x)), x.new_full((len(x),), math.inf)
        for _ in range(self.rounds):
            rows = rows[(low < (1 - PRECISE) * high)[rows] & (low < largest)[rows]]
            if not len(rows):
                break
            least, most = low[rows], high[rows]
            eps = torch.where(most < math.inf, (least + most) / 2, (2 * least).clamp(FIRST * largest, largest))
            found = self._attack(model, x[rows], y[rows], eps, best[rows], target[rows])
            broken = found.broken()
            low[rows[~broken]] = eps[~broken]
            mine = rows[broken]
            point, distance = self._drawn_back(model, x[mine], y[mine], found.point[broken])
            closer = distance < high[mine]
            best[mine[closer]], high[mine[closer]] = point[closer], distance[closer]
        return best

    def _largest(self, x: Tensor) -> float:
        """Return the radius of a ball that holds all that can be reached."""
        norm = float(self.norm)
        if self.box is None:
            return FAR * max(float(vector_norm(x, norm).max()), torch.finfo(x.dtype).tiny)
        low, high = box_tensors(self.box, x)
        return float(vector_norm((high - low).expand(1, *x.shape[1:]), norm))

    def _attack(self, model: Model, x: Tensor, y: Tensor, eps: Tensor, best: Tensor, target: Tensor) -> Found:
        """Run PGD in balls of these radii, from the best points where there are any."""
        region = Region(x, float(self.norm), eps, plain_box(self.box))
        known = (best != x).flatten(1).any(1)
        start = torch.where(per_sample(known, x), region.project_(best), region.start(self.generator))
        with torch.enable_grad():
            found = Found.at(x, output_of(model, x, y, regression=False), y, regression=False)
            for loss in ("margin", "targeted"):
                rows = (~found.broken()).nonzero().squeeze(1)
                if len(rows):
                    part, there = found.keep(rows), region.keep(rows)
                    climb(model, there, y[rows], loss, target[rows], cosine(STEP, self.steps), start[rows], part)
                    found.put(rows, part)
        found.point = region.cut_(found.point).detach()
        return found

    def _drawn_back(self, model: Model, x: Tensor, y: Tensor, point: Tensor) -> tuple[Tensor, Tensor]:
        """Draw adversarial points towards their images, as far as they stay adversarial; return them and distances."""
        if len(x):
            least, most = x.new_zeros(len(x)), x.new_ones(len(x))
            for _ in range(HALVINGS):
                share = (least + most) / 2
                there = torch.lerp(x, point, per_sample(share, x).expand_as(x))
                wrong = output_of(model, there, y, regression=False).argmax(1) != y
                least, most = torch.where(wrong, least, share), torch.where(wrong, share, most)
            point = torch.lerp(x, point, per_sample(most, x).expand_as(x))
        return point, vector_norm(point - x, float(self.norm))


def nearest_class(model: Model, x: Tensor, y: Tensor, z: Tensor, norm: float) -> Tensor:
    """Return the wrong class that is nearest if the model is taken to be linear, ``(n,)``.

    Of many classes those with the largest outputs are looked at.

    Args:
        model: a classifier.
        x: images.
        y: their labels.
        z: its output there.
        norm: of the distance.

    Reference: Moosavi-Dezfooli et al. 2016, "DeepFool".
    """
    likely = others(z, y).topk(min(CLASSES, z.shape[1] - 1), dim=1).indices
    distances = []
    for column in likely.T:
        _, gradient = gradient_of(model, x, y, "targeted", column)
        gap = (z.gather(1, y[:, None]) - z.gather(1, column[:, None])).squeeze(1)
        distances.append(gap / vector_norm(gradient, dual(norm)).clamp_min(torch.finfo(x.dtype).tiny))
    return likely.gather(1, torch.stack(distances, 1).argmin(1, keepdim=True)).squeeze(1)
