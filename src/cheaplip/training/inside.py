"""Inside an epoch: what is saved of it where training is stopped there, and how it goes on."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from cheaplip.training.step import Step

# What a step adds up over an epoch.
_SUMS = ("total", "correct", "seen", "begun", "classifies")


def continues(loader: Any) -> bool:
    """Tell whether a loader can go on inside an epoch: it has ``set_epoch`` and ``iterate(start)``.

    Example:
        >>> continues([])
        False
    """
    iterate = getattr(loader, "iterate", None)
    return callable(iterate) and hasattr(loader, "set_epoch") and "start" in inspect.signature(iterate).parameters


def inside(step: Step, steps: int, batch: tuple[Tensor, Tensor], seconds: float) -> dict[str, Any]:
    """Return how far an epoch is.

    Args:
        step: which has added up the epoch so far.
        steps: how many were made in this epoch, at least 1.
        batch: the minibatch of the last one, by which its loader is known again.
        seconds: of training in this epoch.
    """
    sums = {name: getattr(step, name) for name in _SUMS}
    return {"steps": steps, "batch": _digest(*batch), "seconds": seconds, "sums": sums}


def checked(state: Any) -> dict[str, Any]:
    """Return what was saved of an epoch.

    Raises:
        ValueError: if it is damaged.

    Example:
        >>> checked({"steps": 0})
        Traceback (most recent call last):
        ValueError: damaged
    """
    whole = isinstance(state, dict) and state.keys() == {"steps", "batch", "seconds", "sums"}
    if not whole or not isinstance(state["sums"], dict) or state["sums"].keys() != set(_SUMS):
        raise ValueError("damaged")
    sums = state["sums"]
    counts = type(state["steps"]) is int and state["steps"] > 0 and isinstance(state["batch"], str)
    figures = all(map(_is_number, (state["seconds"], sums["total"], sums["correct"], sums["seen"])))
    if not counts or not figures or any(type(sums[name]) is not bool for name in ("begun", "classifies")):
        raise ValueError("damaged")
    return {**state}


def go_on(step: Step, loader: Any, state: dict[str, Any]) -> Iterator[Any] | None:
    """Give a step back what it had added up, and return the minibatches that are left of the epoch.

    Args:
        step: at the start of the epoch.
        loader: that was told the epoch.
        state: what :func:`inside` returned.

    Returns:
        None if the loader cannot go on there, or gives other minibatches than the one before.
    """
    if not continues(loader):
        return None
    try:
        left: Iterator[Any] = iter(loader.iterate(state["steps"] - 1))
        x, y = next(left)
    except (StopIteration, ValueError, TypeError, IndexError):  # a shorter loader, or one of something else
        return None
    if not isinstance(x, Tensor) or not isinstance(y, Tensor) or _digest(x, y) != state["batch"]:
        return None
    for name in _SUMS:
        setattr(step, name, state["sums"][name])
    return left


def _digest(*tensors: Tensor) -> str:
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _is_number(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1 and not value.is_complex()
    return isinstance(value, (int, float))
