"""bound() and verify(): what the command ``cheaplip bounds`` does."""

from __future__ import annotations

from cheaplip.runs.bounding.enclosure import Enclosure, Proof, Verdict, outward
from cheaplip.runs.bounding.verifying import Verified, verify
from cheaplip.runs.bounding.work import bound

__all__ = ["Enclosure", "Proof", "Verdict", "Verified", "bound", "outward", "verify"]
