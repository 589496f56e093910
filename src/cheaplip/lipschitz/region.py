"""Where a search may go: all space, a box, a ball, or what both have in common."""

from __future__ import annotations

import math
from typing import TypeAlias, final

import torch
from torch import Tensor

from cheaplip.checks import number
from cheaplip.norms import Box, Norm, box_tensors, check_norm, per_sample, project_ball, vector_norm

Ball: TypeAlias = "tuple[Tensor, float]"

# Points stay inside the ball by this part of its radius and so many last places, so that rounding leaves none outside.
INSIDE, PLACES = 1e-6, 2
# The least radius, in last places of its centre: below it there is hardly a point beside the centre.
LEAST = 1000


@final
class Region:
    """A convex set of inputs that keeps points inside.

    Args:
        box: ``(low, high)``, numbers or one number per channel; None for no box.
        ball: ``(centre, radius)``, a point ``(*input)`` and a radius in the norm ``p_in``; None for no ball.
        p_in: the norm of inputs, normal form.
        like: a batch ``(n, *input)``, for shape, dtype and device.

    Raises:
        ValueError: if the ball does not fit the inputs, its radius is not above 0, or its centre lies outside the box.
        TypeError: if the centre is no floating tensor.

    Example:
        >>> region = Region(None, (torch.zeros(2), 1.0), 2.0, torch.zeros(1, 2))
        >>> region.hold(torch.tensor([[3.0, 4.0]])).norm().item() <= 1, region.name
        (True, 'ball')
    """

    def __init__(self, box: Box | None, ball: Ball | None, p_in: Norm, like: Tensor) -> None:
        self.box = None if box is None else box_tensors(box, like)
        self.p_in = check_norm(p_in, "p_in")
        self.centre: Tensor | None = None
        self.radius, self._size = math.inf, 0.0
        if ball is not None:
            self.centre, self.radius = _checked(ball, like)
            self._size = float(vector_norm(self.centre.unsqueeze(0).double(), self.p_in))
            least = LEAST * torch.finfo(like.dtype).eps * self._size
            if self.radius < least:
                raise ValueError(
                    f"the radius of the ball must be at least {least:.3g}, for which {like.dtype} has room around this "
                    f"centre; got {self.radius:g}: use float64 inputs"
                )
            if self.box is not None and not torch.equal(self.centre, self.centre.clamp(*self.box)):
                raise ValueError("the centre of the ball must lie in the box: move it there, or leave one of them out")
        parts = [name for name, part in (("box", box), ("ball", ball)) if part is not None]
        self.name = " and ".join(parts) or "all"

    def hold(self, points: Tensor) -> Tensor:
        """Return the points ``(n, *input)``, moved inside where they were not."""
        if self.box is not None:
            points = points.clamp(self.box[0].to(points.dtype), self.box[1].to(points.dtype))
        if self.centre is None:
            return points
        # Towards the centre, which the box holds too: so both hold in the end.
        return self._shrunk(points, self.centre, self.radius)

    def near(self, points: Tensor) -> Tensor:
        """Return the points moved to a near place inside, if not the nearest."""
        if self.centre is not None and not callable(self.p_in):
            centre = self.centre.to(points.dtype)
            points = centre + project_ball(points - centre, self.p_in, self.radius)
        return self.hold(points)

    def apart(self, directions: Tensor, distance: Tensor) -> Tensor:
        """Return the distances ``(n,)``, shortened where the region is too small for them.

        Args:
            directions: along which pairs lie, of unit 2-norm, ``(n, *input)``.
            distance: their 2-norm distances.
        """
        if self.centre is not None:
            room = self.radius / vector_norm(directions, self.p_in).clamp_min(torch.finfo(directions.dtype).tiny)
            distance = torch.minimum(distance, room)
        if self.box is not None:
            width = (self.box[1] - self.box[0]).to(directions.dtype)
            room = (width / directions.abs().clamp_min(torch.finfo(directions.dtype).tiny)).flatten(1).amin(1)
            distance = torch.minimum(distance, room / 2)
        return distance

    def around(self, middles: Tensor, halves: Tensor) -> Tensor:
        """Return the middles moved so that ``middle ± half`` lies inside, up to rounding."""
        if self.box is not None:
            low, high = (bound.to(middles.dtype) for bound in self.box)
            reach = halves.abs()
            middles = torch.minimum(torch.maximum(middles, low + reach), high - reach)
        if self.centre is None:
            return middles
        return self._shrunk(middles, self.centre, self.radius - vector_norm(halves, self.p_in))

    def _shrunk(self, points: Tensor, centre: Tensor, radius: float | Tensor) -> Tensor:
        centre = centre.to(points.dtype)
        away = points - centre
        size = vector_norm(away, self.p_in).clamp_min(torch.finfo(points.dtype).tiny)
        slack = INSIDE * self.radius + PLACES * torch.finfo(points.dtype).eps * (self._size + self.radius)
        factor = ((radius - slack) / size).clamp(0.0, 1.0)
        return torch.where(per_sample(factor < 1, away), centre + away * per_sample(factor, away), points)


def _checked(ball: Ball, like: Tensor) -> tuple[Tensor, float]:
    try:
        centre, radius = ball
    except (TypeError, ValueError):
        raise ValueError(f"ball must be a pair (centre, radius); got {ball!r}") from None
    if not isinstance(centre, Tensor) or not centre.is_floating_point():
        got = f"dtype {centre.dtype}" if isinstance(centre, Tensor) else type(centre).__name__
        raise TypeError(f"the centre of the ball must be a floating tensor (*input); got {got}")
    if centre.shape != like.shape[1:]:
        raise ValueError(
            f"the centre of the ball must be one input, shape {tuple(like.shape[1:])}; got {tuple(centre.shape)}"
        )
    if not bool(torch.isfinite(centre).all()):
        raise ValueError("the centre of the ball must be finite; got NaN or infinite entries")
    return centre.detach().to(like.device), number(radius, "the radius of the ball", above=0)
