"""An attack that is told nothing but labels: along the decision boundary, towards the image."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from cheaplip.attacks.losses import check_call
from cheaplip.attacks.nes import AT_ONCE, Directions
from cheaplip.attacks.protocol import Threat, checked_count, checked_eps, checked_norm, plain_box
from cheaplip.attacks.queries import Queries, queries_of
from cheaplip.attacks.region import Region, normal_like
from cheaplip.modes import Model
from cheaplip.norms import Box, box_tensors, per_sample, vector_norm

# How far probes go, in units of the distance so far; how much of the last estimate is kept; shares of the new direction
# that are tried; bisections; tries from noise. The first three were tuned on MNIST MLPs, the others were not tuned.
PROBE, KEPT, SHARES, HALVINGS, STARTS = 0.2, 0.99, (1.0, 0.5, 0.2), 6, 10


@final
@dataclass(frozen=True)
class NESLabels:
    """Walk on the decision boundary towards the image, by labels alone.

    It starts at the nearest other image of the batch that the model takes for another class (at noise, where there is
    none). The score of a point is the share of probes about it that are misclassified; where that rises fastest, as
    :class:`NES` finds it, is where the model errs; there, as near to the image as labels allow, is the next point.
    An image is done as soon as its point lies in the ball; of the others the way to it, cut to the ball, is returned.

    Args:
        eps: radius of the ball, in units of the input, above 0.
        norm: 1, 2 or inf.
        queries: the most points that the model is asked about, per image, at least 50.
        directions: probes of a step, at least 1; at most as many as there are pixels.
        box: ``(low, high)``, numbers or one number per channel, in which images lie and stay; None for no box.
        generator: where directions are drawn; None for torch's global generator.

    Raises:
        ValueError: for a value out of range, images outside the box, or a model whose output is NaN or no logits.
        TypeError: for labels that are not whole numbers.

    Reference: Ilyas et al. 2018, section 2.4, for the score by labels. There it leads from an image of a target class
    into a shrinking ball; here, untargeted, along rays from the image.

    Example:
        >>> model = torch.nn.Linear(4, 2)
        >>> x, y = torch.rand(5, 4), torch.zeros(5, dtype=torch.int64)
        >>> x_adv = NESLabels(eps=0.1, queries=100)(model, x, y)
        >>> bool(torch.linalg.vector_norm(x_adv - x, dim=1).max() <= 0.1001)
        True
    """

    eps: float
    norm: float | str = 2
    _: KW_ONLY
    queries: int = 5000
    directions: int = 50
    box: Box | None = (0.0, 1.0)
    generator: torch.Generator | None = None

    access: ClassVar[str] = "labels"

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "eps", checked_eps(self.eps))
        put(self, "norm", checked_norm(self.norm))
        put(self, "box", plain_box(self.box))
        checked_count(self.directions, "directions")
        if checked_count(self.queries, "queries") < 50:
            raise ValueError(f"queries must be a whole number of at least 50; got {self.queries!r}")

    @property
    def threat(self) -> Threat:
        """The ball and the box."""
        return Threat(float(self.norm), self.eps, self.box)

    @property
    def label(self) -> str:
        """What tables call it."""
        return f"NES, labels alone, {self.queries} queries, {self.threat}"

    def __call__(self, model: Model | Queries, x: Tensor, y: Tensor) -> Tensor:
        """Return the changed images, the shape of ``x``; the model is asked, never looked into."""
        queries = queries_of(model, self.access)
        y = check_call(model, x, y)
        x = x.detach()
        if not len(x):
            return x.clone()
        region = Region(x, float(self.norm), self.eps, plain_box(self.box))
        with torch.no_grad():
            labels = queries(x)
            found = x.clone()
            right = labels == y
            start, wrong = self._starts(queries, x, y, labels)
            rows = (right & wrong).nonzero().squeeze(1)
            walk = _Walk(queries, self, x[rows], y[rows], rows)
            found[rows] = walk.run(start[rows], self.queries - 1 - STARTS)
        return region.project_(found)

    def _starts(self, queries: Queries, x: Tensor, y: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return a misclassified point for each image, and for which there is one."""
        gaps = torch.cdist(x.flatten(1), x.flatten(1), p=float(self.norm))
        nearest = gaps.masked_fill_(labels[None] == y[:, None], math.inf).min(1)
        start, wrong = x[nearest.indices], nearest.values < math.inf
        for k in range(STARTS):
            rows = (~wrong).nonzero().squeeze(1)
            if not len(rows):
                break
            noise = normal_like(x[rows], self.generator) * (self.eps * 2.0**k / x[0].numel() ** (1 / float(self.norm)))
            start[rows] = self._cut(x[rows] + noise)
            wrong[rows] = queries(start[rows], rows) != y[rows]
        return start, wrong

    def _cut(self, x: Tensor) -> Tensor:
        return x if self.box is None else torch.clamp(x, *box_tensors(self.box, x))


