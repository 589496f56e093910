"""Cheap Lipschitz training of neural networks (CLIP, arXiv 2103.12531), for PyTorch.

``LipschitzPenalty`` and ``Discrepancy`` go into a training loop of your own; ``fit`` is such a loop. ``evaluate`` with
``attacks`` tells how robust a network is, ``lipschitz`` how steep, and ``load`` gives the network of a run folder.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cheaplip import attacks, lipschitz
    from cheaplip.control import Discrepancy
    from cheaplip.evaluation import evaluate
    from cheaplip.penalties import (
        AdversarialLipschitzPenalty,
        JacobianPenalty,
        LayerProductPenalty,
        LipschitzPenalty,
        MarginLoss,
        TradesPenalty,
        UpperBoundPenalty,
        WeightPenalty,
        agree,
        spread,
    )
    from cheaplip.runs import load
    from cheaplip.training import History, fit

__version__ = version("cheaplip")
__all__ = [
    "AdversarialLipschitzPenalty",
    "Discrepancy",
    "History",
    "JacobianPenalty",
    "LayerProductPenalty",
    "LipschitzPenalty",
    "MarginLoss",
    "TradesPenalty",
    "UpperBoundPenalty",
    "WeightPenalty",
    "agree",
    "attacks",
    "evaluate",
    "fit",
    "lipschitz",
    "load",
    "spread",
]

# Loaded on first use (PEP 562): a command's help need not wait for torch, and the upper floors need more than torch.
_LATER = {
    "AdversarialLipschitzPenalty": "cheaplip.penalties",
    "Discrepancy": "cheaplip.control",
    "History": "cheaplip.training",
    "JacobianPenalty": "cheaplip.penalties",
    "LayerProductPenalty": "cheaplip.penalties",
    "LipschitzPenalty": "cheaplip.penalties",
    "MarginLoss": "cheaplip.penalties",
    "TradesPenalty": "cheaplip.penalties",
    "UpperBoundPenalty": "cheaplip.penalties",
    "WeightPenalty": "cheaplip.penalties",
    "agree": "cheaplip.penalties",
    "evaluate": "cheaplip.evaluation",
    "fit": "cheaplip.training",
    "load": "cheaplip.runs",
    "spread": "cheaplip.penalties",
}


def __getattr__(name: str) -> Any:
    if name in ("attacks", "lipschitz"):
        return import_module(f"cheaplip.{name}")
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module 'cheaplip' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
