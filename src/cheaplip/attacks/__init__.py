"""What breaks f? Every attack is called as ``attack(model, x, y)`` and says by ``.threat`` how far it may go."""

from __future__ import annotations

from cheaplip.attacks.doubts import doubts
from cheaplip.attacks.gradient import PGD, PaperPGD, one_step
from cheaplip.attacks.noise import Gaussian
from cheaplip.attacks.protocol import Attack, Threat
from cheaplip.attacks.registry import NAMES, named, suite

__all__ = ["NAMES", "PGD", "Attack", "Gaussian", "PaperPGD", "Threat", "doubts", "named", "one_step", "suite"]
