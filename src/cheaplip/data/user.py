"""A user's own data set, from a function named on the command line."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cheaplip.data.splits import Data, Split, count, split_indices
from cheaplip.factories import called, imported

_EXPECTED = "a data factory must return a Data, or (train, test), each a pair of tensors (x, y) or a torch data set"


def from_factory(
    spec: str, *, data_dir: str | Path | None, seed: int, lipschitz: int | None, selection: int | None
) -> Data:
    """Call a user's factory and return its data set, split and checked.

    Args:
        spec: ``pkg.mod:factory``.
        data_dir: given to the factory if its signature takes it.
        seed: of the splits, and of torch's generator while the factory runs; given to it if its signature takes it.
        lipschitz: samples for X_Lip, by default 10 % of the training set.
        selection: samples for selection, by default 10 % of the training set.

    Raises:
        ValueError: if there is no such factory, it raises, or its data does not fit.
        TypeError: if it returns something else than :func:`load` says.
    """
    expected = f"expected pkg.mod:factory, a function that can be imported; got {spec!r}"
    with torch.random.fork_rng(devices=[]):
        factory = imported(spec, expected, "a function")
        # Seeded after the import, which happens once and may draw.
        torch.default_generator.manual_seed(count("seed", seed))
        made = called(factory, spec, {"seed": seed, "data_dir": data_dir})
    if isinstance(made, Data):
        if lipschitz is not None or selection is not None:
            raise ValueError(f"{spec} returned a Data, which is split already: leave out lipschitz and selection")
        return made
    if not isinstance(made, (tuple, list)) or len(made) != 2:
        raise TypeError(f"{_EXPECTED}; {spec} returned {type(made).__name__}")
    pool, test = (
        _normal(*_tensors(part, f"the {which} set of {spec}"), f"the {which} set of {spec}")
        for part, which in zip(made, ("training", "test"), strict=True)
    )
    parts = split_indices(len(pool), seed=seed, lipschitz=lipschitz, selection=selection)
    train, start, choice = (Split(pool.x[part], pool.y[part]) for part in parts)
    within = all(len(s) and float(s.x.min()) >= 0 and float(s.x.max()) <= 1 for s in (pool, test))
    shape, box = tuple(pool.x.shape[1:]), (0.0, 1.0) if within else None
    return Data(spec, train, start, choice, test, _classes(spec, pool), shape, box)


def _tensors(part: Any, which: str) -> tuple[Tensor, Tensor]:
    if isinstance(part, (tuple, list)) and len(part) == 2:
        x, y = part
        if isinstance(x, Tensor) and isinstance(y, Tensor):
            return x, y
        if hasattr(x, "dtype") and hasattr(x, "shape"):
            raise TypeError(
                f"{which} must be a pair of tensors; got {type(x).__name__} and {type(y).__name__}: "
                "convert arrays with torch.from_numpy"
            )
    if isinstance(part, Tensor) or not (hasattr(part, "__getitem__") and hasattr(part, "__len__")):
        raise TypeError(f"{_EXPECTED}; {which} is a {type(part).__name__}")
    if not len(part):
        raise ValueError(f"{which} is empty: expected at least one sample")
    inputs: list[Tensor] = []
    labels: list[Tensor] = []
    for k in _shown(len(part), f"reading {which}"):
        x, y = _sample(part, k, which)
        if inputs and (x.shape != inputs[0].shape or y.shape != labels[0].shape):
            raise ValueError(f"all samples of {which} must have the same shape; number {k} has {tuple(x.shape)}")
        inputs.append(x)
        labels.append(y)
    return torch.stack(inputs), torch.stack(labels)


def _sample(dataset: Any, k: int, which: str) -> tuple[Tensor, Tensor]:
    try:
        sample = dataset[k]
    except Exception as error:  # whatever a user's data set raises
        reason = " ".join(str(error).split())
        raise ValueError(f"sample {k} of {which} raised {type(error).__name__}: {reason}") from error
    try:
        x, y = sample
        return torch.as_tensor(x).detach().cpu(), torch.as_tensor(y).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        kinds = [type(value).__name__ for value in sample] if isinstance(sample, (tuple, list)) else sample
        raise TypeError(
            f"a sample of {which} must be (x, y) that torch.as_tensor takes; number {k} is {kinds}: "
            "give the data set a transform that makes tensors"
        ) from None


def _shown(total: int, title: str) -> Iterator[int]:
    """Count to ``total``; with a bar once two seconds have passed, on a terminal."""
    begun = time.perf_counter()
    for k in range(total):
        if sys.stderr.isatty() and time.perf_counter() - begun > 2:
            yield from _with_bar(k, total, title)
            return
        yield k


def _with_bar(done: int, total: int, title: str) -> Iterator[int]:
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        yield from range(done, total)
        return
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, completed=done)
        for k in range(done, total):
            yield k
            bar.advance(task)


def _normal(x: Tensor, y: Tensor, which: str) -> Split:
    """Return inputs as float32, class labels as int64 and targets as float32 of shape (n, k)."""
    if x.dim() < 2 or y.dim() < 1 or len(x) != len(y):
        raise ValueError(
            f"x and y of {which} must have the shapes (n, *input) and (n,), with at least one input dimension; "
            f"got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    if not x.is_floating_point():
        raise TypeError(f"x of {which} must have a floating dtype; got {x.dtype}: convert it, as by x.float() / 255")
    if y.is_complex():
        raise TypeError(f"y of {which} must hold whole numbers (classes) or floats (regression); got {y.dtype}")
    x, y = x.detach().cpu().float(), y.detach().cpu()
    if not y.is_floating_point():
        return Split(x, y.long())
    # Of shape (n,) they would broadcast against outputs (n, 1) to a loss over n² differences.
    return Split(x, y.float().unsqueeze(1) if y.dim() == 1 else y.float())


def _classes(spec: str, train: Split) -> int | None:
    """Return the number of classes if the labels are 0..K-1, or None where they are floats."""
    if train.y.is_floating_point():
        return None
    labels = sorted(set(train.y.flatten().tolist()))
    if len(labels) < 2 or labels != list(range(len(labels))):
        shown = ", ".join(map(str, labels[:5])) + (", ..." if len(labels) > 5 else "")
        raise ValueError(
            f"the labels that {spec} returns for training must be 0, 1, ..., K-1, all of them present; got {shown}: "
            "number them so, or return a Data, which says how many classes there are"
        )
    return len(labels)
