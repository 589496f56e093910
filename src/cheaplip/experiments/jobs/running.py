"""run_all(): give jobs to workers, begin those anew whose worker died, and tell how far they are."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, final

from cheaplip.experiments.jobs.job import Answer, Engine, Job, packed
from cheaplip.experiments.jobs.place import Place

LOOK = 0.5  # seconds from one look at the jobs to the next
TRIES = 3  # of a job whose worker dies


def run_all(
    jobs: Sequence[Job],
    place: Place | None = None,
    *,
    title: str = "",
    progress: bool = False,
    keep_going: bool = False,
) -> list[Any]:
    """Run jobs in other processes, one thread each, and return what they return, in their order.

    A job whose worker died, by a signal or for want of memory, is begun again, at most twice.

    Args:
        jobs: what to do.
        place: where, and how many at a time; by default on this machine, one per core.
        title: what the bar says.
        progress: show a bar with how far and how long.
        keep_going: do the others when a job fails, and return its error in its place.

    Raises:
        ChildProcessError: if the worker of a job died three times.
        Exception: what a job raised first; jobs that run are stopped, finished ones are done. See also
            :meth:`Place.start`.

    Example:
        >>> run_all([Job("a", pow, (2, 3)), Job("b", pow, (3, 2))], Place(workers=1))
        [8, 9]
    """
    if not jobs:
        return []
    run = _Run(jobs, [packed(job) for job in jobs])
    with _bar(title, sum(job.units for job in jobs), progress) as bar:
        engine = (place or Place()).start(len(jobs))
        try:
            while len(run.answers) < len(jobs):
                run.step(engine, bar, keep_going)
                bar.show(run.done(), ", ".join(jobs[k].name for k in run.running))
        finally:
            engine.close()  # every file is written whole, so a worker may stop anywhere
    return [run.answers[k].error or run.answers[k].value for k in range(len(jobs))]


@final
class _Run:
    """What of the jobs waits, runs and is done."""

    def __init__(self, jobs: Sequence[Job], works: Sequence[bytes]) -> None:
        self.jobs, self.works = jobs, works
        self.waiting = deque(range(len(jobs)))
        self.running: list[int] = []
        self.tries = [0] * len(jobs)
        self.answers: dict[int, Answer] = {}

    def done(self) -> float:
        """Return how many units are done by now."""
        parts = [self.jobs[k].units for k in self.answers]
        for job in (self.jobs[k] for k in self.running):
            parts.append(0.0 if job.done is None else min(job.units, job.done()))
        return sum(parts)

    def step(self, engine: Engine, bar: _Bar, keep_going: bool) -> None:
        """Give out what waits, and take what ends within a while."""
        while self.waiting and len(self.running) < engine.workers:
            number = self.waiting.popleft()
            self.tries[number] += 1
            self.running.append(number)
            engine.give(number, self.works[number])
        for number, answer in engine.ended(LOOK):
            self.running.remove(number)
            name = self.jobs[number].name
            if answer is None and self.tries[number] < TRIES:
                bar.say(
                    f"the worker of {name} died: it goes on from what it kept, try {self.tries[number] + 1} of {TRIES}"
                )
                self.waiting.appendleft(number)
                continue
            if answer is None:
                answer = Answer(error=_died(name))
            self.answers[number] = answer
            if answer.error is not None and not keep_going:
                raise answer.error from (RuntimeError(f"in a worker:\n{answer.told}") if answer.told else None)


def _died(name: str) -> ChildProcessError:
    return ChildProcessError(
        f"the worker of {name} died {TRIES} times (killed, or out of memory); finished runs are kept: "
        "give the command again, perhaps with fewer --jobs"
    )


@final
class _Bar(NamedTuple):
    show: Callable[[float, str], None]  # how far the jobs are, and which run
    say: Callable[[str], None]  # a line on standard error


def _say(text: str) -> None:
    print(text, file=sys.stderr)


@contextmanager
def _bar(title: str, total: float, shown: bool) -> Iterator[_Bar]:
    if not shown:
        yield _Bar(lambda done, text: None, _say)
        return
    from rich import progress
    from rich.console import Console

    begun = time.perf_counter()
    columns = (
        progress.TextColumn("{task.fields[title]}", markup=False),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.description}", markup=False),
    )
    with progress.Progress(*columns, console=Console(stderr=True), speed_estimate_period=3600) as bar:
        task = bar.add_task("", total=total, title=title)

        def show(done: float, text: str) -> None:
            bar.update(task, completed=done, description=text)

        yield _Bar(show, lambda text: bar.console.print(text, markup=False, highlight=False))
        bar.update(task, completed=total, description=f"{time.perf_counter() - begun:.0f} s")
