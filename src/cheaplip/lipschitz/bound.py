"""A bound says what it is: value, method, whether it is proven, where it holds, and what attains or proves it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

from torch import Tensor

from cheaplip.lipschitz.certificate import Certificate


@final
@dataclass(frozen=True)
class Bound:
    """One bound on a Lipschitz constant.

    Args:
        value: the bound, in output norm per input norm.
        method: how it was found.
        proven: whether it is a proof (a witness proves a lower bound, up to rounding) or an estimate.
        domain: ``"all"`` for all space or ``"box"`` for the inputs' box.
        witness: for a lower bound, the pair ``(u, v)`` whose difference quotient attains it, ``(*input)`` each.
        certificate: for an upper bound, what proves it again.

    Example:
        >>> float(Bound(2.0, method="pairs", proven=True, domain="all"))
        2.0
    """

    value: float
    method: str
    proven: bool
    domain: str
    witness: tuple[Tensor, Tensor] | None = field(default=None, repr=False, compare=False)
    certificate: Certificate | None = field(default=None, repr=False, compare=False)

    def __float__(self) -> float:
        """Return the value."""
        return self.value


@final
@dataclass(frozen=True)
class Interval:
    """What is known about a Lipschitz constant: it lies between two numbers.

    Args:
        lower: the lower bound, in output norm per input norm; 0 or more.
        upper: the upper bound, at least ``lower``; inf where a product is beyond the range of floats.
        pair: the pair ``(u, v)`` whose difference quotient attains the lower bound, ``(*input)`` each.
        method: how the lower and the upper bound were found.
        certificate: what proves the upper bound again.

    Example:
        >>> import torch
        >>> Interval(1.0, 2.0, (torch.zeros(1), torch.ones(1)), "pairs (ascent); layer product")
        Interval(lower=1.0, upper=2.0, method='pairs (ascent); layer product')
    """

    lower: float
    upper: float
    pair: tuple[Tensor, Tensor] = field(repr=False, compare=False)
    method: str
    certificate: Certificate | None = field(default=None, repr=False, compare=False)
