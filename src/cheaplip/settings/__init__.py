"""All settings of a training run and of other commands: their types, ranges, meaning and defaults, each in one place.

Nothing here loads torch, so that ``cheaplip train --help`` is quick.
"""

from __future__ import annotations

from cheaplip.settings.about import About, Setting, expected, from_mapping, settings_of
from cheaplip.settings.bounds import BoundsSettings
from cheaplip.settings.penalties import AlpSettings, JacobianSettings, LipschitzSettings, TradesSettings
from cheaplip.settings.reproduce import ReproduceSettings
from cheaplip.settings.sweep import SweepSettings
from cheaplip.settings.train import ControlSettings, TrainSettings

__all__ = [
    "About",
    "AlpSettings",
    "BoundsSettings",
    "ControlSettings",
    "JacobianSettings",
    "LipschitzSettings",
    "ReproduceSettings",
    "Setting",
    "SweepSettings",
    "TradesSettings",
    "TrainSettings",
    "expected",
    "from_mapping",
    "settings_of",
]
