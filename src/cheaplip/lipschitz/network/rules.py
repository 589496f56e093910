"""What is known about a layer: its constant, its matrix if it is linear, its slopes if it works unit by unit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, final

from torch import Tensor

from cheaplip.lipschitz.system import Pieces

Shape: TypeAlias = "tuple[int, ...]"


@final
@dataclass(frozen=True)
class LinearMap:
    """A linear layer, sample by sample, in float64 on the CPU.

    Args:
        apply: ``(n, *input) -> (n, *output)``, without the offset.
        magnitude: the same with the absolute value of every weight.
        offset: what is added, ``(*output)``; None for nothing.
        terms: the absolute values that the offset was summed up from, at least its own; None where it was not.
        exact: whether every entry of its matrix is a weight as it is, so that writing the matrix down rounds nothing.
        moves: whether it only moves numbers about, which rounds nothing.
        factors: where it multiplies each channel by a number, these numbers, ``(channels,)``.
        rescaled: the rule of the same layer followed by such factors, where that is again a layer of its kind.
    """

    apply: Callable[[Tensor], Tensor]
    magnitude: Callable[[Tensor], Tensor]
    offset: Tensor | None = None
    exact: bool = True
    moves: bool = False
    factors: Tensor | None = None
    rescaled: Callable[[Tensor], Rule] | None = None
    terms: Tensor | None = None

    def offset_size(self) -> Tensor | float:
        """Return what rounding of the offset is relative to."""
        if self.terms is not None:
            return self.terms
        return 0.0 if self.offset is None else self.offset.abs()


@final
@dataclass(frozen=True)
class Elementwise:
    """A layer that works unit by unit, in float64 on the CPU.

    Args:
        function: ``(n, *shape) -> (n, *shape)``.
        slopes: for bounds ``low <= z <= high`` of each unit, infinite ones allowed, the least and the largest slope in
            between, ``(*shape)`` each.
        pieces: where the function is piecewise linear.
    """

    function: Callable[[Tensor], Tensor]
    slopes: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    pieces: Pieces | None = None


@final
@dataclass(frozen=True)
class Rule:
    """What is known about one layer on inputs of one shape.

    Args:
        constant: its Lipschitz constant from the p-norm to the p-norm, for p = 1, 2 or inf, proven, rounded outward.
        linear: where it is linear (with an offset).
        elementwise: where it works unit by unit.
        function: where it is neither, ``(n, *input) -> (n, *output)`` in float64, to bound its outputs over a box.
        rises: whether no output of this function falls when an input rises.
    """

    constant: Callable[[float], float]
    linear: LinearMap | None = None
    elementwise: Elementwise | None = None
    function: Callable[[Tensor], Tensor] | None = None
    rises: bool = False
