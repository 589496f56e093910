"""One self-contained HTML page about one run or several: no request leaves it."""

from __future__ import annotations

from cheaplip.report.page import write_report

__all__ = ["write_report"]
