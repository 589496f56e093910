"""Branch and bound over the linear regions of a piecewise-linear network."""

from __future__ import annotations

import heapq
import itertools
import math
import time
from dataclasses import dataclass, replace
from typing import final

import numpy as np

from cheaplip.lipschitz.piecewise.integers import Floats, Integers, floats, independent
from cheaplip.lipschitz.piecewise.jacobian import Enclosure, Jacobians
from cheaplip.lipschitz.piecewise.network import Network, Scaled, Whole
from cheaplip.lipschitz.piecewise.polytope import Polytope
from cheaplip.lipschitz.piecewise.regions import Cone, Region

# A box of so many inputs is known by its corners, one of more by linear programmes.
CORNERED = 8
# Points at which the Jacobian is tried before the search.
POINTS = 256


@final
@dataclass(frozen=True, eq=False)
class _Node:
    """A part of the input space where all layers before one are on known pieces, and some units of that one.

    Args:
        first: the first piece that a unit may be on, ``(units,)``.
        last: the last.
        values: the values of the layers before, as functions of the input.
        known: the Jacobians of those layers and that one, before their slopes.
        region: the part's parent.
        cuts: what is positive in the part.
        bound: on the Jacobian's norm there.
    """

    first: Whole
    last: Whole
    values: list[Scaled]
    known: list[Enclosure]
    region: Region
    cuts: list[Integers]
    bound: float


