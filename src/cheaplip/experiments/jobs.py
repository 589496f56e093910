"""Independent jobs on all cores: one process and one thread each, finished ones kept, a bar for all."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from types import FrameType
from typing import Any, final

LOOK = 0.5  # seconds from one look at the jobs to the next
GRACE = 5.0  # seconds that a stopped job has to clean up


@final
@dataclass(frozen=True)
class Job:
    """One piece of work that depends on no other.

    Args:
        name: what it is called in the bar and in errors.
        call: a function of a module, as it is sent to another process.
        arguments: of the function; they and what it returns are sent between processes.
        units: how much work it is, beside the others.
        done: how many units are done by now, looked at while it runs; None if one cannot tell.
    """

    name: str
    call: Callable[..., Any]
    arguments: tuple[Any, ...]
    units: float = 1.0
    done: Callable[[], float] | None = None


def cores() -> int:
    """Return how many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have none
        return os.cpu_count() or 1


def run_all(jobs: Sequence[Job], workers: int | None = None, *, title: str = "", progress: bool = False) -> list[Any]:
    """Run jobs in other processes, one thread each, and return what they return, in their order.

    Args:
        jobs: what to do.
        workers: how many at a time, at least 1; None for one per core.
        title: what the bar says.
        progress: show a bar with how far and how long.

    Raises:
        ValueError: for fewer than one worker.
        RuntimeError: if a process died.
        Exception: what a job raised first; jobs that run are stopped, finished ones are done.

    Example:
        >>> run_all([Job("a", pow, (2, 3)), Job("b", pow, (3, 2))], workers=1)
        [8, 9]
    """
    if workers is not None and workers < 1:
        raise ValueError(f"jobs must be a whole number of at least 1; got {workers}")
    if not jobs:
        return []
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    count = min(len(jobs), workers or cores())
    with _bar(title, sum(job.units for job in jobs), progress) as show:
        pool = ProcessPoolExecutor(count, context, initializer=_begin, initargs=(stop,))
        try:
            futures = [pool.submit(_perform, job.call, job.arguments) for job in jobs]
            _watch(jobs, futures, show)
            return [future.result() for future in futures]
        except BrokenProcessPool as error:
            raise RuntimeError(
                "a process of the experiment died (killed, or out of memory); finished runs are kept: "
                "give the command again, perhaps with fewer --jobs"
            ) from error
        except BaseException:
            stop.set()  # every file is written whole, so a process may stop anywhere
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _watch(jobs: Sequence[Job], futures: Sequence[Future[Any]], show: Callable[[float, str], None]) -> None:
    """Wait for all jobs, or for the first that raises, and tell how far they are."""
    waiting = set(futures)
    while waiting:
        ended, waiting = wait(waiting, timeout=LOOK, return_when=FIRST_COMPLETED)
        for future in ended:
            future.result()
        pairs = list(zip(jobs, futures, strict=True))
        running = [job for job, future in pairs if future.running() and not future.done()]
        done = sum(job.units for job, future in pairs if future.done())
        done += sum(min(job.units, job.done()) for job in running if job.done is not None)
        show(done, ", ".join(job.name for job in running))


def _begin(stop: Event) -> None:
    """Prepare a process: one thread, deaf to Ctrl-C (its parent hears it), and gone when its parent is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    import torch  # only now, as the libraries below it read their threads when they are loaded

    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        while not stop.wait(LOOK):
            if parent is not None and not parent.is_alive():
                break
        os.kill(os.getpid(), signal.SIGTERM)  # unwinds the job, so that it leaves no temporary file
        time.sleep(GRACE)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


_LEAVING = threading.Event()


def _leave(number: int, frame: FrameType | None) -> None:
    _LEAVING.set()
    raise SystemExit(1)


def _perform(call: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    if _LEAVING.is_set():  # the pool had handed out one job more
        os._exit(1)
    return call(*arguments)


@contextmanager
def _bar(title: str, total: float, shown: bool) -> Iterator[Callable[[float, str], None]]:
    if not shown:
        yield lambda done, text: None
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

        yield show
        bar.update(task, completed=total, description=f"{time.perf_counter() - begun:.0f} s")
