"""Run folders: train into one, attack what lies in one, load one."""

from __future__ import annotations

from cheaplip.runs.attacking import evaluate_run
from cheaplip.runs.folder import Config, epochs_done, finished, load, read_config, read_result
from cheaplip.runs.parts import device_of
from cheaplip.runs.pipeline import folder_of, train

__all__ = [
    "Config",
    "device_of",
    "epochs_done",
    "evaluate_run",
    "finished",
    "folder_of",
    "load",
    "read_config",
    "read_result",
    "train",
]