@final
class _Walk:
    """The images that are under way, their points on the boundary, and what is known of where the model errs."""

    def __init__(self, queries: Queries, attack: NESLabels, x: Tensor, y: Tensor, images: Tensor) -> None:
        self.queries, self.attack, self.norm = queries, attack, float(attack.norm)
        self.x, self.y, self.images = x, y, images

    def run(self, point: Tensor, left: int) -> Tensor:
        """Return the nearest misclassified points found with ``left`` queries for each image."""
        total, rows = point.clone(), torch.arange(len(point), device=point.device)
        normal = torch.zeros_like(point).flatten(1)
        directions = Directions(point, self.attack.generator)
        fixed = len(SHARES) + HALVINGS + 1
        left -= HALVINGS + 1
        point = self._nearer(self._ray(point - self.x), vector_norm(point - self.x, self.norm))
        while len(rows):
            away = vector_norm(point - self.x, self.norm)
            total[rows] = point
            stay = (away > self.attack.eps * (1 + 1e-6)).nonzero().squeeze(1)
            count = min(self.attack.directions, normal.shape[1], left - fixed)
            if count < 1:
                break
            rows, point, normal, away = rows[stay], point[stay], normal[stay], away[stay]
            self.x, self.y, self.images = self.x[stay], self.y[stay], self.images[stay]
            if not len(rows):
                break
            left -= count + fixed
            u = directions.draw(count)
            hits = self._hits(point, u)
            normal = KEPT * normal + (hits - hits.mean(1, keepdim=True)) @ u
            ray, reach = self._towards(point, normal.view_as(point), away)
            point = self._nearer(ray, reach)
        return total

    def _wrong(self, at: Tensor) -> Tensor:
        return self.queries(at, self.images) != self.y

    def _hits(self, point: Tensor, u: Tensor) -> Tensor:
        """Return which probes are misclassified, 0 or 1, ``(n, directions)``."""
        found = []
        group = max(1, AT_ONCE // u.numel())
        for first in range(0, len(point), group):
            at, x, y, images = (t[first : first + group] for t in (point, self.x, self.y, self.images))
            length = PROBE * vector_norm(at - x, 2)
            probes = at.flatten(1)[:, None] + length[:, None, None] * u
            labels = self.queries(probes.reshape(-1, *at.shape[1:]), images.repeat_interleave(len(u)))
            found.append((labels.view(-1, len(u)) != y[:, None]).to(u.dtype))
        return torch.cat(found)

    def _towards(self, point: Tensor, normal: Tensor, away: Tensor) -> tuple[Tensor, Tensor]:
        """Return a ray from each image that is misclassified no further than its point, and where on it."""
        old = self._ray(point - self.x)
        steep = self._ray(normal.sign() if self.norm == math.inf else normal if self.norm == 2 else _largest(normal))
        ray, reach, open_ = old.clone(), away.clone(), torch.ones_like(away, dtype=torch.bool)
        for share in SHARES:
            mixed = share * steep + (1 - share) * old
            end = self.attack._cut(self.x + 2 * per_sample(away, mixed) * mixed)
            mixed = self._ray(end - self.x)
            far = torch.minimum(away, vector_norm(end - self.x, self.norm))
            good = self._wrong(self.x + per_sample(far, mixed) * mixed) & open_
            ray[good], reach[good] = mixed[good], far[good]
            open_ &= ~good
        return ray, reach

    def _nearer(self, ray: Tensor, high: Tensor) -> Tensor:
        """Return the misclassified point of each ray that bisection finds nearest to the image."""
        high = high.clone()
        low = torch.full_like(high, self.attack.eps).minimum(high)
        at = low
        for _ in range(HALVINGS + 1):  # the ball's own radius first: no point needs to be nearer
            wrong = self._wrong(self.x + per_sample(at, ray) * ray)
            high, low = torch.where(wrong, at, high), torch.where(wrong, low, at)
            at = (low + high) / 2
        return self.x + per_sample(high, ray) * ray

    def _ray(self, change: Tensor) -> Tensor:
        """Return changes at length 1."""
        return change / per_sample(vector_norm(change, self.norm).clamp_min(1e-30), change)


def _largest(change: Tensor) -> Tensor:
    """Return the largest numbers of each sample, less half of the largest of all: where the 1-norm is well spent."""
    size = change.flatten(1).abs()
    return change.sign() * (size - size.amax(1, keepdim=True) / 2).clamp_min(0).view_as(change)
