"""X_Lip, the pairs of inputs on which a Lipschitz constant is measured: how they start, move and are renewed."""

from __future__ import annotations

from cheaplip.pairs.measurement import Measurement
from cheaplip.pairs.motion import Pairs
from cheaplip.pairs.search import SEARCHES, Search
from cheaplip.pairs.starts import STARTS, Start, scale_of

__all__ = ["SEARCHES", "STARTS", "Measurement", "Pairs", "Search", "Start", "scale_of"]
