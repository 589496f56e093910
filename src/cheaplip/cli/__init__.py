"""The command ``cheaplip``: it parses, calls the library and prints.

Whatever is heavy is imported inside functions: ``cheaplip --help`` is quick.
"""

from __future__ import annotations

from cheaplip.cli.main import main

__all__ = ["main"]
