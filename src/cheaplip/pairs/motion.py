"""The pairs and their motion: gradient ascent of the difference quotient (Algorithm 1)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cheaplip.modes import Model
from cheaplip.norms import Box, Norm, box_tensors, check_norm, per_sample, vector_norm
from cheaplip.pairs.search import SEARCHES, Search, adapt, move
from cheaplip.pairs.starts import Start, check_points, scale_of
from cheaplip.pairs.steepness import Ascent, apply, ascent, quotient


class Measurement(NamedTuple):
    """What one forward over the pairs told.

    Attributes:
        quotient: (P,), the difference quotients ‖f(u) - f(v)‖ / ‖u - v‖.
        distance: (P,), the distances ‖u - v‖ at which they were taken; inf where a pair is too close to be trusted,
            so that its quotient counts as 0.
        values: the quotients on the host; -inf where a quotient is no finite number.
        steepest: the index of the largest quotient, the first one on a tie.
        ascent: where the quotients rise, if that was asked for.
    """

    quotient: Tensor
    distance: Tensor
    values: list[float]
    steepest: int
    ascent: Ascent | None

    @property
    def usable(self) -> list[int]:
        """The indices of the pairs whose quotient is a finite number."""
        return [index for index, value in enumerate(self.values) if value > -math.inf]


class _Apart(NamedTuple):
    difference: Tensor
    distance: Tensor
    close: bool


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
        >>> measured = pairs.measure(lambda x: 3 * x, climb=True)
        >>> pairs.move(measured)
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
        # Rounding may leave a pair a hair closer than it was pushed, and no pair has distance zero.
        self._smallest = max(0.999 * self.min_distance, torch.finfo(torch.float32).tiny)
        self.first_step = float(step) if step is not None else 1.0 if search == "paper" else 0.05 * scale
        if not 0 < self.first_step < math.inf:
            raise ValueError(f"step must be a finite number above 0; got {step!r}")
        self._set_box(box, points)
        self.moves = 0
        self.count = len(u)
        self.register_buffer("points", points)
        self.register_buffer("step", points.new_full((len(u),), self.first_step))
        self.register_buffer("previous", points.new_zeros(len(u)))
        self._known: tuple[Tensor, int, _Apart] | None = None
        self._clamp(points)
        self._push_apart(points)

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
        return self.count

    @property
    def u(self) -> Tensor:
        """The first points, ``(P, *shape)``."""
        return self.points[: self.count]

    @property
    def v(self) -> Tensor:
        """The second points, ``(P, *shape)``."""
        return self.points[self.count :]

    def distances(self) -> Tensor:
        """Return ‖u - v‖, shape ``(P,)``; inf where a pair is too close for its quotient to be trusted."""
        return self._apart(self.points).distance

    def measure(self, function: Model, *, climb: bool = False) -> Measurement:
        """Measure the quotients, where the pairs stand.

        Args:
            function: any function of a batch; its outputs must not depend on which points share the batch.
            climb: find out as well where the quotients rise, for :meth:`move`.

        Raises:
            ValueError: if the outputs at all pairs are NaN or infinite.
        """
        points = self.points
        difference, distance, _ = self._apart(points)
        rise = None
        if climb:
            rise = ascent(function, points, difference, distance, self.p_in, self.p_out)
            quotients = rise.value
        else:
            with torch.no_grad():
                quotients = quotient(apply(function, points), distance, self.p_out)
        values: list[float] = quotients.tolist()
        if not math.isfinite(sum(values)):
            values = [value if math.isfinite(value) else -math.inf for value in values]
        largest = max(values)
        if largest == -math.inf:
            raise ValueError(
                f"the model's outputs are NaN or infinite at all {self.count} pairs: "
                "lower the learning rate or λ, or check weights and inputs"
            )
        return Measurement(quotients, distance, values, values.index(largest), rise)

    @torch.no_grad()
    def move(self, measured: Measurement) -> None:
        """Move every pair one step uphill, and renew those that went wrong or have lived long enough.

        Args:
            measured: what ``measure(function, climb=True)`` said of the pairs as they stand.

        Reference: Bungert et al. 2021, Algorithm 1.
        """
        if measured.ascent is None:
            raise ValueError("to move, the pairs need a measurement with climb=True")
        # Looked up once: in a small network's step the look-up of buffers is felt.
        points, step, previous = self.points, self.step, self.previous
        adapt(step, measured.quotient, previous, self.first_step)
        previous.copy_(measured.quotient)
        move(self.search, points, measured.ascent, step)
        self.moves += 1
        self._renew(points, measured.values)
        self._clamp(points)
        if self._apart(points).close:
            self._push_apart(points)

    def _renew(self, points: Tensor, values: list[float]) -> None:
        """Start pairs anew: those that went wrong and, an eighth at a time, those that have lived long enough."""
        fresh = {index for index, value in enumerate(values) if value <= 0} if min(values) <= 0 else set()
        if self.renew is not None:
            groups = min(8, self.renew, self.count)
            pause = self.renew // groups
            if self.moves % pause == 0:
                fresh.update(range(self.moves // pause % groups, self.count, groups))
        if not fresh:
            return
        at = torch.tensor(sorted(fresh), device=points.device)
        u, v = self.start.draw(len(at), at if self.start.partners is not None else None)
        points[at], points[at + self.count] = u, v
        self.step[at], self.previous[at] = self.first_step, 0.0

    @torch.no_grad()
    def _push_apart(self, points: Tensor) -> None:
        """Push pairs apart that are closer than ``min_distance``, as far as the box allows."""
        u, v = points.chunk(2)
        difference = u - v
        close = vector_norm(difference, self.p_in).clamp_min_(torch.finfo(points.dtype).tiny)
        excess = (self.min_distance / close).clamp_min_(1.0).sub_(1.0).mul_(0.5)
        push = difference * per_sample(excess, difference)
        u.add_(push)
        v.sub_(push)
        self._clamp(points)

    def _clamp(self, points: Tensor) -> None:
        if self._numbers is not None:
            points.clamp_(*self._numbers)
        elif self._low is not None:
            points.clamp_(self._low, self._high)

    def _apart(self, points: Tensor) -> _Apart:
        """Return ``u - v`` and its norm, remembered until the points change."""
        if self._known is not None and self._known[0] is points and self._known[1] == points._version:
            return self._known[2]
        with torch.no_grad():
            u, v = points.chunk(2)
            difference = u - v
            distance = vector_norm(difference, self.p_in)
            # On a GPU looking would cost more than pushing: pairs that are far enough apart are pushed by zero.
            close = not points.is_cpu or min(distance.tolist()) < self._smallest
            if close:
                distance.masked_fill_(distance < self._smallest, math.inf)
        apart = _Apart(difference, distance, close)
        self._known = (points, points._version, apart)
        return apart

    def get_extra_state(self) -> Tensor:
        """Return the number of moves so far, on which renewal depends."""
        return torch.tensor(self.moves)

    def set_extra_state(self, state: Any) -> None:
        """Set the number of moves so far."""
        self.moves = int(state)
