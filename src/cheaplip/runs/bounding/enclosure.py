"""What was found of a Lipschitz constant, for people and for pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from pathlib import Path
from typing import Literal, TypeAlias, final

from torch import Tensor

from cheaplip.lipschitz import Bound
from cheaplip.lipschitz.layers import Layer
from cheaplip.lipschitz.upper import EXACT

Verdict: TypeAlias = Literal["refuted", "proven", "open"]

# Numbers below this are written out.
LARGE = 10**7


@final
@dataclass(frozen=True)
class Proof:
    """An upper bound and what it took.

    Args:
        bound: with its certificate.
        seconds: from the model to the bound.
        point: an input in the steepest region, ``(*input)``, where the regions were searched.
    """

    bound: Bound
    seconds: float
    point: Tensor | None = field(default=None, repr=False, compare=False)

    @property
    def exact(self) -> bool:
        """Whether it is the constant itself, up to rounding."""
        return self.bound.method.startswith(EXACT)

    @property
    def finished(self) -> bool:
        """Whether all linear regions were searched that there were to search."""
        return self.point is None or self.exact


@final
@dataclass(frozen=True)
class Enclosure:
    """An interval that holds a Lipschitz constant, and all that was found on the way.

    Args:
        name: of the network.
        p: the norm of inputs and outputs.
        box: where the bounds hold; None for all space.
        lower: the lower bound, with its witness.
        lower_seconds: what it took.
        proofs: the upper bounds by each method, from the loosest to the best; none where the network is not understood.
        why: why there is none.
        layers: of the network, where it is understood.
        claim: what was claimed, if anything.
        remarks: sentences for people.
        files: all files that were written.
    """

    name: str
    p: float
    box: tuple[float, float] | None
    lower: Bound
    lower_seconds: float
    proofs: Sequence[Proof]
    why: str = ""
    layers: Sequence[Layer] = ()
    claim: float | None = None
    remarks: Sequence[str] = field(default=(), compare=False)
    files: Sequence[Path] = field(default=(), compare=False)

    @property
    def upper(self) -> Bound | None:
        """The best upper bound, if there is one."""
        return self.proofs[-1].bound if self.proofs else None

    @property
    def certified(self) -> Bound | None:
        """The best upper bound that has a certificate, if there is one; an exact value has none."""
        return next((proof.bound for proof in reversed(self.proofs) if proof.bound.certificate is not None), None)

    @property
    def telling(self) -> list[Layer]:
        """The layers that change the product, or would: those that hand their input on are left out."""
        found, before = [], 1.0
        for layer in self.layers:
            if layer.constant != 1 or layer.product not in (None, before):
                found.append(layer)
            before = before if layer.product is None else layer.product
        return found or list(self.layers)

    @property
    def ratio(self) -> float | None:
        """How tight the interval is: upper over lower bound; None without an upper bound, or for a constant network."""
        if self.upper is None or not self.lower.value:
            return None
        return self.upper.value / self.lower.value

    @property
    def verdict(self) -> Verdict | None:
        """What became of the claim; None without one."""
        if self.claim is None:
            return None
        if self.lower.proven and self.lower.value > self.claim:
            return "refuted"
        return "proven" if self.upper is not None and self.upper.value <= self.claim else "open"

    @property
    def where(self) -> str:
        """The norm and the domain, in words."""
        return where(self.p, self.box)


def outward(value: float, *, up: bool, digits: int = 5) -> str:
    """Write a bound in so many digits, rounded so that it stays one.

    Example:
        >>> outward(2.000001, up=True), outward(2.999999, up=False)
        ('2.0001', '2.9999')
    """
    if not math.isfinite(value):
        return f"{value:g}"
    short = Context(prec=digits, rounding=ROUND_CEILING if up else ROUND_FLOOR).create_decimal_from_float(value)
    # What is printed is the nearest float's own digits: a number of few digits comes back as it is.
    return f"{float(short):.0f}" if 10**digits <= short < LARGE else f"{float(short):.{digits}g}"


def where(p: float, box: object) -> str:
    """Say in which norm and where a bound holds.

    Example:
        >>> where(2.0, None), where(math.inf, (0.0, 1.0))
        ('2-norm, over all space', '∞-norm, for inputs in the box [0, 1]')
    """
    norm = "∞" if p == math.inf else f"{p:g}"
    if not isinstance(box, (tuple, list)):
        return f"{norm}-norm, over all space"
    sides = ", ".join(f"{side:g}" if isinstance(side, (int, float)) else str(side) for side in box)
    return f"{norm}-norm, for inputs in the box [{sides}]"
