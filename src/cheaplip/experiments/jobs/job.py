"""A job, its way to a worker, and what comes back."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, final


@final
@dataclass(frozen=True)
class Job:
    """One piece of work that depends on no other, and may be begun again: what it kept in files it does not do twice.

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


@final
@dataclass(frozen=True)
class Answer:
    """What became of a job.

    Args:
        value: what it returned.
        error: what it raised; None if it returned.
        told: the traceback of the error, where it was raised.
    """

    value: Any = None
    error: Exception | None = None
    told: str = ""


class Engine(Protocol):
    """Workers that take one job at a time each.

    Args:
        workers: how many jobs it can be given at a time.
    """

    workers: int

    def give(self, number: int, work: bytes) -> None:
        """Let a worker begin a job, packed by :func:`packed`."""

    def ended(self, seconds: float) -> list[tuple[int, Answer | None]]:
        """Wait a while for jobs to end; return number and answer of those that did, None where the worker died."""

    def close(self) -> None:
        """Stop all workers; jobs that run are cut off."""


def packed(job: Job) -> bytes:
    """Return a job as it is sent to a worker.

    Raises:
        TypeError: if its function or an argument cannot be sent.
    """
    try:
        return pickle.dumps((job.call, job.arguments))
    except Exception as error:  # whatever pickle makes of it
        raise TypeError(f"{job.name} cannot be sent to another process: {error}") from error


def performed(work: bytes) -> bytes:
    """Do a packed job, in a worker, and return its :class:`Answer`, packed.

    Example:
        >>> pickle.loads(performed(packed(Job("a", pow, (2, 3))))).value
        8
    """
    try:
        call, arguments = pickle.loads(work)
        return pickle.dumps(Answer(call(*arguments)))
    except Exception as error:
        return failed(error)


def failed(error: Exception) -> bytes:
    """Return the packed answer of a job that raised this; an error that cannot be sent becomes one that can."""
    told = traceback.format_exc()
    try:
        answer = pickle.dumps(Answer(error=error, told=told))
        pickle.loads(answer)  # some errors can be packed, but not unpacked
    except Exception:
        answer = pickle.dumps(Answer(error=RuntimeError(f"{type(error).__name__}: {error}"), told=told))
    return answer
