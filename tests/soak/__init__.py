"""The long forms of tests: minutes instead of seconds, run by hand; docs/reliability.md has what they found."""

from __future__ import annotations
