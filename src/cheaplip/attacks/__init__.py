"""What breaks f? Every attack is called as ``attack(model, x, y)`` and says by ``.threat`` how far it may go."""

from __future__ import annotations

from cheaplip.attacks.bisection import Bisection
from cheaplip.attacks.closest import Closest, closest
from cheaplip.attacks.doubts import doubts
from cheaplip.attacks.gradient import PGD, PaperPGD, one_step
from cheaplip.attacks.libraries import (
    APGD,
    DDN,
    FAB,
    AutoAttack,
    Boundary,
    CarliniWagner,
    DeepFool,
    HopSkipJump,
    Square,
)
from cheaplip.attacks.nes import NES
from cheaplip.attacks.nes_labels import NESLabels
from cheaplip.attacks.noise import Gaussian
from cheaplip.attacks.patch import Patch, Success, success
from cheaplip.attacks.patch_training import easiest_target, train_patch
from cheaplip.attacks.protocol import Attack, Threat
from cheaplip.attacks.queries import Queries, queries_of
from cheaplip.attacks.registry import NAMES, named, suite

__all__ = [
    "APGD",
    "DDN",
    "FAB",
    "NAMES",
    "NES",
    "PGD",
    "Attack",
    "AutoAttack",
    "Bisection",
    "Boundary",
    "CarliniWagner",
    "Closest",
    "DeepFool",
    "Gaussian",
    "HopSkipJump",
    "NESLabels",
    "PaperPGD",
    "Patch",
    "Queries",
    "Square",
    "Success",
    "Threat",
    "closest",
    "doubts",
    "easiest_target",
    "named",
    "one_step",
    "queries_of",
    "success",
    "suite",
    "train_patch",
]
