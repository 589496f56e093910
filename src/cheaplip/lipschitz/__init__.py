"""How large is the Lipschitz constant of a model? Lower bounds with a witness, proven upper bounds."""

from __future__ import annotations

from cheaplip.lipschitz.bound import Bound, Interval
from cheaplip.lipschitz.lower import lower
from cheaplip.lipschitz.upper import bounds, upper

__all__ = ["Bound", "Interval", "bounds", "lower", "upper"]
