"""Attacks of other libraries behind our protocol: AutoAttack (pyautoattack), and foolbox's minimal-norm attacks.

A library is imported when its attack is called, and wants ``pip install "cheaplip[attacks]"``. Whatever the library
is used to, the caller's side is that of every attack here: any box, float64, flat images, any callable, and a model,
a random state and a batch that are left alone.
"""

from __future__ import annotations

from cheaplip.attacks.libraries.apgd import APGD, AutoAttack
from cheaplip.attacks.libraries.decisions import Boundary, HopSkipJump
from cheaplip.attacks.libraries.fab import FAB
from cheaplip.attacks.libraries.foolbox import DDN, CarliniWagner, DeepFool
from cheaplip.attacks.libraries.square import Square

__all__ = ["APGD", "DDN", "FAB", "AutoAttack", "Boundary", "CarliniWagner", "DeepFool", "HopSkipJump", "Square"]
