"""How large is the Lipschitz constant of a model? Lower bounds, each with a witness."""

from cheaplip.lipschitz.bound import Bound
from cheaplip.lipschitz.lower import lower

__all__ = ["Bound", "lower"]
