"""The settings of ``cheaplip sweep`` and of :func:`cheaplip.experiments.sweep`, beside the grid itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, final

from cheaplip.settings.about import About, check
from cheaplip.settings.engine import Address, EngineName, Jobs, check_engine


@final
@dataclass(frozen=True)
class SweepSettings:
    """Where the runs of a sweep are done, and where to.

    Raises:
        TypeError: for a value of another type.
        ValueError: for a value out of range, or an address without the engine ray.

    Example:
        >>> SweepSettings(jobs=2).engine
        'local'
    """

    jobs: Jobs = None
    engine: EngineName = "local"
    address: Address = None
    out: Annotated[str | None, About("the folder of the runs; null: runs/NAME of the grid's file")] = None

    def __post_init__(self) -> None:
        """Check types and ranges."""
        check(self)
        check_engine(self.engine, self.address)
