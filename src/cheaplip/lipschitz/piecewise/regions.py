"""Regions of the input space cut out by affine inequalities: which sides of a further hyperplane do they reach?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, final

import numpy as np

from cheaplip.lipschitz.piecewise.integers import EPS, Bools, Floats, Integers, reduced, rounded_rows, signs_of


class Region(Protocol):
    """The interior of a polyhedron, not empty unless it is in doubt."""

    @property
    def certain(self) -> bool:
        """Whether the interior is proven to hold a point."""

    def sides(self, forms: Integers) -> tuple[Bools, Bools]:
        """Tell which forms, ``(n, inputs + 1)``, may be negative somewhere, and which positive: no is proven."""

    def ranges(self, rows: Floats) -> tuple[Floats, Floats]:
        """Return bounds on affine functions ``(a, b)``, ``(n, inputs + 1)``, from below and above, maybe infinite."""

    def cut(self, form: Integers) -> Region:
        """Return the part where a form is positive, which must be one of the form's sides."""

    def point(self) -> Floats | None:
        """Return an interior point, up to rounding, if one is known."""


@final
@dataclass(frozen=True, eq=False)
class Cone:
    """A region by its corners, in exact arithmetic: for few inputs, or few hyperplanes.

    It is a cone of points ``(x, s)``, s >= 0, cut at s = 1: a corner is a ray ``(s x, s)``, an unbounded direction a
    ray ``(x, 0)``, and a line goes both ways. A cut keeps the rays on its side and adds one on each edge it crosses.

    Args:
        lines: ``(l, inputs + 1)``.
        rays: ``(m, inputs + 1)``.
        tight: which rays lie on which of the hyperplanes so far, ``(m, k)``.
        rounded: the rays as floats, each scaled to a largest entry of 1.

    Reference: Motzkin, Raiffa, Thompson, Thrall 1953, the double description method.

    Example:
        >>> plane = Cone.space(2).cut(np.array([1, 0, 0], dtype=object))  # x > 0
        >>> [side.tolist() for side in plane.sides(np.array([[1, 0, 1], [1, 0, -1]], dtype=object))]
        [[False, True], [True, True]]
    """

    lines: Integers
    rays: Integers
    tight: Bools
    rounded: Floats

    @classmethod
    def space(cls, inputs: int) -> Cone:
        """Return all space."""
        lines = np.array([[int(i == j) for j in range(inputs + 1)] for i in range(inputs + 1)], dtype=object)
        return cls._of(lines[:-1], lines[-1:], np.zeros((1, 1), dtype=bool))

    @classmethod
    def box(cls, low: Floats, high: Floats) -> Cone:
        """Return a box, whose bounds may be infinite."""
        region = cls.space(len(low))
        for sign, bounds in ((1, low), (-1, high)):
            for i in np.flatnonzero(np.isfinite(bounds)):
                above, below = float(bounds[i]).as_integer_ratio()
                form = np.array([0] * (len(low) + 1), dtype=object)
                form[i], form[-1] = sign * below, -sign * above
                region = region.cut(form)
        return region

    @classmethod
    def _of(cls, lines: Integers, rays: Integers, tight: Bools) -> Cone:
        return cls(lines, rays, tight, rounded_rows(rays))

    @property
    def certain(self) -> bool:
        """True: the arithmetic is exact."""
        return True

    def sides(self, forms: Integers) -> tuple[Bools, Bools]:
        """Tell where each form is negative somewhere, and where positive."""
        signs, opened = signs_of(self.rounded, rounded_rows(forms))
        for i, j in np.argwhere(opened):
            value = self.rays[i] @ forms[j]
            signs[i, j] = (value > 0) - (value < 0)
        both = (self.lines @ forms.T != 0).any(0)
        return (signs < 0).any(0) | both, (signs > 0).any(0) | both

    def ranges(self, rows: Floats) -> tuple[Floats, Floats]:
        """Return bounds on affine functions, infinite unless the region is bounded."""
        if len(self.lines) or (self.rays[:, -1] == 0).any():
            return np.full(len(rows), -math.inf), np.full(len(rows), math.inf)
        corners = self.rounded / self.rounded[:, -1:]
        values, lost = corners @ rows.T, 8 * len(corners.T) * EPS * (np.abs(corners) @ np.abs(rows).T)
        return (values - lost).min(0), (values + lost).max(0)

    def cut(self, form: Integers) -> Cone:
        """Return the part where a form is positive."""
        values, across = self.rays @ form, self.lines @ form
        crossing = np.flatnonzero(across != 0)
        if not len(crossing):
            return self._split(form, values)
        # A line that crosses becomes a ray; all else is moved along it into the hyperplane.
        first = crossing[0]
        value, line = abs(across[first]), self.lines[first] * (1 if across[first] > 0 else -1)
        lines = np.delete(self.lines, first, 0)
        moved = lines * value - np.outer(np.delete(across, first), line)
        rays = self.rays * value - np.outer(values, line)
        tight = np.ones((len(rays) + 1, self.tight.shape[1] + 1), dtype=bool)
        tight[:-1, :-1] = self.tight
        tight[-1, -1] = False
        return self._of(reduced(moved), np.vstack([reduced(rays), line[None]]), tight)

    def _split(self, form: Integers, values: Integers) -> Cone:
        above, below = np.flatnonzero(values > 0), np.flatnonzero(values < 0)
        kept = np.flatnonzero(values >= 0)
        # An edge joins two rays that share so many hyperplanes, all of which no third ray lies on.
        shared = self.tight[above].astype(np.float32) @ self.tight[below].T.astype(np.float32)
        pairs = np.argwhere(shared >= self.rays.shape[1] - len(self.lines) - 2)
        up, down = above[pairs[:, 0]], below[pairs[:, 1]]
        common = self.tight[up] & self.tight[down]
        on_all = common.astype(np.float32) @ (~self.tight).T.astype(np.float32) == 0
        edges = on_all.sum(1) == 2
        up, down, common = up[edges], down[edges], common[edges]
        fresh = self.rays[down] * values[up][:, None] - self.rays[up] * values[down][:, None]
        tight = np.vstack([self.tight[kept], common])
        zero = np.concatenate([values[kept] == 0, np.ones(len(up), dtype=bool)]).astype(bool)
        return self._of(
            self.lines, np.vstack([self.rays[kept], reduced(fresh)]), np.concatenate([tight, zero[:, None]], 1)
        )

    def point(self) -> Floats | None:
        """Return the middle of the corners, moved along the unbounded directions."""
        corners = self.rays[:, -1] != 0
        vertices = self.rounded[corners, :-1] / self.rounded[corners, -1:]
        middle = vertices.mean(0)
        far: Floats = middle + (1 + np.abs(vertices).max(initial=0)) * self.rounded[~corners, :-1].sum(0)
        return far if np.isfinite(far).all() else None
