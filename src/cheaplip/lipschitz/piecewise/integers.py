"""Affine functions in exact arithmetic: rows of integers.

A form is a row of integers ``(a, b)``: the function ``a·x + b`` of the input x, times a positive number. Floating-point
numbers are integers times a power of two, so that nothing is rounded, however deep in a network the form comes from.
"""

from __future__ import annotations

import math
import sys
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

# Python's integers, of any length.
Integers: TypeAlias = "NDArray[np.object_]"
Floats: TypeAlias = "NDArray[np.float64]"
Bools: TypeAlias = "NDArray[np.bool_]"

EPS, TINY = sys.float_info.epsilon, sys.float_info.min
# Products of two numbers below it are 64-bit integers.
PRIME = 2**31 - 1


def places(values: Floats) -> int:
    """Return how many binary places behind the point the numbers need.

    Example:
        >>> places(np.array([3.0, 0.25]))
        2
    """
    return max((number.as_integer_ratio()[1].bit_length() - 1 for number in values.ravel().tolist()), default=0)


def integers(values: Floats, shift: int) -> Integers:
    """Return numbers times ``2**shift``, which must be integers.

    Example:
        >>> integers(np.array([3.0, 0.25]), 2).tolist()
        [12, 1]
    """
    ratios = [number.as_integer_ratio() for number in values.ravel().tolist()]
    whole = [above * ((1 << shift) // below) for above, below in ratios]
    return np.array(whole, dtype=object).reshape(values.shape)


def floats(values: Integers, shift: int) -> Floats:
    """Return integers divided by ``2**shift``, to the nearest; infinite beyond the range of floats.

    Example:
        >>> floats(np.array([12, 1], dtype=object), 2).tolist()
        [3.0, 0.25]
    """
    below = 1 << shift

    def one(above: int) -> float:
        try:
            return above / below
        except OverflowError:
            return math.inf if above > 0 else -math.inf

    return np.array([one(value) for value in values.ravel().tolist()], dtype=np.float64).reshape(values.shape)


def independent(rows: Integers) -> list[int]:
    """Return columns in which the rows have their full rank, as many as that rank.

    Example:
        >>> independent(np.array([[0, 1, 2], [0, 2, 4], [0, 0, 3]], dtype=object))
        [1, 2]
    """
    left = [np.array(row, dtype=object) for row in sorted({tuple(primitive(row)) for row in rows if row.any()})]
    columns = _independent_modulo(left)
    if len(columns) == len(left):
        return columns
    columns = []
    while left:
        pivot = left.pop()
        column = max(range(len(pivot)), key=[abs(number) for number in pivot].__getitem__)
        columns.append(column)
        left = [primitive(row * pivot[column] - pivot * row[column]) for row in left]
        left = [row for row in left if row.any()]
    return sorted(columns)


def _independent_modulo(rows: list[Integers]) -> list[int]:
    """Return columns in which the rows have some rank modulo a prime, which is at most their rank."""
    left = np.array([[number % PRIME for number in row] for row in rows], dtype=np.int64)
    columns = []
    while len(left):
        found = np.flatnonzero(left[0])
        if len(found):
            columns.append(int(found[0]))
            pivot = left[0] * pow(int(left[0, found[0]]), -1, PRIME) % PRIME
            left = (left - np.outer(left[:, found[0]], pivot)) % PRIME
        left = left[1:]
    return sorted(columns)


def cancelling(rows: Integers) -> Integers | None:
    """Return integers, the last above 0, times which the rows add up to zero, if only the last depends on the others.

    Example:
        >>> cancelling(np.array([[1, 2], [1, 0], [-4, -2]], dtype=object))
        array([1, 3, 1], dtype=object)
    """
    count, width = rows.shape
    pivots: list[tuple[int, Integers]] = []
    for row in np.append(rows, np.eye(count, dtype=int).astype(object), 1):
        for column, pivot in pivots:
            row = primitive(row * pivot[column] - pivot * row[column])
        columns = np.flatnonzero(row[:width])
        if not len(columns):
            return row[width:] * (1 if row[-1] > 0 else -1) if row[-1] else None
        pivots.append((int(columns[0]), row))
    return None


def primitive(row: Integers) -> Integers:
    """Return the row divided by its greatest common divisor."""
    divisor = math.gcd(*row)
    return row // divisor if divisor > 1 else row


def rounded_rows(rows: Integers) -> Floats:
    """Return the rows as floats, each scaled to a largest entry of 1."""
    scaled = [[number / top for number in row] for row in rows.tolist() for top in [max(map(abs, row), default=0) or 1]]
    return np.array(scaled, dtype=np.float64).reshape(rows.shape)


def signs_of(points: Floats, forms: Floats) -> tuple[Floats, Bools]:
    """Return the sign of each form at each point, and where rounding leaves it open."""
    values = points @ forms.T
    lost = 4 * (forms.shape[1] + 2) * EPS * (np.abs(points) @ np.abs(forms).T) + TINY
    return np.sign(values), np.abs(values) <= lost


def reduced(rows: Integers) -> Integers:
    """Return each row divided by its greatest common divisor."""
    return np.array([primitive(row) for row in rows], dtype=object).reshape(rows.shape)
