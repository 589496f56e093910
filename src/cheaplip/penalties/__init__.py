"""Penalties: scalars of a model that a training loop adds to its loss.

A penalty is anything with ``penalty(model) -> scalar tensor`` and a ``weight`` that a control may change. One with
``needs_batch`` is called as ``penalty(model, x)``; one with ``joint`` shares the minibatch's forward.
"""

from __future__ import annotations

from cheaplip.penalties.adversarial import AdversarialLipschitzPenalty
from cheaplip.penalties.certified import MarginLoss, UpperBoundPenalty
from cheaplip.penalties.jacobian import JacobianPenalty
from cheaplip.penalties.layers import LayerProductPenalty
from cheaplip.penalties.lipschitz import LipschitzPenalty
from cheaplip.penalties.ranks import agree, spread
from cheaplip.penalties.trades import TradesPenalty
from cheaplip.penalties.weight import WeightPenalty

__all__ = [
    "AdversarialLipschitzPenalty",
    "JacobianPenalty",
    "LayerProductPenalty",
    "LipschitzPenalty",
    "MarginLoss",
    "TradesPenalty",
    "UpperBoundPenalty",
    "WeightPenalty",
    "agree",
    "spread",
]
