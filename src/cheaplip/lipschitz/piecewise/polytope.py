"""Regions of a box with many inputs, by linear programmes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np

from cheaplip.lipschitz.piecewise.integers import (
    EPS,
    TINY,
    Bools,
    Floats,
    Integers,
    cancelling,
    integers,
    places,
    primitive,
    rounded_rows,
    signs_of,
)


@final
@dataclass(frozen=True, eq=False)
class Polytope:
    """A region of a finite box by its inequalities and one inner point: for many inputs, by linear programmes.

    That a form stays on one side is proven by the multipliers of a linear programme, whatever its tolerances; that a
    part is not empty, by a point. What is neither is in doubt.

    Args:
        low: the box's lower corner, ``(inputs,)``.
        high: its upper corner.
        corners: both times a number, and that number, all integers.
        rows: the forms that are positive, each scaled to a largest entry of 1, ``(m, inputs + 1)``.
        exact: the same forms, without rounding.
        inner: a point where they are positive for certain, ``(inputs,)``.

    Example:
        >>> square = Polytope.box(-np.ones(2), np.ones(2))
        >>> [side.tolist() for side in square.sides(np.array([[1, 1, 2], [1, 1, 1]], dtype=object))]
        [[False, True], [True, True]]
    """

    low: Floats
    high: Floats
    corners: tuple[Integers, Integers, int]
    rows: Floats
    exact: Integers
    inner: Floats | None

    @classmethod
    def box(cls, low: Floats, high: Floats) -> Polytope:
        """Return a finite box."""
        n, shift = len(low), places(np.append(low, high))
        corners = integers(low, shift), integers(high, shift), 1 << shift
        return cls(low, high, corners, np.zeros((0, n + 1)), np.zeros((0, n + 1), dtype=object), low / 2 + high / 2)

    @property
    def certain(self) -> bool:
        """Whether an inner point is known."""
        return self.inner is not None

    def sides(self, forms: Integers) -> tuple[Bools, Bools]:
        """Tell where each form may be negative, and where positive."""
        below, above = (np.array([self._reaches(form) for form in forms * sign], dtype=bool) for sign in (-1, 1))
        return below, above

    def ranges(self, rows: Floats) -> tuple[Floats, Floats]:
        """Return bounds on affine functions in the whole box."""
        middle, radius = np.append((self.low + self.high) / 2, 1.0), np.append((self.high - self.low) / 2, 0.0)
        values, spread = rows @ middle, np.abs(rows) @ (radius + 8 * len(middle) * EPS * (np.abs(middle) + radius))
        return values - spread, values + spread

    def _reaches(self, form: Integers) -> bool:
        """Tell whether a form may be positive."""
        if not any(form) or self._excludes(form):
            return False
        row = rounded_rows(form[None])[0]
        if self.inner is not None:
            signs, opened = signs_of(np.append(self.inner, 1.0)[None], row[None])
            if signs[0, 0] > 0 and not opened[0, 0]:
                return True
        solved = _solved(-row[:-1], -self.rows[:, :-1], self.rows[:, -1], np.stack([self.low, self.high], 1))
        if solved.status != 0:
            return True
        multipliers = np.maximum(-solved.ineqlin.marginals, 0)
        if self._most(row, multipliers) <= 0:
            return False
        # Where the largest value may be zero, as for forms that meet in a point, only exact multipliers can tell.
        if row[-1] - solved.fun > 1e-7:
            return True
        free = np.abs(solved.lower.marginals) + np.abs(solved.upper.marginals) < 1e-9
        rows = np.append(self.exact[multipliers > 1e-9], form[None], 0)
        times = cancelling(rows[:, np.append(free, False)])
        return times is None or bool((times < 0).any()) or not self._excludes(times @ rows)

    def _excludes(self, form: Integers) -> bool:
        """Tell whether a form is nowhere positive in the box, exactly."""
        low, high, one = self.corners
        return bool(sum(np.maximum(form[:-1] * low, form[:-1] * high)) + form[-1] * one <= 0)

    def _most(self, row: Floats, multipliers: Floats) -> float:
        """Return an upper bound on a form in the region: it with multiples of what is positive added, in the box."""
        total = row + multipliers @ self.rows
        corner = np.append(np.where(total[:-1] > 0, self.high, self.low), 1.0)
        farthest = np.append(np.maximum(np.abs(self.low), np.abs(self.high)), 1.0)
        sizes = (np.abs(row) + multipliers @ np.abs(self.rows)) @ farthest
        return float(total @ corner + 4 * (len(row) + len(multipliers) + 2) * EPS * sizes + TINY)

    def cut(self, form: Integers) -> Polytope:
        """Return the part where a form is positive."""
        rows = np.vstack([self.rows, rounded_rows(form[None])])
        exact = np.append(self.exact, primitive(form)[None], 0)
        # The point where the least of all forms is largest, at most 1.
        aim = np.append(np.zeros(len(self.low)), -1.0)
        sides = np.append(-rows[:, :-1], np.ones((len(rows), 1)), 1)
        solved = _solved(aim, sides, rows[:, -1], np.stack([[*self.low, -np.inf], [*self.high, 1.0]], 1))
        inner = None
        if solved.status == 0:
            inner = np.clip(solved.x[:-1], self.low, self.high)
            signs, opened = signs_of(np.append(inner, 1.0)[None], rows)
            inner = inner if (signs > 0).all() and not opened.any() else None
        return replace(self, rows=rows, exact=exact, inner=inner)

    def point(self) -> Floats | None:
        """Return the inner point."""
        return self.inner


def _solved(aim: Floats, rows: Floats, most: Floats, bounds: Floats) -> Any:
    """Minimise ``aim · x`` where ``rows · x <= most`` within bounds, ``(inputs, 2)``."""
    # Slow to load, and of no use where inputs are few.
    from scipy.optimize import linprog

    return linprog(aim, rows, most, bounds=bounds)
