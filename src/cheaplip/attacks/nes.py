"""Gradient ascent without gradients: differences of scores along random directions, within a budget of queries."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from cheaplip.attacks.losses import check_call, check_classes, margin, others
from cheaplip.attacks.protocol import Threat, checked_count, checked_eps, checked_norm, plain_box
from cheaplip.attacks.queries import Queries, queries_of
from cheaplip.attacks.region import Region, normal_like
from cheaplip.attacks.search import Found, cosine, steepest
from cheaplip.checks import several
from cheaplip.modes import Model
from cheaplip.norms import Box

LOSSES = ("margin", "cross-entropy")
# The first step in units of eps, and how far probes go. For MNIST MLPs steps from 1 to 4 and probes from 0.001 to 0.5
# in units of the input are within 2 points of each other.
FIRST_STEP, PROBE = 2.0, 0.1
# From how many queries a pixel on a second loss finds more than it takes from the first.
RICH = 5
# Numbers in one call of the model: 64 MB in float32.
AT_ONCE = 2**24


@final
@dataclass(frozen=True)
class NES:
    """Steps along an estimated gradient, from scores alone: natural evolution strategies with a memory.

    Each step asks about probes in random orthonormal directions. The estimate of the step before is corrected by what
    the probes show, instead of thrown away, as the gradient changes little between steps: after as many probes as there
    are pixels it is about the whole gradient. An image that is misclassified is done and costs no more queries; of the
    others the point of highest margin is returned.
    ``NES(eps, antithetic=True, memory=False, loss="cross-entropy")`` is as the paper has it.

    Args:
        eps: radius of the ball, in units of the input, above 0.
        norm: 1, 2 or inf.
        queries: the most points that the model is asked about, per image, at least 4, or 7 with two
            losses; the image itself is one.
        directions: probes of a step, at least 1; at most as many as there are pixels, and as the budget allows.
        loss: ``"margin"``, ``"cross-entropy"`` or both: each starts from the image with its share of the queries.
            None for both where there are five queries or more for each pixel, else the margin.
        antithetic: probe on both sides, which doubles the queries and takes the curvature out of the estimate.
        memory: correct the estimate; False takes a new one at every step.
        probe: how far the probes are from the point, 2-norm, in units of the input; None for a tenth of ``eps``,
            times √pixels in the maximum norm, over √pixels in the 1-norm. Raise it for a model that rounds.
        box: ``(low, high)``, numbers or one number per channel, in which images lie and stay; None for no box.
        generator: where directions are drawn; None for torch's global generator.

    Raises:
        ValueError: for a value out of range, images outside the box, or a model whose output is NaN or no logits.
        TypeError: for labels that are not whole numbers.

    Reference: Ilyas et al. 2018, "Black-box Adversarial Attacks with Limited Queries and Information", Algorithm 1.

    Example:
        >>> model = torch.nn.Linear(4, 2)
        >>> x, y = torch.rand(5, 4), torch.zeros(5, dtype=torch.int64)
        >>> x_adv = NES(eps=0.1, queries=100)(model, x, y)
        >>> bool(torch.linalg.vector_norm(x_adv - x, dim=1).max() <= 0.1001)
        True
    """

    eps: float
    norm: float | str = 2
    _: KW_ONLY
    queries: int = 5000
    directions: int = 50
    loss: str | tuple[str, ...] | None = None
    antithetic: bool = False
    memory: bool = True
    probe: float | None = None
    box: Box | None = (0.0, 1.0)
    generator: torch.Generator | None = None

    access: ClassVar[str] = "scores"

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "eps", checked_eps(self.eps))
        put(self, "norm", checked_norm(self.norm))
        put(self, "box", plain_box(self.box))
        put(self, "probe", None if self.probe is None else checked_eps(self.probe, "probe"))
        checked_count(self.directions, "directions")
        if self.loss is not None:
            names = [self.loss] if isinstance(self.loss, str) else several(self.loss, "loss", "names")
            put(self, "loss", tuple(names))
            if self.loss not in (LOSSES, LOSSES[::-1], LOSSES[:1], LOSSES[1:]):
                raise ValueError(f'loss must be "margin", "cross-entropy", both or None; got {self.loss!r}')
        least = 1 + 3 * len(self.loss or LOSSES[:1])
        if checked_count(self.queries, "queries") < least:
            raise ValueError(
                f"queries must be at least {least}: the image, and three for each loss; got {self.queries}"
            )

    @property
    def threat(self) -> Threat:
        """The ball and the box."""
        return Threat(float(self.norm), self.eps, self.box)

    @property
    def label(self) -> str:
        """What tables call it."""
        return f"NES, scores alone, {self.queries} queries, {self.threat}"

    def __call__(self, model: Model | Queries, x: Tensor, y: Tensor) -> Tensor:
        """Return the changed images, the shape of ``x``; the model is asked, never looked into."""
        queries = queries_of(model, self.access)
        y = check_call(model, x, y)
        x = x.detach()
        if not len(x):
            return x.clone()
        region = Region(x, float(self.norm), self.eps, plain_box(self.box))
        z = queries(x)
        check_classes(z, y)
        found = Found.at(x, z, y, regression=False)
        with torch.no_grad():
            losses = self.loss or (LOSSES if self.queries >= RICH * x[0].numel() else LOSSES[:1])
            budget = (self.queries - 1) // len(losses)
            for loss in losses:
                rows = (~found.broken()).nonzero().squeeze(1)
                part = found.keep(rows)
                self._climb(queries, region.keep(rows), y[rows], z[rows], budget, rows, part, loss)
                found.put(rows, part)
        return region.cut_(found.point)

    def _climb(
        self,
        queries: Queries,
        region: Region,
        y: Tensor,
        z: Tensor,
        budget: int,
        images: Tensor,
        found: Found,
        loss: str,
    ) -> None:
        """Ascend from all images at once and note the best points; broken images leave on the way."""
        total, rows, point = found, torch.arange(len(y), device=y.device), region.center.clone()
        gradient = torch.zeros_like(point)
        count, steps = self._plan(budget, point.shape[1:].numel())
        directions = Directions(point, self.generator)
        for size in cosine(FIRST_STEP * self.eps, steps):
            broken = found.broken()
            if bool(broken.any()):
                gone, stay = broken.nonzero().squeeze(1), (~broken).nonzero().squeeze(1)
                total.put(rows[gone], found.keep(gone))
                region, found, rows = region.keep(stay), found.keep(stay), rows[stay]
                point, gradient, y, z = (t.index_select(0, stay) for t in (point, gradient, y, z))
            if not len(rows):
                return
            old = gradient if self.memory else torch.zeros_like(gradient)
            ask = Ask(queries, images[rows], y, loss)
            gradient = self._estimate(ask, directions.draw(count), old, point, value_of(z, y, loss))
            point = region.project_(steepest(point, gradient, region.norm, size))
            z = queries(point, images[rows])
            found.improve(point, margin(z, y))
        total.put(rows, found)

    def _estimate(self, ask: Ask, u: Tensor, old: Tensor, point: Tensor, value: Tensor) -> Tensor:
        """Return the estimated gradient at each point: the old one, corrected along the directions ``u``."""
        reach = self._reach(point.shape[1:].numel())
        ahead = ask.along(point, u, reach)
        if self.antithetic:
            slopes = (ahead - ask.along(point, u, -reach)) / (2 * reach)
        else:
            slopes = (ahead - value[:, None]) / reach
        flat = old.flatten(1)
        return torch.addmm(flat, slopes - flat @ u.T, u).view_as(point)

    def _plan(self, budget: int, pixels: int) -> tuple[int, int]:
        """Return probes of a step on one side, and steps, that leave little of the budget over."""
        sides = 2 if self.antithetic else 1
        count = min(self.directions, pixels, (budget - 1) // sides)
        steps = -(-budget // (sides * count + 1))
        fewer = (budget // steps - 1) // sides
        return (fewer, steps) if fewer else (count, steps - 1)

    def _reach(self, pixels: int) -> float:
        return PROBE * self.eps * pixels ** (0.5 - 1 / float(self.norm)) if self.probe is None else self.probe


@final
@dataclass(frozen=True)
class Ask:
    """What is asked of each image of a batch."""

    queries: Queries
    images: Tensor  # (n,): their numbers, under which queries are counted
    y: Tensor
    loss: str

    def along(self, point: Tensor, u: Tensor, length: float) -> Tensor:
        """Return the losses at ``length`` along each direction from each point, ``(n, directions)``."""
        found = []
        # As many images as fit into one call of the model, with all their probes.
        group = max(1, AT_ONCE // u.numel())
        for first in range(0, len(point), group):
            at, y, images = (t[first : first + group] for t in (point, self.y, self.images))
            probes = torch.add(at.flatten(1)[:, None], u, alpha=length).reshape(-1, *point.shape[1:])
            z = self.queries(probes, images.repeat_interleave(len(u)))
            found.append(value_of(z, y.repeat_interleave(len(u)), self.loss).view(-1, len(u)))
        return torch.cat(found)


@final
class Directions:
    """Random directions, the same for all images: Gaussian vectors, orthonormalised.

    New ones are orthogonal to the earlier ones too, until they span all there is or memory ends: then a new round
    begins. So no part of a gradient is asked for twice before all of it was asked for.

    Example:
        >>> directions = Directions(torch.zeros(5, 1, 3, 3), torch.Generator().manual_seed(0))
        >>> u = torch.cat([directions.draw(4), directions.draw(4)])
        >>> torch.allclose(u @ u.T, torch.eye(8), atol=1e-5)
        True
    """

    def __init__(self, x: Tensor, generator: torch.Generator | None) -> None:
        self.generator = generator
        self.seen = x.new_empty(0, x.shape[1:].numel())

    def draw(self, count: int) -> Tensor:
        """Return ``count`` directions, ``(count, pixels)``."""
        pixels = self.seen.shape[1]
        if len(self.seen) + count > min(pixels, AT_ONCE // pixels):
            self.seen = self.seen[:0]
        u = normal_like(self.seen.new_empty(count, pixels), self.generator)
        for _ in range(2):  # once is not enough where little is left
            u = torch.linalg.qr((u - (u @ self.seen.T) @ self.seen).T).Q.T
        self.seen = torch.cat([self.seen, u])
        return u


def value_of(z: Tensor, y: Tensor, loss: str) -> Tensor:
    """Return the loss of each sample; cross-entropy as the log-odds, a rising function of it that never saturates."""
    if loss == "margin":
        return margin(z, y)
    return others(z, y).logsumexp(1) - z.gather(1, y[:, None]).squeeze(1)
