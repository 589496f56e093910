"""How large is the Lipschitz constant of a model? Lower bounds with a witness, proven upper bounds, certified radii."""

from __future__ import annotations

from cheaplip.lipschitz.bound import Bound, Interval
from cheaplip.lipschitz.certificate import Certificate, load
from cheaplip.lipschitz.certify import Certified, certify
from cheaplip.lipschitz.enclosing import bounds, check
from cheaplip.lipschitz.lower import lower
from cheaplip.lipschitz.network import register
from cheaplip.lipschitz.upper import upper

__all__ = [
    "Bound",
    "Certificate",
    "Certified",
    "Interval",
    "bounds",
    "certify",
    "check",
    "load",
    "lower",
    "register",
    "upper",
]
