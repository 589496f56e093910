"""Training: the joint loop on Lightning Fabric, its history and its checkpoints."""

from __future__ import annotations

from cheaplip.training.fit import fit
from cheaplip.training.history import History

__all__ = ["History", "fit"]
