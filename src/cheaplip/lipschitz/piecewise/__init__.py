"""The exact Lipschitz constant of a small piecewise-linear network, by branch and bound over its linear regions."""

from __future__ import annotations

from cheaplip.lipschitz.piecewise.value import Exact, exact

__all__ = ["Exact", "exact"]
