"""Bounds on the norm of a network's Jacobian where the slope of each unit is known to lie in an interval."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np

from cheaplip.lipschitz.piecewise.integers import EPS, TINY, Floats

Matrix: TypeAlias = "Floats | None"


@final
@dataclass(frozen=True)
class Enclosure:
    """What a family of matrices lies in.

    Args:
        mean: a matrix in the middle.
        spread: how far each entry may lie from it.
        ball: how far any of them may lie from it, in the 2-norm.
        size: bounds on the sums of absolute values that an entry is made of; rounding is in proportion to it.
    """

    mean: Floats
    spread: Floats
    ball: float
    size: Floats


@final
class Jacobians:
    """Bounds on the Jacobian's norm, from slopes.

    Args:
        weights: of each layer and of the output, the matrices from the input and from each layer before.
        sizes: the same with bounds on absolute values; rounding is in proportion to them.
        widths: the number of inputs, of the units of each layer, and of outputs.
        p: the norm: 1, 2 or inf.
        terms: how many roundings are behind an entry of the weights.

    Example:
        >>> one = np.ones((1, 1))
        >>> jacobians = Jacobians([[one], [one, -one]], [[one], [one, one]], [1, 1, 1], 2)  # x - relu(x)
        >>> low, high = jacobians.bound(np.zeros(1), np.ones(1))
        >>> round(high, 9), round(jacobians.bound(np.ones(1), np.ones(1))[1], 9)
        (1.0, 0.0)
    """

    def __init__(
        self, weights: list[list[Matrix]], sizes: list[list[Matrix]], widths: list[int], p: float, terms: int = 0
    ) -> None:
        self.weights, self.sizes, self.widths, self.p = weights, sizes, widths, p
        ends = np.cumsum([0, *widths[1:-1]]).tolist()
        self.spans = [slice(start, end) for start, end in itertools.pairwise(ends)]
        self.margin = 16 * EPS * (sum(widths) + terms)
        self.reach = self._reach()

    def bound(self, low: Floats, high: Floats, known: Sequence[Enclosure] = ()) -> tuple[float, float]:
        """Return bounds on the norm, from below where all slopes are known, and from above.

        Args:
            low: the least slope of each unit, ``(units,)``.
            high: the largest.
            known: the first of :meth:`rows`, to save time.
        """
        with np.errstate(all="ignore"):
            rows = self.rows(low, high, known)
            out, radius = rows[-1], high / 2 - low / 2
            exact = not radius.any()
            value = size = self._norm(out.size)
            if math.isfinite(size):
                value = self._norm(out.mean) if exact else self._largest(rows, radius)
            margin = self.margin * (size + value)
            lower = max(0.0, value - margin) if exact and math.isfinite(margin) else 0.0
            upper = value + margin
            return lower, upper if math.isfinite(upper) else math.inf

    def rows(self, low: Floats, high: Floats, known: Sequence[Enclosure] = ()) -> list[Enclosure]:
        """Enclose the derivative of each layer's pre-activations, and of the output, by the input."""
        middle, radius, top = low / 2 + high / 2, high / 2 - low / 2, np.maximum(np.abs(low), np.abs(high))
        rows = list(known)
        for k in range(len(rows), len(self.weights)):
            first, largest = self.weights[k][0], self.sizes[k][0]
            mean = np.zeros((self.widths[k + 1], self.widths[0])) if first is None else first
            size, spread, ball = np.abs(mean) if largest is None else largest, np.zeros_like(mean), 0.0
            for weight, largest, before, span in zip(
                self.weights[k][1:], self.sizes[k][1:], rows, self.spans, strict=False
            ):
                if weight is None or largest is None:
                    continue
                slopes, wide, steep = middle[span, None], radius[span, None], top[span, None]
                mean = mean + weight @ (slopes * before.mean)
                size = size + _sizes(largest, _sizes(steep, before.size, np.multiply))
                if wide.any() or before.ball:
                    spread = spread + np.abs(weight) @ (steep * before.spread + wide * np.abs(before.mean))
                    if self.p == 2:
                        ball += self._product(weight * steep.T, before.ball) + self._turned(weight * wide.T, before)
            widest = self._norm(spread)
            rows.append(Enclosure(mean, spread, min(ball, widest) if self.p == 2 else widest, size))
        return rows

    def influence(self, low: Floats, high: Floats, rows: Sequence[Enclosure]) -> Floats:
        """Estimate how much each unit's slope may change the Jacobian, ``(units,)``, given its rows."""
        with np.errstate(all="ignore"):
            lengths = np.concatenate([np.linalg.norm(row.mean, axis=1) for row in rows[:-1]])
            influence: Floats = (high - low) * lengths * self.reach
            return influence

    def _reach(self) -> Floats:
        """Return by how much the output grows with each unit at most, with slopes of 1."""
        reach = [np.ones(self.widths[-1])]
        for k in reversed(range(len(self.spans))):
            total = np.zeros(self.widths[k + 1])
            for sizes, after in zip(self.sizes[k + 1 :], reach, strict=True):
                size = sizes[k + 1]
                if size is not None:
                    total += size.T @ after
            reach.insert(0, total)
        return np.concatenate([np.zeros(0), *reach[:-1]])

    def _norm(self, matrix: Floats) -> float:
        if not np.isfinite(matrix).all():
            return math.inf
        if not matrix.any():
            return 0.0
        if self.p == 2:
            return float(np.linalg.svd(matrix, compute_uv=False)[0])
        return float(np.linalg.norm(matrix, self.p))

    def _product(self, weight: Floats, ball: float) -> float:
        return self._norm(weight) * ball if ball else 0.0

    def _turned(self, weight: Floats, before: Enclosure) -> float:
        """Bound the 2-norm of ``weight · diag(s) · mean`` for any numbers s in [-1, 1]."""
        if not (weight.any() and before.mean.any()):
            return 0.0
        return min(self._balanced(weight, before.mean), self._gram(None, weight, before.mean))

    def _balanced(self, weight: Floats, mean: Floats) -> float:
        left, right = np.linalg.norm(weight, axis=0), np.linalg.norm(mean, axis=1)
        kept = (left > 0) & (right > 0)
        ratio = np.sqrt(right[kept] / left[kept])
        return self._norm(weight[:, kept] * ratio) * self._norm(mean[kept] / ratio[:, None])

    def _gram(self, fixed: Matrix, weight: Floats, mean: Floats) -> float:
        """Bound the 2-norm of ``fixed + weight · diag(s) · mean`` for any s in [-1, 1], by its rows' products."""
        # Scaled to 1 twice, lest squares overflow or vanish.
        one = float(np.abs(mean).max(initial=0)) or 1.0
        mean, weight = mean / one, np.abs(weight) * one
        two = max(float(weight.max(initial=0)), 0.0 if fixed is None else float(np.abs(fixed).max(initial=0))) or 1.0
        weight = weight / two
        inner, sizes = weight @ np.abs(mean @ mean.T) @ weight.T, weight @ np.abs(mean)
        if fixed is not None:
            fixed = fixed / two
            mixed = weight @ np.abs(mean @ fixed.T)
            inner, sizes = inner + np.abs(fixed @ fixed.T) + mixed + mixed.T, sizes + np.abs(fixed)
        lost = self.margin * float((sizes * sizes).sum())
        return math.sqrt(self._norm(inner) + lost) * two

    def _largest(self, rows: list[Enclosure], radius: Floats) -> float:
        out, weight = rows[-1], self.weights[-1][-1]
        value = min(self._norm(np.abs(out.mean) + out.spread), self._norm(out.mean) + out.ball)
        last = self.spans[-1]
        if self.p == 2 and weight is not None and not radius[: last.start].any():
            value = min(value, self._gram(out.mean, weight * radius[last], rows[-2].mean))
        return value


def _sizes(one: Floats, other: Floats, product: Callable[[Floats, Floats], Floats] = np.matmul) -> Floats:
    """Return a product of absolute values; what is not zero stays above the smallest normal number."""
    found = product(one, other)
    if (found > TINY).all():
        return found
    known = product((one != 0).astype(np.float64), (other != 0).astype(np.float64)) != 0
    return np.where(known, np.maximum(found, TINY), 0.0)
