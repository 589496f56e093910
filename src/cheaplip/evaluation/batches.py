"""Images and labels in batches of one size, from whatever the user has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cheaplip.attacks.losses import check_targets


def batches(loader: Any, size: int, device: torch.device | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images and labels in batches of ``size``, in the loader's order; the last one may be smaller.

    Args:
        loader: see :func:`cheaplip.evaluate`.
        size: images in a batch.
        device: where to; None leaves them where they are.

    Raises:
        TypeError: if the loader is none of those, a batch is no pair of tensors, or labels are no whole numbers.
        ValueError: if images and labels are not equally many.
    """
    held: list[tuple[Tensor, Tensor]] = []
    for x, y in _as_given(loader, size):
        held.append(_checked(x, y))
        if sum(len(images) for images, _ in held) >= size:
            images, labels = (torch.cat(part) for part in zip(*held, strict=True))
            whole = len(images) - len(images) % size
            for start in range(0, whole, size):
                yield _on(images[start : start + size], device), _on(labels[start : start + size], device)
            held = [(images[whole:], labels[whole:])]
    rest = [pair for pair in held if len(pair[0])]
    if rest:
        images, labels = (torch.cat(part) for part in zip(*rest, strict=True))
        yield _on(images, device), _on(labels, device)


def count(loader: Any) -> int | None:
    """Return how many images a loader has, or None where that cannot be known in advance."""
    pair = _pair(loader)
    if pair is not None:
        return len(pair[0]) if pair[0].dim() else None
    found = loader if isinstance(loader, Dataset) else getattr(loader, "dataset", None)
    if found is None:
        found = getattr(loader, "dataset_size", None)
        return found if isinstance(found, int) else None
    return len(found) if hasattr(found, "__len__") else None


def _pair(loader: Any) -> tuple[Tensor, Tensor] | None:
    if isinstance(loader, (tuple, list)) and len(loader) == 2 and all(isinstance(part, Tensor) for part in loader):
        return loader[0], loader[1]
    x, y = getattr(loader, "x", None), getattr(loader, "y", None)
    return (x, y) if isinstance(x, Tensor) and isinstance(y, Tensor) else None


def _as_given(loader: Any, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    pair = _pair(loader)
    if pair is not None:
        x, y = _checked(*pair)
        for start in range(0, len(x), size):
            yield x[start : start + size], y[start : start + size]
        return
    if isinstance(loader, Dataset):
        loader = DataLoader(loader, batch_size=size)
    if not isinstance(loader, Iterable):
        raise TypeError(
            "loader must be an iterable of batches (x, y), a pair of tensors, a torch Dataset or an object with "
            f".x and .y; got {type(loader).__name__}"
        )
    for batch in loader:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise TypeError(f"each batch of the loader must be a pair (x, y) of tensors; got {type(batch).__name__}")
        yield batch[0], batch[1]


def _checked(x: Any, y: Any) -> tuple[Tensor, Tensor]:
    if not isinstance(x, Tensor) or not isinstance(y, Tensor):
        raise TypeError(
            f"each batch of the loader must be a pair (x, y) of tensors; got {type(x).__name__} and {type(y).__name__}"
        )
    if y.is_floating_point():
        raise TypeError(
            f"evaluate measures classifiers, so labels must be whole numbers; got {y.dtype}: "
            "measure a regression by its mean squared error"
        )
    return x, check_targets(x, y, regression=False)


def _on(values: Tensor, device: torch.device | None) -> Tensor:
    moved = values.to(device)
    # Tensors made in inference mode cannot take part in a gradient; their copies can.
    return moved.clone() if moved.is_inference() else moved
