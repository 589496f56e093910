"""Workers of a Ray cluster, or of a Ray of our own on this machine."""

from __future__ import annotations

import importlib
import os
import pickle
import secrets
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from cheaplip.experiments.jobs.job import Answer, failed, performed
from cheaplip.experiments.jobs.local import GRACE, ONE_THREAD
from cheaplip.experiments.jobs.place import Place, cores

PASSED = ("CHEAPLIP_DATA", "PYTHONPATH")  # of the environment, to the workers
STORE = 80 * 2**20  # bytes of Ray's object store on this machine, near its least: answers are small
PATIENCE = 5.0  # seconds to reach a cluster


@final
@dataclass(frozen=True)
class _Surroundings:
    """What a worker needs of the process that sends it jobs.

    Args:
        home: the working directory.
        paths: where modules are looked for.
        folder: where the jobs write; None if nowhere.
        token: a file in it, by which a worker knows that it sees the same folder.
    """

    home: str
    paths: tuple[str, ...]
    folder: str | None
    token: str

    def enter(self) -> None:
        """Become like the process that sends the jobs.

        Raises:
            ValueError: if the folder is not to be seen from here.
        """
        seen = Path(self.home, self.folder or "")
        if self.folder is not None and not (seen / self.token).is_file():
            raise ValueError(
                f"a Ray worker on {socket.gethostname()} does not see the folder {seen}: it must lie on a file system "
                "that all nodes share; choose such a one by --out"
            )
        if Path(self.home).is_dir():
            os.chdir(self.home)
        sys.path.extend(path for path in self.paths if path not in sys.path)
        import torch

        torch.set_num_threads(1)


def _perform(surroundings: _Surroundings, work: bytes) -> bytes:
    """Do a packed job in a worker of Ray."""
    try:
        surroundings.enter()
    except Exception as error:
        return failed(error)
    return performed(work)


@final
class OnRay:
    """Workers of Ray, one job and one core each.

    Args:
        place: which cluster, how many workers, and where the jobs write.
        jobs: how many there are.

    Raises:
        ImportError: if Ray is missing; it names the extra to install.
        OSError: if there is no cluster at the address, or Ray does not start.
        ValueError: if the address is none, the folder cannot be written to, or no node has a GPU where one is wanted.
    """

    def __init__(self, place: Place, jobs: int) -> None:
        self._ray = _imported()
        self._busy: dict[Any, int] = {}
        self._session: str | None = None
        self._ours = not self._ray.is_initialized()  # the user's own is left as it is
        self._token: Path | None = None
        if self._ours:
            self._session = _connect(self._ray, place.address or os.environ.get("RAY_ADDRESS"), place, jobs)
        try:
            self.workers = min(jobs, place.workers or self._room(place.gpu))
            self._task = self._remote(place)
        except BaseException:
            self.close()
            raise

    def _room(self, gpu: bool) -> int:
        """Return how many jobs the cluster does at a time."""
        there = self._ray.cluster_resources()
        if gpu and there.get("GPU", 0) < 1:
            raise ValueError(
                "device cuda was asked for, but no node of Ray's cluster has a GPU: use device auto or cpu"
            )
        return max(1, int(min(there.get("CPU", 1), there["GPU"] if gpu else sys.maxsize)))

    def _remote(self, place: Place) -> Any:
        """Return the function that sends a job, and let its workers know the folder."""
        token = f".seen-{secrets.token_hex(8)}"
        if place.folder is not None:
            self._token = Path.cwd() / place.folder / token
            try:
                place.folder.mkdir(parents=True, exist_ok=True)
                self._token.touch()
            except OSError as error:
                raise ValueError(
                    f"cannot write into {place.folder} ({error.strerror or error}): choose a folder that is writable"
                ) from error
        folder = None if place.folder is None else str(place.folder)
        here = self._ray.put(_Surroundings(str(Path.cwd()), tuple(sys.path), folder, token))
        environment = ONE_THREAD | {name: os.environ[name] for name in PASSED if name in os.environ}
        remote = self._ray.remote(num_cpus=1, num_gpus=int(place.gpu), max_retries=0)(_perform)
        return remote.options(runtime_env={"env_vars": environment}), here

    def give(self, number: int, work: bytes) -> None:
        """Send a job."""
        task, here = self._task
        self._busy[task.remote(here, work)] = number

    def ended(self, seconds: float) -> list[tuple[int, Answer | None]]:
        """Wait a while for jobs to end; return number and answer of those that did, None where the worker died."""
        with _signals_heard():
            self._ray.wait(list(self._busy), timeout=seconds)
            ready, _ = self._ray.wait(list(self._busy), num_returns=len(self._busy), timeout=0)
            return [(self._busy.pop(reference), self._answer(reference)) for reference in ready]

    def _answer(self, reference: Any) -> Answer | None:
        known = self._ray.exceptions
        try:
            answer: Answer = pickle.loads(self._ray.get(reference))
        except (known.WorkerCrashedError, known.OutOfMemoryError, known.NodeDiedError, known.ObjectLostError):
            return None
        except known.RayTaskError as error:  # jobs tell theirs, so that it is not one of a job
            reason = str(error).strip().rpartition("\n")[2]
            return Answer(error=ImportError(f"a Ray worker cannot do jobs of cheaplip ({reason}): {_SAME}"))
        except known.RayError as error:
            return Answer(error=OSError(f"Ray cannot do a job: {' '.join(str(error).split())}"))
        return answer

    def close(self) -> None:
        """Stop all jobs; a Ray of our own ends, and leaves nothing behind."""
        try:
            for force in (False, True):
                for reference in self._busy:
                    self._ray.cancel(reference, force=force)
                if self._busy:
                    _, left = self._ray.wait(list(self._busy), num_returns=len(self._busy), timeout=GRACE)
                    self._busy = {reference: self._busy[reference] for reference in left}
        finally:
            if self._token is not None:
                self._token.unlink(missing_ok=True)
            if self._ours:
                self._ray.shutdown()
            if self._session is not None:
                shutil.rmtree(self._session, ignore_errors=True)