@final
class Search:
    """A search for the steepest region.

    Args:
        network: the network.
        p: the norm: 1, 2 or inf.
        low: the lower corner of the box of inputs, ``(inputs,)``, may be infinite.
        high: the upper one.

    Attributes:
        lower: the norm in the steepest region found, less rounding.
        point: an input in that region, ``(inputs,)``.
        ceiling: no region found is steeper, nor is any that was left out as not steep enough.
        cells: how many regions the search came down to.
    """

    def __init__(self, network: Network, p: float, low: Floats, high: Floats) -> None:
        self.network, self.low, self.high = network, low, high
        self.jacobians = Jacobians(network.weights, network.sizes, network.widths, p, network.system.terms)
        self.lower, self.ceiling, self.cells = 0.0, 0.0, 0
        self.point: Floats | None = None
        self.tried: set[bytes] = set()
        self.heap: list[tuple[float, int, _Node]] = []
        self.count = itertools.count()
        self.bounded = bool((np.isfinite(low) & np.isfinite(high)).all())
        self.all_entries = network.entries(np.arange(len(low)))
        self._try(self._samples())
        region, columns = self._whole()
        self.columns, self.entries = columns, network.entries(columns)
        first, last = np.zeros_like(network.counts), np.where(network.matters, network.counts, 0)
        if self.bounded:
            network.foresee(0, [(low, high)], first, last)
        self._push(_Node(first, last, [], [], region, [], math.inf))

    def _samples(self) -> Floats:
        """Return points of the box at many scales."""
        draw = np.random.default_rng(0)
        scales = np.logspace(-2, 4, POINTS)[:, None]
        near, far = np.isfinite(self.low), np.isfinite(self.high)
        left = np.where(near, self.low, np.where(far, self.high, 0) - scales)
        right = np.where(far, self.high, np.where(near, self.low, 0) + scales)
        return left + (right - left) * draw.random((POINTS, len(self.low)))

    def _whole(self) -> tuple[Region, Whole]:
        """Return the box as a region of some coordinates of the input, and which these are."""
        near, far = np.isfinite(self.low), np.isfinite(self.high)
        columns = np.arange(len(near))
        if not (near.any() or far.any()):
            # As many coordinates as it takes to reach all values of what the units see.
            rows = [weights[0] for weights in self.network.whole_weights[:-1] if weights[0] is not None]
            columns = np.array(independent(np.concatenate(rows)) if rows else [], dtype=int)
            return Cone.space(len(columns)), columns
        if len(near) <= CORNERED or not (near & far).all():
            return Cone.box(self.low, self.high), columns
        return Polytope.box(self.low, self.high), columns

    def _try(self, points: Floats) -> None:
        """Measure the Jacobian at some points, and keep the steepest if its region is there for certain."""
        points = points[((points > self.low) & (points < self.high)).all(1)]
        for x, pieces in zip(points, self.network.pieces(points), strict=True):
            key = pieces.tobytes()
            if key in self.tried:
                continue
            slopes = self.network.slopes_between(pieces, pieces)
            lower, upper = self.jacobians.bound(*slopes)
            if self.point is None or lower > self.lower:
                if not self.network.holds(x, pieces, self.all_entries):
                    continue
                self.lower, self.point, self.ceiling = lower, x, max(self.ceiling, upper)
            self.tried.add(key)

    def _push(self, node: _Node) -> None:
        slopes = self.network.slopes_between(node.first, node.last)
        bound = min(node.bound, self.jacobians.bound(*slopes, node.known)[1])
        if bound > self.ceiling:
            heapq.heappush(self.heap, (-bound, next(self.count), node))

    def run(self, limit: float) -> None:
        """Take the part with the largest bound, until none may hold a steeper region than was found."""
        while self.heap and -self.heap[0][0] > self.ceiling and time.monotonic() < limit:
            bound, _, node = heapq.heappop(self.heap)
            self._expand(replace(node, bound=-bound))

    @property
    def unsearched(self) -> float:
        """The largest bound of a part that was not looked into."""
        return -self.heap[0][0] if self.heap else 0.0

    def _expand(self, node: _Node) -> None:
        region, values = node.region, list(node.values)
        for form in node.cuts:
            region = region.cut(form)
        first, last = node.first.copy(), node.last.copy()
        network = self.network
        for k in range(len(values), len(network.spans)):
            forms = network.forms(self.entries[k], network.whole_weights[k][1:], values)
            if not self._narrow(region, k, forms, first, last):
                return
            left = [unit for unit in range(network.spans[k].start, network.spans[k].stop) if first[unit] < last[unit]]
            if left:
                self._look(region)
                self._foresee(region, values, forms, first, last)
                self._branch(replace(node, first=first, last=last, values=values, region=region), k, forms, left)
                return
            values.append(network.activate(k, forms, first))
        self._reach(region, first)

    def _narrow(self, region: Region, k: int, forms: Scaled, first: Whole, last: Whole) -> bool:
        """Leave each unit of a layer the pieces that it has somewhere in the region; tell whether some are left."""
        span = self.network.spans[k]
        breaks = [(unit, piece) for unit in range(span.start, span.stop) for piece in range(first[unit], last[unit])]
        if not breaks:
            return True
        behind = np.stack([self.network.behind(k, forms, *place) for place in breaks])
        below, above = region.sides(behind)
        for (unit, piece), left, right in zip(breaks, below, above, strict=True):
            if not left:
                first[unit] = piece + 1
            elif not right:
                last[unit] = min(last[unit], piece)
        return bool((first <= last).all())

    def _foresee(self, region: Region, values: list[Scaled], forms: Scaled, first: Whole, last: Whole) -> None:
        """Leave the units of later layers the pieces that intervals allow, where the box is bounded."""
        if not self.bounded:
            return
        k, identity = len(values), np.eye(len(self.low), len(self.low) + 1)
        ranges = [region.ranges(rows) for rows in (identity, *(floats(*value) for value in values))]
        ranges.append(self.network.within(k, *region.ranges(floats(*forms))))
        if all(np.isfinite(bounds).all() for bounds in ranges):
            self.network.foresee(k + 1, ranges, first, last)

    def _branch(self, node: _Node, k: int, forms: Scaled, units: list[int]) -> None:
        """Split a part by the pieces of the unit that seems to matter most."""
        slopes = self.network.slopes_between(node.first, node.last)
        rows = self.jacobians.rows(*slopes, node.known)
        unit = max(units, key=self.jacobians.influence(*slopes, rows).__getitem__)
        for piece in range(node.first[unit], node.last[unit] + 1):
            first, last, cuts = node.first.copy(), node.last.copy(), []
            if piece > first[unit]:
                cuts.append(self.network.behind(k, forms, unit, piece - 1))
            if piece < last[unit]:
                cuts.append(-self.network.behind(k, forms, unit, piece))
            first[unit] = last[unit] = piece
            self._push(_Node(first, last, node.values, rows[: k + 1], node.region, cuts, node.bound))

    def _inner(self, region: Region) -> Floats | None:
        coordinates = region.point()
        if coordinates is None:
            return None
        point = np.zeros(len(self.low))
        point[self.columns] = coordinates
        return point

    def _look(self, region: Region) -> None:
        point = self._inner(region)
        if point is not None:
            self._try(point[None])

    def _reach(self, region: Region, pieces: Whole) -> None:
        """Count a linear region, with the norm of the Jacobian there."""
        self.cells += 1
        lower, upper = self.jacobians.bound(*self.network.slopes_between(pieces, pieces))
        self.ceiling = max(self.ceiling, upper)
        point = self._inner(region)
        if region.certain and point is not None and (lower > self.lower or self.point is None):
            self.lower, self.point = lower, point
