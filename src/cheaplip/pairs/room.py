"""Where pairs may be: in their box, and not too close to each other."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from cheaplip.norms import Norm, per_sample, vector_norm

_TINY = torch.finfo(torch.float32).tiny


@final
class Apart(NamedTuple):
    """How far pairs are apart.

    Attributes:
        difference: ``u - v``, ``(P, *shape)``.
        distance: its norm, ``(P,)``; inf where a pair is too close for its quotient to be trusted.
        values: the distances on the host.
        close: whether there is such a pair.
        lost: the indices of pairs whose points are no finite numbers.
    """

    difference: Tensor
    distance: Tensor
    values: list[float]
    close: bool
    lost: list[int]


@final
class Room:
    """Keeps pairs in a box and apart, and remembers how far.

    Args:
        box: low and high, or None for all space.
        p_in: the norm of inputs.
        smallest: the smallest distance.
        points: of the pairs, to see whether the box has room for that distance.

    Raises:
        ValueError: if it has none.
    """

    def __init__(self, box: tuple[Tensor, Tensor] | None, p_in: Norm, smallest: float, points: Tensor) -> None:
        self.p_in, self.smallest = p_in, smallest
        self._numbers: tuple[float, float] | None = None
        self._known: tuple[Tensor, int, Apart] | None = None
        low, high = (None, None) if box is None else box
        if low is not None and high is not None:
            room = float(vector_norm((high - low).expand(1, *points.shape[1:]).contiguous(), p_in))
            if smallest > room:
                raise ValueError(
                    f"min_distance must be at most {room:g}, the diameter of the box; got {smallest:g}: "
                    "lower it, or widen the box"
                )
            if low.dim() == high.dim() == 0:
                # Numbers clamp faster than tensors do.
                self._numbers, low, high = (float(low), float(high)), None, None
        self._bounds = None if low is None or high is None else (low, high)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is remembered: a copy has points of its own."""
        return self.__dict__ | {"_known": None}

    def forget(self) -> None:
        """Forget how far the pairs are apart."""
        self._known = None

    def measure(self, points: Tensor) -> Apart:
        """Return how far pairs are apart, remembered until the points change.

        Args:
            points: first all u, then all v, ``(2P, *shape)``.
        """
        known = self._known
        if known is not None and known[0] is points and known[1] == points._version:
            return known[2]
        u, v = points.chunk(2)
        difference = u - v
        distance = vector_norm(difference, self.p_in)
        if distance.requires_grad:
            distance = distance.detach()
        values: list[float] = distance.tolist()
        lost = []
        if not math.isfinite(sum(values)):
            lost = [index for index, value in enumerate(values) if not math.isfinite(value)]
        # Rounding may leave a pair a hair closer than it was pushed, and no pair has distance zero.
        trusted = max(0.999 * self.smallest, _TINY)
        close = min(values) < trusted
        if close:
            distance.masked_fill_(distance < trusted, math.inf)
            values = [math.inf if value < trusted else value for value in values]
        apart = Apart(difference, distance, values, close, lost)
        if not torch.is_inference_mode_enabled():  # whose tensors autograd could not use later
            self._known = (points, points._version, apart)
        return apart

    def settle(self, points: Tensor) -> list[int]:
        """Clamp to the box and push pairs apart, in place; return the indices of pairs that are lost."""
        self._clamp(points)
        apart = self.measure(points)
        if apart.close:
            # Both points give way; where the box holds one of them, the other goes all the way.
            for share_u, share_v in ((0.5, 0.5), (0.0, 1.0), (1.0, 0.0)):
                self._push(points, share_u, share_v)
        return apart.lost

    def _push(self, points: Tensor, share_u: float, share_v: float) -> None:
        u, v = points.chunk(2)
        difference = u - v
        distance = vector_norm(difference, self.p_in).detach().clamp_min_(torch.finfo(points.dtype).tiny)
        missing = difference * per_sample((self.smallest / distance - 1.0).clamp_min_(0.0), difference)
        u.add_(missing, alpha=share_u)
        v.sub_(missing, alpha=share_v)
        self._clamp(points)

    def _clamp(self, points: Tensor) -> None:
        if self._numbers is not None:
            points.clamp_(*self._numbers)
        elif self._bounds is not None:
            low, high = self._bounds
            if low.device != points.device or low.dtype != points.dtype:
                self._bounds = low, high = low.to(points), high.to(points)
            points.clamp_(low, high)
