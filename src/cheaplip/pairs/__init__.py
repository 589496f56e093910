"""X_Lip, the pairs of inputs on which a Lipschitz constant is measured: how they start, move and are renewed."""

from cheaplip.pairs.motion import Measurement, Pairs, Search
from cheaplip.pairs.starts import STARTS, Start, scale_of

__all__ = ["STARTS", "Measurement", "Pairs", "Search", "Start", "scale_of"]
