"""Run folders: train into one, attack what lies in one, bound its Lipschitz constant, load one."""

from __future__ import annotations

from cheaplip.runs.attacking import evaluate_run
from cheaplip.runs.bounding import Enclosure, Verified, bound, verify
from cheaplip.runs.comparing import Compared, Comparison, compare
from cheaplip.runs.folder import Config, epochs_done, finished, load, read_config, read_result
from cheaplip.runs.parts import device_of
from cheaplip.runs.pipeline import folder_of, train
from cheaplip.runs.processes import leading
from cheaplip.runs.samples import Samples, read_samples, shortest

__all__ = [
    "Compared",
    "Comparison",
    "Config",
    "Enclosure",
    "Samples",
    "Verified",
    "bound",
    "compare",
    "device_of",
    "epochs_done",
    "evaluate_run",
    "finished",
    "folder_of",
    "leading",
    "load",
    "read_config",
    "read_result",
    "read_samples",
    "shortest",
    "train",
    "verify",
]
