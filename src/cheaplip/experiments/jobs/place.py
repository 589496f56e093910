"""Where jobs run, and how many at a time."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

from cheaplip.experiments.jobs.job import Engine
from cheaplip.settings import ReproduceSettings, SweepSettings


@final
@dataclass(frozen=True)
class Place:
    """Where jobs run, and how many at a time.

    Args:
        workers: how many at a time, at least 1; None for one per core.
        engine: ``"local"``, processes of this machine, or ``"ray"``.
        address: of a Ray cluster that runs; None for ``RAY_ADDRESS``, else a Ray of our own on this machine.
        folder: where the jobs write, which every worker must see; None if they write nothing.
        gpu: whether each job wants a GPU of its own, which Ray gives out.

    Raises:
        ValueError: for fewer than one worker.
    """

    workers: int | None = None
    engine: Literal["local", "ray"] = "local"
    address: str | None = None
    folder: Path | None = None
    gpu: bool = False

    def __post_init__(self) -> None:
        """Check the number of workers."""
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"jobs must be a whole number of at least 1; got {self.workers}")

    @classmethod
    def of(cls, settings: ReproduceSettings | SweepSettings, folder: Path, *, gpu: bool = False) -> Place:
        """Return the place that settings name.

        Args:
            settings: of a command.
            folder: where its jobs write.
            gpu: whether each of them wants a GPU.
        """
        return cls(settings.jobs, settings.engine, settings.address, folder, gpu)

    def start(self, jobs: int) -> Engine:
        """Start workers for so many jobs.

        Raises:
            ImportError: if Ray is missing; it names the extra to install.
            OSError: if Ray does not start, or its cluster is not there.
            ValueError: for a folder or an address that cannot be used.
        """
        if self.engine == "ray":
            from cheaplip.experiments.jobs.on_ray import OnRay

            return OnRay(self, jobs)
        from cheaplip.experiments.jobs.local import Local

        return Local(min(jobs, self.workers or cores()))


def cores() -> int:
    """Return how many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have none
        return os.cpu_count() or 1
