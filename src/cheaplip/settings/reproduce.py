"""The settings of ``cheaplip reproduce`` and of :func:`cheaplip.experiments.reproduce`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, final

from cheaplip.settings.about import About, check
from cheaplip.settings.engine import Address, EngineName, Jobs, check_engine


@final
@dataclass(frozen=True)
class ReproduceSettings:
    """What of an experiment is run, on what, and where to; None is the experiment's own choice.

    Raises:
        TypeError: for a value of another type.
        ValueError: for a value out of range, or an address without the engine ray.

    Example:
        >>> ReproduceSettings(seeds=3).seeds
        3
    """

    data: Annotated[
        str | None,
        About("table1: mnist, fashion-mnist or digits, null: the first two; figure1: these, null: fashion-mnist"),
    ] = None
    data_dir: Annotated[str | None, About("the data folder; null: CHEAPLIP_DATA, ./data or the user's cache")] = None
    seeds: Annotated[int, About("how many seeds, from 0 on; pictures show the first", low=1)] = 1
    epochs: Annotated[int | None, About("passes over the training split; null: the experiment's own", low=1)] = None
    limit: Annotated[int | None, About("table1: attack the first N test images; null: 1000", low=1)] = None
    run: Annotated[str | None, About("figure1: show the network of this run folder instead of training one")] = None
    jobs: Jobs = None
    engine: EngineName = "local"
    address: Address = None
    device: Annotated[Literal["auto", "cpu", "cuda"], About("auto: cuda where there is one")] = "auto"
    out: Annotated[str | None, About("the folder of the results; null: runs/EXPERIMENT")] = None

    def __post_init__(self) -> None:
        """Check types and ranges."""
        check(self)
        check_engine(self.engine, self.address)
