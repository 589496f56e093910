"""Independent jobs, many at a time, on this machine's cores or by Ray; one whose worker died is tried again."""

from __future__ import annotations

from cheaplip.experiments.jobs.job import Job
from cheaplip.experiments.jobs.place import Place, cores
from cheaplip.experiments.jobs.running import run_all

__all__ = ["Job", "Place", "cores", "run_all"]
