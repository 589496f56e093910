"""The points that an attack may reach: a ball about each image, cut by a box."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from cheaplip.attacks.protocol import PlainBox, device_of
from cheaplip.norms import box_tensors, per_sample, project_ball, vector_norm


def normal_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw N(0, 1) in the shape of ``x``, from the generator or else from torch's global one."""
    if generator is None:
        return torch.randn_like(x)
    device = device_of(generator, x.device)
    return torch.randn(x.shape, generator=generator, device=device, dtype=x.dtype).to(x.device)


def uniform_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw from the open interval (-1, 1) in the shape of ``x``, as :func:`normal_like` does."""
    device = device_of(generator, x.device)
    drawn = torch.rand(x.shape, generator=generator, device=device, dtype=x.dtype).to(x.device)
    margin = torch.finfo(x.dtype).eps
    return drawn.mul_(2).sub_(1).clamp_(-1 + margin, 1 - margin)


@final
class Region:
    """The intersection of p-norm balls with a box, one ball per image.

    A point is first cut to the box, then drawn back towards its image until the ball holds too: the image lies in the
    box, hence so does the way to it. In this order the whole radius is used, which the other order wastes.

    Args:
        center: the images ``(n, *shape)``.
        norm: 1, 2 or inf.
        eps: the radius of all balls, or of each, ``(n,)``.
        box: in which the images lie, or None.
    """

    def __init__(self, center: Tensor, norm: float, eps: float | Tensor, box: PlainBox | None) -> None:
        self.center, self.norm, self.eps = center, norm, eps
        self.low: float | Tensor = -math.inf
        self.high: float | Tensor = math.inf
        if box is not None:
            # Plain numbers where possible: cutting to tensors takes eight times as long on a CPU.
            numbers = all(isinstance(bound, float) for bound in box)
            self.low, self.high = box if numbers else box_tensors(box, center)  # type: ignore[assignment]
            self._check_center()
        if norm == math.inf:
            low, high = (bound.broadcast_to(center.shape) for bound in self._bounds())
            radius = self._radius(center)
            self.low, self.high = torch.maximum(center - radius, low), torch.minimum(center + radius, high)

    def _radius(self, like: Tensor) -> float | Tensor:
        """Return the radius so that it broadcasts against a batch."""
        return self.eps if isinstance(self.eps, float) else per_sample(self.eps, like)

    def _bounds(self) -> tuple[Tensor, Tensor]:
        low, high = (torch.as_tensor(b, dtype=self.center.dtype, device=self.center.device)
                     for b in (self.low, self.high))  # fmt: skip
        return low, high

    def _check_center(self) -> None:
        low, high = self._bounds()
        if not self.center.numel():
            return
        if low.dim() or high.dim():
            below, above = (low - self.center).amax(), (self.center - high).amax()
        else:
            least, most = self.center.aminmax()
            below, above = low - least, most - high
        if not max(float(below), float(above)) <= 1e-5 * float((high - low).max()):
            least, most = self.center.aminmax()
            raise ValueError(
                f"images must lie in the box [{_text(low)}, {_text(high)}]; got values from {float(least):g} to "
                f"{float(most):g}: give the attack the box of your data, or box=None"
            )

    def start(self, generator: torch.Generator | None) -> Tensor:
        """Draw a point of each ball, uniformly, and cut it to the box."""
        size = self.center[0].numel()
        if self.norm == math.inf:
            offset = uniform_like(self.center, generator).mul_(self._radius(self.center))
        else:
            if self.norm == 2:
                offset = normal_like(self.center, generator)
            else:  # Laplace, whose direction is uniform on the 1-norm sphere
                offset = uniform_like(self.center, generator)
                offset = offset.sign() * -torch.log1p(-offset.abs())
            share = uniform_like(offset.new_empty(len(offset)), generator).abs_().pow_(1 / size)
            length = vector_norm(offset, self.norm).clamp_min_(torch.finfo(offset.dtype).tiny)
            offset.mul_(per_sample(share.mul_(self.eps).div_(length), offset))
        return self.project_(offset.add_(self.center))

    def project_(self, x: Tensor) -> Tensor:
        """Bring points back to the region, in place."""
        self.cut_(x)
        if self.norm == math.inf:
            return x
        x.sub_(self.center)
        if self.norm == 1:
            radius = self._radius(x)
            return torch.add(self.center, project_ball(x.div_(radius), 1, 1.0).mul_(radius), out=x)
        share = (self.eps / vector_norm(x, 2)).clamp_max_(1.0)
        return torch.addcmul(self.center, x, per_sample(share, x), out=x)

    def cut_(self, x: Tensor) -> Tensor:
        """Cut points to the box (and, in the maximum norm, to the ball), in place."""
        if isinstance(self.low, float) and isinstance(self.high, float):
            return x if self.low == -math.inf else x.clamp_(self.low, self.high)
        return torch.clamp(x, *self._bounds(), out=x)

    def keep(self, rows: Tensor) -> Region:
        """Return the region of some of the images."""
        part = object.__new__(Region)
        part.__dict__.update(self.__dict__, center=self.center.index_select(0, rows))
        if not isinstance(self.eps, float):
            part.eps = self.eps.index_select(0, rows)
        if self.norm == math.inf:
            part.low, part.high = (bound.index_select(0, rows) for bound in self._bounds())
        return part


def _text(bound: Tensor) -> str:
    values = [f"{float(value):g}" for value in bound.flatten()]
    return values[0] if len(values) == 1 else f"({', '.join(values)})"
