"""The pairs and their motion: gradient ascent of the difference quotient (Algorithm 1)."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn

from cheaplip.checks import number
from cheaplip.modes import Model
from cheaplip.norms import Box, Norm, box_tensors, check_norm
from cheaplip.pairs.measurement import Measurement
from cheaplip.pairs.room import Apart, Room
from cheaplip.pairs.search import Search, adapt, check_search, move
from cheaplip.pairs.starts import Start, check_pairs, scale_of
from cheaplip.pairs.steepness import Slopes, apply, ascent, quotient

# How many last places of the largest number the points of a pair differ by at least, where nothing else is said.
PLACES = 1000
# Pairs are renewed a quarter at a time: one by one would cost more, all at once would forget what was found.
GROUPS = 4


@final
class Pairs(nn.Module):
    """P pairs of inputs that gradient ascent keeps pushing to where a function is steepest.

    Args:
        u: the first points of the pairs, ``(P, *shape)``, floating, finite.
        v: their second points, likewise.
        start: where renewed pairs start again; None for their own start, with a little noise.
        p_in: the norm of inputs: 1, 2, inf or a callable ``(n, *shape) -> (n,)``.
        p_out: the norm of outputs, likewise.
        search: ``"paper"``, a step τ·L·∇L; ``"ascent"``, a step of length τ along ∇L; ``"power"``, a power iteration
            that turns the pair, and a step τ of its centre, for ``p_in`` 1, 2 or inf; or a callable
            ``(u, v, gradient_u, gradient_v, quotient, step) -> (u, v)``.
        renew: the lifetime of a pair in moves; None renews only pairs that went wrong.
        box: ``(low, high)``, numbers or one number per channel, in which all points stay; None for all space.
        min_distance: the smallest distance of a pair, in input units; by default 0.01 of the data's scale, and at
            least 1,000 last places of the largest number.
        step: the first τ; by default 0.05 of the data's scale, and 1 for ``"paper"``.

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
        check_pairs(u, v)
        self.p_in, self.p_out = check_norm(p_in, "p_in"), check_norm(p_out, "p_out")
        if renew is not None and (not isinstance(renew, int) or renew < 1):
            raise ValueError(f"renew must be a lifetime of at least 1 move, or None; got {renew!r}")
        self.shares = 1  # among how many processes the pairs were spread
        points = torch.cat([u, v]).detach()
        scale = scale_of(points)
        self.search, self.renew, self.count, self.moves = check_search(search, self.p_in), renew, len(u), 0
        self.start = Start(u, v) if start is None else start
        # Points that are close beside their size differ by few last places, of which quotients come out wrong; half
        # precision has no more to offer than the data's scale.
        places = PLACES * torch.finfo(points.dtype).eps * float(points.abs().max())
        least = max(0.01 * scale, min(places, 0.5 * scale) if torch.finfo(points.dtype).bits < 32 else places)
        smallest = least if min_distance is None else number(min_distance, "min_distance", low=0)
        usual = 1.0 if search == "paper" else 0.05 * scale
        self.first_step = usual if step is None else number(step, "step", above=0)
        self.room = Room(None if box is None else box_tensors(box, points), self.p_in, smallest, points)
        self.register_buffer("points", points)
        self.register_buffer("step", points.new_full((len(u),), self.first_step))
        self.register_buffer("previous", points.new_zeros(len(u)))
        self.room.settle(points)

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

    @property
    def min_distance(self) -> float:
        """The smallest distance of a pair, in input units."""
        return self.room.smallest

    def keep(self, first: int, step: int) -> None:
        """Keep every ``step``-th pair from the ``first`` on, with draws of its own for each ``first``."""
        u, v = self.u[first::step], self.v[first::step]
        self.count, self.shares = len(u), self.shares * step
        self.points, self.step = torch.cat([u, v]), self.step[first::step].clone()
        self.previous = self.previous[first::step].clone()
        self.start.keep(first, step)

    def distances(self) -> Tensor:
        """Return ‖u - v‖, shape ``(P,)``; inf where a pair is too close for its quotient to be trusted."""
        return self.apart().distance

    def apart(self) -> Apart:
        """Return how far the pairs are apart."""
        return self.room.measure(self.points)

    def measure(self, function: Model, *, climb: bool = False) -> Measurement:
        """Measure the quotients, where the pairs stand.

        Args:
            function: any function of a batch; its outputs must not depend on which points share the batch.
            climb: find out as well where the quotients rise, for :meth:`move`.

        Raises:
            ValueError: if the outputs at all pairs are NaN or infinite.
        """
        points = self.points
        apart = self.room.measure(points)
        if climb:
            rise = ascent(function, points, apart.difference, apart.distance, self.p_in, self.p_out)
            return Measurement.of(rise.value, apart, rise)
        with torch.no_grad():
            output_u, output_v = apply(function, points).chunk(2)
            return Measurement.of(quotient(output_u, output_v, apart.distance, self.p_out), apart)

    def slopes(self, output: Tensor) -> Slopes:
        """Return what can be said of the quotients by the outputs at ``points`` alone, without a graph."""
        apart = self.apart()
        return Slopes.at(output, apart.difference, apart.distance, self.p_in, self.p_out)

    def climb(
        self, function: Model, steps: int, *, last: Model | None = None, measured: Measurement | None = None
    ) -> Measurement:
        """Take all of so many steps but the last, and return the measurement before that one.

        Args:
            function: as in :meth:`measure`.
            steps: how many, at least 1.
            last: what is measured in the end, the same function in another guise.
            measured: what :meth:`measure` said of the pairs as they stand, if it was asked.
        """
        for _ in range(steps - 1):
            self.move(self.measure(function, climb=True) if measured is None else measured)
            measured = None
        if measured is not None:
            return measured
        return self.measure(function if last is None else last, climb=True)

    def move(self, measured: Measurement) -> None:
        """Move every pair one step uphill, and renew those that went wrong or have lived long enough.

        Args:
            measured: what ``measure(function, climb=True)`` said of the pairs as they stand.

        Raises:
            ValueError: for a measurement without ``climb``, or a search that returns no pairs.

        Reference: Bungert et al. 2021, Algorithm 1.
        """
        if measured.ascent is None:
            raise ValueError("to move, the pairs need a measurement with climb=True")
        # Past nn.Module's own lookups and checks, and replaced rather than copied: all felt in a small network's step.
        buffers: dict[str, Any] = self._buffers
        points = buffers["points"]
        step = adapt(buffers["step"], measured.quotient, buffers["previous"], self.first_step)
        buffers["step"], buffers["previous"] = step, measured.quotient
        move(self.search, points, measured.ascent, step, self.p_in)
        self.__dict__["moves"] += 1
        if min(measured.values) <= 0:
            self._start_anew(points, [index for index, value in enumerate(measured.values) if value <= 0])
        if self.renew is not None:
            self._renew(points, self.renew)
        if lost := self.room.settle(points):
            self._start_anew(points, lost)
            self.room.settle(points)

    def _renew(self, points: Tensor, lifetime: int) -> None:
        """Start those pairs anew, in turn, that have lived long enough."""
        groups = min(GROUPS, lifetime, self.count)
        turn, early = divmod(self.moves, lifetime // groups)
        if early == 0:
            first, last = (self.count * (turn % groups + k) // groups for k in (0, 1))
            self._start_anew(points, slice(first, last))

    def _start_anew(self, points: Tensor, at: slice | list[int]) -> None:
        u, v = points.chunk(2)
        u[at], v[at] = self.start.renew(at)
        # The measurement keeps the old quotients.
        step, previous = self.step, self.previous.clone()
        step[at], previous[at] = self.first_step, 0.0
        self._buffers["previous"] = previous

    def get_extra_state(self) -> Tensor:
        """Return what renewal and motion depend on beside the buffers: moves, first step, smallest distance."""
        return torch.tensor([self.moves, self.first_step, self.room.smallest], dtype=torch.float64)

    def set_extra_state(self, state: Any) -> None:
        """Take over what :meth:`get_extra_state` returned."""
        moves, self.first_step, self.room.smallest = state.tolist()
        self.moves = int(moves)
        self.room.forget()
