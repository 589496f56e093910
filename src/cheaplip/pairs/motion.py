"""The pairs and their motion: gradient ascent of the difference quotient (Algorithm 1)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cheaplip.modes import Model
from cheaplip.norms import Box, Norm, box_tensors, check_norm, per_sample, vector_norm
from cheaplip.pairs.search import SEARCHES, Search, adapt, move
from cheaplip.pairs.starts import Start, check_points, scale_of
from cheaplip.pairs.steepness import apply, quotient, quotient_and_gradient


@dataclass(frozen=True)
class Measurement:
    """What one forward over the pairs told.

    Attributes:
        quotient: (P,), the difference quotients ‖f(u) - f(v)‖ / ‖u - v‖.
        distance: (P,), the distances ‖u - v‖ at which they were taken; inf where a pair is too close to be trusted,
            so that its quotient counts as 0.
        values: the quotients on the host; -inf where a quotient is no finite number.
    """

    quotient: Tensor
    distance: Tensor
    values: list[float]

    @property
    def steepest(self) -> int:
        """The index of the largest quotient, the first one on a tie."""
        return self.values.index(max(self.values))

    @property
    def usable(self) -> list[int]:
        """The indices of the pairs whose quotient is a finite number."""
        return [index for index, value in enumerate(self.values) if value > -math.inf]


class Pairs(nn.Module):
    """P pairs of inputs that gradient ascent keeps pushing to where a function is steepest.

    Args:
        u, v: the first and the second points of the pairs, ``(P, *shape)`` each, floating, finite.
        start: where renewed pairs start again; None for their own start, with a little noise.
        p_in: the norm of inputs: 1, 2, inf or a callable ``(n, *shape) -> (n,)``.
        p_out: the norm of outputs, likewise.
        search: ``"paper"``, a step τ·L·∇L; ``"ascent"``, a step of length τ along ∇L; or a callable
            ``(u, v, gradient_u, gradient_v, quotient, step) -> (u, v)``.
        renew: the lifetime of a pair in moves; None renews only pairs that went wrong.
        box: ``(low, high)``, numbers or one number per channel, in which all points stay; None for all space.
        min_distance: the smallest distance of a pair, in input units; by default 0.01 of the data's scale.
        step: the first τ; by default 0.05 of the data's scale for ``"ascent"``, and 1 for ``"paper"``.

    Raises:
        ValueError: for an argument out of range, or points that do not fit each other.
        TypeError: for points that are no floating tensors.

    Reference: Bungert et al. 2021, Algorithm 1.

    Example:
        >>> pairs = Pairs(torch.rand(4, 2), torch.rand(4, 2))
        >>> measured = pairs.advance(lambda x: 3 * x)
        >>> [round(value, 3) for value in measured.values]
        [3.0, 3.0, 3.0, 3.0]
    """

    points: Tensor
    step: Tensor
    previous: Tensor
    _low: Tensor | None
    _high: Tensor | None

    def __init__(
        self,
        u: Tensor,
        v: Tensor,
        *,
        start: Start | None = None,
        p_in: Norm = 2,
        p_out: Norm = 2,
        search: Search = "ascent",
        renew: int | None = None,
        box: Box | None = None,
        min_distance: float | None = None,
        step: float | None = None,
    ) -> None:
        super().__init__()
        self.p_in, self.p_out = check_norm(p_in, "p_in"), check_norm(p_out, "p_out")
        if not callable(search) and search not in SEARCHES:
            raise ValueError(f"search must be {' or '.join(SEARCHES)}, or a callable; got {search!r}")
        if renew is not None and (not isinstance(renew, int) or renew < 1):
            raise ValueError(f"renew must be a lifetime of at least 1 move, or None; got {renew!r}")
        check_points(u, "u")
        check_points(v, "v")
        if u.shape != v.shape or u.dtype != v.dtype:
            raise ValueError(
                "u and v must have the same shape (pairs, *input) and dtype; "
                f"got {tuple(u.shape)} {u.dtype} and {tuple(v.shape)} {v.dtype}"
            )
        points = torch.cat([u, v]).detach()
        scale = scale_of(points)
        self.search, self.renew = search, renew
        self.start = Start(u, v) if start is None else start
        self.min_distance = 0.01 * scale if min_distance is None else float(min_distance)
        if not 0 <= self.min_distance < math.inf:
            raise ValueError(f"min_distance must be a finite number of at least 0; got {min_distance!r}")
        self.first_step = float(step) if step is not None else 1.0 if search == "paper" else 0.05 * scale
        if not 0 < self.first_step < math.inf:
            raise ValueError(f"step must be a finite number above 0; got {step!r}")
        self._set_box(box, points)
        self.moves = 0
        self.register_buffer("points", points)
        self.register_buffer("step", points.new_full((len(u),), self.first_step))
        self.register_buffer("previous", points.new_zeros(len(u)))
        self._known: tuple[Tensor, int, Tensor, Tensor] | None = None
        self._keep_apart()

    def _set_box(self, box: Box | None, like: Tensor) -> None:
        low, high = (None, None) if box is None else box_tensors(box, like)
        self._numbers: tuple[float, float] | None = None
        if low is not None and high is not None and low.dim() == high.dim() == 0:
            # Numbers clamp faster than tensors do.
            self._numbers, low, high = (float(low), float(high)), None, None
        self.register_buffer("_low", low, persistent=False)
        self.register_buffer("_high", high, persistent=False)

    def __len__(self) -> int:
        """Return P."""
        return len(self.step)

    @property
    def u(self) -> Tensor:
        """The first points, ``(P, *shape)``."""
        return self.points[: len(self)]

    @property
    def v(self) -> Tensor:
        """The second points, ``(P, *shape)``."""
        return self.points[len(self) :]

    def distances(self) -> Tensor:
        """Return ‖u - v‖, shape ``(P,)``; inf where a pair is too close for its quotient to be trusted."""
        return self._differences()[1]

    def measure(self, function: Model) -> Measurement:
        """Measure the quotients and move nothing.

        Raises:
            ValueError: if the outputs at all pairs are NaN or infinite.
        """
        _, distance = self._differences()
        with torch.no_grad():
            return self._measurement(quotient(apply(function, self.points), distance, self.p_out), distance)

    def advance(self, function: Model, before: Callable[[Measurement], None] | None = None) -> Measurement:
        """Measure the quotients, then move every pair one step uphill and renew those whose time has come.

        Args:
            function: any function of a batch; its outputs must not depend on which points share the batch.
            before: called with the measurement while the pairs are still where it was taken.

        Returns:
            The measurement before the move.

        Raises:
            ValueError: if the outputs at all pairs are NaN or infinite.
        """
        difference, distance = self._differences()
        value, gradient = quotient_and_gradient(function, self.points, difference, distance, self.p_in, self.p_out)
        measured = self._measurement(value, distance)
        if before is not None:
            before(measured)
        with torch.no_grad():
            adapt(self.step, value, self.previous, self.first_step)
            self.previous.copy_(value)
            move(self.search, self.points, gradient, value, self.step)
            self._renew([i for i, q in enumerate(measured.values) if not 0 < q < math.inf])
            self._keep_apart()
        return measured

    def _measurement(self, value: Tensor, distance: Tensor) -> Measurement:
        values = [q if 0 <= q < math.inf else -math.inf for q in value.tolist()]
        if max(values) == -math.inf:
            raise ValueError(
                f"the model's outputs are NaN or infinite at all {len(self)} pairs: "
                "lower the learning rate or λ, or check weights and inputs"
            )
        return Measurement(value, distance, values)

    def _renew(self, wrong: list[int]) -> None:
        """Start pairs anew: those that went wrong and, an eighth at a time, those that have lived long enough."""
        self.moves += 1
        fresh = set(wrong)
        if self.renew is not None:
            groups = min(8, self.renew, len(self))
            if self.moves % max(1, self.renew // groups) == 0:
                turn = self.moves // max(1, self.renew // groups) % groups
                fresh.update(range(turn, len(self), groups))
        if not fresh:
            return
        at = torch.tensor(sorted(fresh), device=self.points.device)
        u, v = self.start.draw(len(at), at if self.start.partners is not None else None)
        self.points[at], self.points[at + len(self)] = u, v
        self.step[at], self.previous[at] = self.first_step, 0.0

    def _keep_apart(self) -> None:
        """Project on the box and push pairs apart that came closer than ``min_distance``."""
        self._clamp()
        difference, distance = self._differences()
        # On a GPU looking would cost more than pushing: pairs that are far enough apart are pushed by zero.
        if self.points.device.type == "cpu" and max(distance.tolist()) < math.inf:
            return
        close = vector_norm(difference, self.p_in).clamp_min_(torch.finfo(distance.dtype).tiny)
        excess = (self.min_distance / close).clamp_min_(1.0).sub_(1.0).mul_(0.5)
        push = difference * per_sample(excess, difference)
        self.u.add_(push)
        self.v.sub_(push)
        self._clamp()

    def _clamp(self) -> None:
        if self._numbers is not None:
            self.points.clamp_(*self._numbers)
        elif self._low is not None:
            self.points.clamp_(self._low, self._high)

    def _differences(self) -> tuple[Tensor, Tensor]:
        """Return ``u - v`` and its norm, remembered until the points change."""
        known = self._known
        if known is not None and known[0] is self.points and known[1] == self.points._version:
            return known[2], known[3]
        with torch.no_grad():
            difference = self.u - self.v
            distance = vector_norm(difference, self.p_in)
            # Rounding may leave a pair a hair closer than it was pushed, and no pair has distance zero.
            close = max(0.999 * self.min_distance, torch.finfo(distance.dtype).tiny)
            if distance.device.type != "cpu" or min(distance.tolist()) < close:
                distance.masked_fill_(distance < close, math.inf)
        self._known = (self.points, self.points._version, difference, distance)
        return difference, distance

    def get_extra_state(self) -> Tensor:
        """Return the number of moves so far, on which renewal depends."""
        return torch.tensor(self.moves)

    def set_extra_state(self, state: Any) -> None:
        """Set the number of moves so far."""
        self.moves = int(state)
