"""What a data set is, once loaded: four splits that share no sample."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor


@final
@dataclass(frozen=True, eq=False)
class Split:
    """Inputs and labels of some samples.

    Args:
        x: inputs, float32, shape ``(n, *shape)``.
        y: class labels, int64, shape ``(n,)``; for a regression its values, float32, shape ``(n, k)`` or, as
            of images, ``(n, *values)``.

    Example:
        >>> len(Split(torch.zeros(5, 1, 8, 8), torch.zeros(5, dtype=torch.int64)))
        5
    """

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.x)


@final
@dataclass(frozen=True, eq=False)
class Data:
    """A data set in four splits, checked when it is made.

    Args:
        name: what :func:`load` was asked for.
        train: what the loss is minimised over.
        lipschitz: from which X_Lip starts; may be empty.
        selection: by which checkpoints and settings are chosen; may be empty.
        test: what nothing is chosen by.
        classes: how many there are; None for regression.
        shape: of one input.
        box: the range ``(low, high)`` that all inputs keep to and an attack may be held to; None for no such range.

    Raises:
        TypeError: for a split whose tensors have another dtype than :class:`Split` says.
        ValueError: for shapes that do not fit, labels outside 0..classes-1, values that are not finite or leave
            the box, or an empty training or test set.

    Example:
        >>> split = Split(torch.rand(4, 2), torch.tensor([0, 1, 1, 0]))
        >>> data = Data("mine", split, split, split, split, classes=2, shape=(2,), box=(0.0, 1.0))
        >>> data.classes
        2
    """

    name: str
    train: Split
    lipschitz: Split
    selection: Split
    test: Split
    classes: int | None
    shape: tuple[int, ...]
    box: tuple[float, float] | None

    def __post_init__(self) -> None:
        if self.classes is not None and (not isinstance(self.classes, int) or self.classes < 2):
            raise ValueError(f"classes must be at least 2, or None for regression; got {self.classes!r}")
        object.__setattr__(self, "shape", tuple(self.shape))
        object.__setattr__(self, "box", _checked_box(self.box))
        for which in ("train", "lipschitz", "selection", "test"):
            split = getattr(self, which)
            if not isinstance(split, Split):
                raise TypeError(f"{which} must be a Split; got {type(split).__name__}")
            _check_inputs(split.x, which, self.shape, self.box)
            _check_labels(split.y, which, len(split), self.classes)
            if which in ("train", "test") and not len(split):
                raise ValueError(f"{which} must hold at least one sample; got none")


def _checked_box(box: object) -> tuple[float, float] | None:
    if box is None:
        return None
    try:
        low, high = (float(bound) for bound in box)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not low < high:
        raise ValueError(f"box must be (low, high) with low < high, or None; got {box!r}")
    return low, high


def _check_inputs(x: Tensor, which: str, shape: tuple[int, ...], box: tuple[float, float] | None) -> None:
    if not isinstance(x, Tensor) or x.dtype != torch.float32:
        raise TypeError(f"x of {which} must be a float32 tensor; got {_kind(x)}: convert it with x.float()")
    if x.dim() < 2 or tuple(x.shape[1:]) != shape or 0 in shape:
        raise ValueError(
            f"x of {which} must have the shape (n, *{shape}), one dimension or more per sample; got {tuple(x.shape)}"
        )
    if not len(x):
        return
    low, high = (float(bound) for bound in x.aminmax())  # NaN if any is: one pass does for both checks
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"x of {which} must be finite; got NaN or infinite values: remove those samples")
    if box is not None and (low < box[0] or high > box[1]):
        raise ValueError(
            f"x of {which} must keep to the box {box}; got values from {low:g} to {high:g}: scale it, or box=None"
        )


def _check_labels(y: Tensor, which: str, samples: int, classes: int | None) -> None:
    wanted = torch.float32 if classes is None else torch.int64
    if not isinstance(y, Tensor) or y.dtype != wanted:
        what = "regression" if classes is None else "classes"
        raise TypeError(f"y of {which} must be a {str(wanted)[6:]} tensor for {what}; got {_kind(y)}")
    shape = f"({samples}, k) or more" if classes is None else f"({samples},)"
    if (y.dim() < 2 if classes is None else y.dim() != 1) or len(y) != samples:
        remedy = "give one row for each row of x"
        if classes is not None and y.dim() > 1:
            remedy = "give one class for each sample, or floats, which are a regression"
        raise ValueError(
            f"y of {which} must have the shape {shape} for its {samples} samples; got {tuple(y.shape)}: {remedy}"
        )
    if not len(y):
        return
    if classes is None:
        if not bool(torch.isfinite(y).all()):
            raise ValueError(f"y of {which} must be finite; got NaN or infinite values: remove those samples")
        return
    low, high = (int(bound) for bound in y.aminmax())
    if low < 0 or high >= classes:
        raise ValueError(f"labels of {which} must lie in 0..{classes - 1}; got {low} to {high}: count from 0")


def _kind(value: object) -> str:
    return str(value.dtype)[6:] if isinstance(value, Tensor) else type(value).__name__


def split_indices(
    samples: int, *, seed: int, lipschitz: int | None = None, selection: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Deal out the indices of a training set: rest, lipschitz and selection, drawn without regard to labels.

    Args:
        samples: how many there are.
        seed: of the permutation, 0 or more; the same seed gives the same splits.
        lipschitz: how many go to X_Lip; by default 10 %.
        selection: how many go to selection; by default 10 %.

    Returns:
        Three int64 tensors that share no index and hold all of ``0..samples-1`` together.

    Raises:
        ValueError: if a count is negative, or no sample is left for training.

    Example:
        >>> train, lipschitz, selection = split_indices(100, seed=0)
        >>> len(train), len(lipschitz), len(selection)
        (80, 10, 10)
    """
    tenth = round(samples / 10)
    counts = [
        count("lipschitz", tenth if lipschitz is None else lipschitz),
        count("selection", tenth if selection is None else selection),
    ]
    if sum(counts) >= samples:
        raise ValueError(
            f"lipschitz and selection must leave a sample of the {samples} for training; "
            f"got {counts[0]} and {counts[1]}"
        )
    order = torch.randperm(samples, generator=generator(seed))
    return order[sum(counts) :], order[: counts[0]], order[counts[0] : sum(counts)]


def count(name: str, value: object) -> int:
    """Return a whole number of at least 0, or raise ValueError by its name."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name} must be a whole number of at least 0; got {value!r}")
    return value


def generator(seed: int) -> torch.Generator:
    """Return a fresh generator on the CPU, or raise ValueError for a seed that is none."""
    if count("seed", seed) >= 2**63:
        raise ValueError(f"seed must be below 2**63; got {seed}")
    return torch.Generator().manual_seed(seed)
