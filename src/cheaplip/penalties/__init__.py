"""Penalties: scalars of a model that a training loop adds to its loss.

A penalty is anything with ``penalty(model) -> scalar tensor`` and a ``weight`` that a control may change.
"""

from __future__ import annotations

from cheaplip.penalties.certified import MarginLoss, UpperBoundPenalty
from cheaplip.penalties.layers import LayerProductPenalty
from cheaplip.penalties.lipschitz import LipschitzPenalty
from cheaplip.penalties.weight import WeightPenalty

__all__ = ["LayerProductPenalty", "LipschitzPenalty", "MarginLoss", "UpperBoundPenalty", "WeightPenalty"]
