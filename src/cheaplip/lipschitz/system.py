"""A network as its equations: layers of units, each fed by matrices from the input and from all layers before it.

Linear layers, sums, concatenations and reshapes have vanished into the matrices, so that a residual network is no other
case than a chain. Everything is float64 on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, final

import torch
from torch import Tensor

# From the input (the first) and from each layer of units: (rows, size of the source), or None where there is no path.
Matrices: TypeAlias = "tuple[Tensor | None, ...]"


@final
@dataclass(frozen=True)
class Pieces:
    """What piecewise-linear units are made of: the slope of unit i is ``slopes[i, k]`` between its breaks k-1 and k.

    Args:
        breaks: where the slopes change, rising along each row, ``(n, m)``.
        slopes: from left to right, ``(n, m + 1)``.
    """

    breaks: Tensor
    slopes: Tensor


@final
@dataclass(frozen=True)
class Units:
    """A layer of units, ``x_k = φ(Σ_j A_j x_j + b)``, elementwise.

    Args:
        name: what to call it, a dotted module name.
        weights: ``A_j``, one for the input and one for each layer before this.
        offset: ``b``, ``(n,)``.
        low: the least slope of each unit, ``(n,)``.
        high: the largest, ``(n,)``.
        function: φ, of ``(..., n)``.
        pieces: where φ is piecewise linear.
        sizes: for entries of the weights that rounding may have changed, bounds of their absolute values and of those
            of all terms they were summed up from; None where every entry is exact.
    """

    name: str
    weights: Matrices
    offset: Tensor
    low: Tensor
    high: Tensor
    function: Callable[[Tensor], Tensor] = field(repr=False, compare=False)
    pieces: Pieces | None = None
    sizes: Matrices | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        """Return the number of units."""
        return len(self.offset)


@final
@dataclass(frozen=True)
class System:
    """A whole network, ``y = Σ_j A_j x_j + b`` of the input ``x_0`` and layers of units ``x_1 ... x_l``.

    Args:
        inputs: the number of inputs.
        units: the layers, in order.
        weights: ``A_j`` of the output, one for the input and one for each layer.
        offset: ``b`` of the output.
        sizes: of the output's weights, as those of :class:`Units`.
        terms: how many roundings are behind any entry of the weights, at most, each relative to its size.

    Example:
        >>> one = torch.ones(1, 1, dtype=torch.float64)
        >>> zero, top = one.new_zeros(1), one.new_ones(1)
        >>> units = Units("act", (one,), zero, zero, top, torch.relu)
        >>> system = System(1, (units,), (one, -one), zero)  # x - relu(x)
        >>> system(torch.tensor([[-2.0], [3.0]], dtype=torch.float64)).tolist()
        [[-2.0], [0.0]]
    """

    inputs: int
    units: tuple[Units, ...]
    weights: Matrices
    offset: Tensor
    sizes: Matrices | None = field(default=None, repr=False, compare=False)
    terms: int = 0

    def __call__(self, x: Tensor) -> Tensor:
        """Return the outputs, ``(n, outputs)``, of flattened inputs ``(n, inputs)``."""
        values = [x]
        for layer in self.units:
            values.append(layer.function(combine(layer.weights, values) + layer.offset))
        return combine(self.weights, values) + self.offset

    @property
    def sizes_of_layers(self) -> tuple[int, ...]:
        """The number of inputs, then of the units of each layer."""
        return (self.inputs, *map(len, self.units))


def combine(weights: Matrices, values: Sequence[Tensor]) -> Tensor:
    """Return ``Σ_j A_j x_j`` of rows ``x_j``, each ``(n, size)``."""
    terms = [value @ weight.T for weight, value in zip(weights, values, strict=True) if weight is not None]
    return torch.stack(terms).sum(0) if terms else values[0].new_zeros(len(values[0]), 1)
