"""Run folders: train into one, attack what lies in one, bound its Lipschitz constant, load one."""

from __future__ import annotations

from cheaplip.runs.attacking import evaluate_run
from cheaplip.runs.bounding import Enclosure, Verified, bound, verify
from cheaplip.runs.folder import Config, epochs_done, finished, load, read_config, read_result
from cheaplip.runs.parts import device_of
from cheaplip.runs.pipeline import folder_of, train

__all__ = [
    "Config",
    "Enclosure",
    "Verified",
    "bound",
    "device_of",
    "epochs_done",
    "evaluate_run",
    "finished",
    "folder_of",
    "load",
    "read_config",
    "read_result",
    "train",
    "verify",
]
