"""How large is the Lipschitz constant of a model? Lower bounds, each with a witness."""

from __future__ import annotations

from cheaplip.lipschitz.bound import Bound
from cheaplip.lipschitz.lower import lower

__all__ = ["Bound", "lower"]
