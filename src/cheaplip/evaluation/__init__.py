"""How accurate is f: on clean, noisy and attacked images, with intervals, and without trusting the attack."""

from __future__ import annotations

from cheaplip.counting import wilson
from cheaplip.evaluation.harness import evaluate
from cheaplip.evaluation.results import Result, Results

__all__ = ["Result", "Results", "evaluate", "wilson"]