_SAME = 'every node needs the same Python and packages as this machine, among them pip install "cheaplip[cli,ray]"'


def _imported() -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # or Ray would report to its makers
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what sees a GPU here sees it there
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ImportError('engine ray needs Ray: pip install "cheaplip[ray]"') from error


def _connect(ray: Any, address: str | None, place: Place, jobs: int) -> str | None:
    """Join a cluster, or start a Ray on this machine and return the folder of its logs."""
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL"}
    own = address in (None, "local")
    if own:
        size = min(jobs, place.workers or cores())
        common |= {"num_cpus": size, "include_dashboard": False, "object_store_memory": STORE}
    elif address is not None:
        _check_there(address)
    try:
        with _signals_kept():
            context = ray.init(address="local" if own else address, **common)
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        if own:
            raise OSError(f"cannot start Ray on this machine ({reason}): give --engine local") from error
        raise OSError(
            f"cannot join the Ray cluster at {address} ({reason}): expected HOST:PORT or auto, a cluster of this "
            "version of Ray, and RAY_AUTH_MODE=token where it asks for a token"
        ) from error
    return str(context.address_info["session_dir"]) if own else None


def _check_there(address: str) -> None:
    """Raise OSError if nobody listens at HOST:PORT; Ray itself would try for minutes, and end the process."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if not host or not port.isdecimal():
        return
    with_reason = (
        f"cannot join the Ray cluster at {address} ({{}}): start it by `ray start --head`, or leave --address out"
    )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise OSError(with_reason.format(getattr(error, "strerror", None) or error)) from error


@contextmanager
def _signals_heard() -> Iterator[None]:
    """Raise what a signal raises, such as KeyboardInterrupt, which Ray hides behind an error of its own."""
    try:
        yield
    except SystemError as error:
        if error.__cause__ is None:
            raise
        raise error.__cause__ from None


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep what is done at SIGTERM and Ctrl-C, which Ray would replace."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            with suppress(TypeError):  # one that was not set from Python
                signal.signal(number, handler)
