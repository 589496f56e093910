"""Workers on this machine: processes of one thread each, that do one job after another."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, NamedTuple, final

from cheaplip.experiments.jobs.job import Answer, performed

GRACE = 5.0  # seconds that a stopped job has to clean up
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
# What jobs import and takes long; the optimizers of PyTorch load the last one.
LOADED = ["cheaplip.runs", "lightning_fabric", "torch._dynamo"]


@final
class _Worker(NamedTuple):
    process: BaseProcess
    pipe: connection.Connection

    def end(self, deadline: float) -> None:
        """Wait until the process is gone; kill it when its time is over."""
        self.process.join(max(0.0, deadline - time.monotonic()))
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.pipe.close()
        self.process.close()


@final
class Local:
    """Processes of this machine; each has a pipe of its own, so that one that dies harms no other.

    Args:
        workers: how many.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._idle: list[_Worker] = []
        self._busy: dict[int, _Worker] = {}

    def give(self, number: int, work: bytes) -> None:
        """Let an idle process begin a job, or a new one."""
        worker = self._busy[number] = self._free()
        with suppress(OSError):  # it died just now: ended() sees it
            worker.pipe.send_bytes(work)

    def _free(self) -> _Worker:
        while self._idle:
            worker = self._idle.pop()
            if worker.process.is_alive():
                return worker
            worker.end(time.monotonic())
        return _started()

    def ended(self, seconds: float) -> list[tuple[int, Answer | None]]:
        """Wait a while for jobs to end; return number and answer of those that did, None where the process died."""
        watched = {
            thing: number for number, worker in self._busy.items() for thing in (worker.pipe, worker.process.sentinel)
        }
        ready = {watched[thing] for thing in connection.wait(list(watched), seconds)}  # type: ignore[index]
        return [(number, self._take(number)) for number in sorted(ready)]

    def _take(self, number: int) -> Answer | None:
        worker = self._busy.pop(number)
        with suppress(EOFError, OSError):
            if worker.pipe.poll():
                answer: Answer = pickle.loads(worker.pipe.recv_bytes())
                self._idle.append(worker)
                return answer
        worker.process.kill()
        worker.end(time.monotonic())
        return None

    def close(self) -> None:
        """Stop all processes; jobs that run are cut off, but may remove their temporary files."""
        for worker in self._busy.values():
            worker.process.terminate()
        for worker in self._idle:
            worker.pipe.close()  # which ends the loop of _serve()
        deadline = time.monotonic() + GRACE
        for worker in (*self._busy.values(), *self._idle):
            worker.end(deadline)
        self._busy, self._idle = {}, []


def _started() -> _Worker:
    # Where it can be, off a process that has loaded what takes seconds, once for all workers and in shared memory.
    forking = "forkserver" in multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if forking else "spawn")
    if forking:
        context.set_forkserver_preload(LOADED)
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, dict(os.environ)), name="cheaplip worker")
    with _environment(ONE_THREAD):
        process.start()
    theirs.close()  # or its end would not be seen when the process dies
    return _Worker(process, ours)


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Let processes that start inside see these variables; libraries read their threads when they are loaded."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(pipe: connection.Connection, environment: Mapping[str, str]) -> None:
    """Do jobs until the pipe is closed, in the environment that a parent has now, whenever its first worker began."""
    os.environ.clear()
    os.environ.update(environment)
    _begin()
    while True:
        try:
            work = pipe.recv_bytes()
        except (EOFError, OSError):
            return
        pipe.send_bytes(performed(work))


def _begin() -> None:
    """Prepare a process: one thread, deaf to Ctrl-C (its parent hears it), and gone when its parent is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    os.environ |= ONE_THREAD
    import torch  # only now, as the libraries below it read their threads when they are loaded

    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os.kill(os.getpid(), signal.SIGTERM)  # unwinds the job, so that it leaves no temporary file
            time.sleep(GRACE)
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(1)
