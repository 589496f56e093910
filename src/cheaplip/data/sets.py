"""load(): the data sets by their names."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cheaplip.data.digits import read_digits
from cheaplip.data.download import fetch
from cheaplip.data.idx import Bytes, parse_idx, read_verified
from cheaplip.data.registry import FILE_SETS, find_dir, missing, present, remedy
from cheaplip.data.splits import Data, Split, count, generator, split_indices
from cheaplip.data.user import from_factory

# One test set for all seeds, so that runs with different seeds can be compared on it.
_DIGITS_TEST_SEED = 0
_INTERVALS = ((-4.0, -3.0), (-0.3, 0.3), (3.0, 4.0))


def load(
    name: str,
    *,
    data_dir: str | Path | None = None,
    seed: int = 0,
    lipschitz: int | None = None,
    selection: int | None = None,
) -> Data:
    """Load a data set and split it.

    Args:
        name: ``digits`` (1,797 images of 8 x 8, comes with scikit-learn), ``mnist``, ``fashion-mnist``,
            ``regression`` (see :func:`regression`), or ``pkg.mod:factory``, a function of your own that returns a
            :class:`Data`, or ``(train, test)``, each a pair of tensors ``(x, y)`` or a torch data set. It is called
            with those of ``seed`` and ``data_dir`` that its signature takes. It is the one place where your code runs.
        data_dir: the data folder, see :func:`find_dir`. What is nowhere is downloaded into the user's cache.
        seed: of the splits, 0 or more. The test set is the same for all seeds.
        lipschitz: samples for X_Lip, taken from the training set; by default 6,000 of the MNISTs, else 10 %.
        selection: samples for selection, taken from the training set; by default 1,000 of the MNISTs, else 10 %.

    Returns:
        The data set; images have the shape ``(n, channels, height, width)`` and values in [0, 1].

    Raises:
        ValueError: for an unknown name, a file that was altered, sizes that do not fit, or unfit data of a factory.
        TypeError: for a factory that returns something else.
        FileNotFoundError: if the files are not where they are said to be, or cannot be downloaded.
        ImportError: if a package is missing; it names the extra to install.

    Example:
        >>> data = load("regression", seed=1)
        >>> len(data.train), data.shape, data.classes
        (100, (1,), None)
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of a data set must be text; got {type(name).__name__}")
    if name == "digits":
        return _digits(seed, lipschitz, selection)
    if name == "regression":
        return regression(seed=seed, lipschitz=lipschitz, selection=selection)
    if name in FILE_SETS:
        return _from_files(name, data_dir, seed, lipschitz, selection)
    if ":" in name:
        return from_factory(name, data_dir=data_dir, seed=seed, lipschitz=lipschitz, selection=selection)
    raise ValueError(f"the data must be digits, mnist, fashion-mnist, regression or pkg.mod:factory; got {name!r}")


def _digits(seed: int, lipschitz: int | None, selection: int | None) -> Data:
    images, labels = read_digits()
    x = torch.from_numpy(images).float().div_(16).unsqueeze(1)
    y = torch.from_numpy(labels).long()
    order = torch.randperm(len(x), generator=generator(_DIGITS_TEST_SEED))
    held_out = round(len(x) / 5)
    test, rest = order[:held_out], order[held_out:]
    parts = split_indices(len(rest), seed=seed, lipschitz=lipschitz, selection=selection)
    train, start, choice = (Split(x[rest[part]], y[rest[part]]) for part in parts)
    return Data("digits", train, start, choice, Split(x[test], y[test]), 10, (1, 8, 8), (0.0, 1.0))


def _from_files(
    name: str, data_dir: str | Path | None, seed: int, lipschitz: int | None, selection: int | None
) -> Data:
    folder = find_dir(name, data_dir)
    if missing(name, folder):  # only the cache may
        fetch(name, folder)
    arrays = []
    for info in FILE_SETS[name].files:
        path = present(name, folder, info)
        if path is None:  # removed since
            raise FileNotFoundError(f"{folder} has lost {info.name}; {remedy(folder)}")
        arrays.append(parse_idx(read_verified(path, info, remedy(folder)), str(path)))
    images, labels, test_images, test_labels = arrays
    parts = split_indices(
        len(images),
        seed=seed,
        lipschitz=6_000 if lipschitz is None else lipschitz,
        selection=1_000 if selection is None else selection,
    )
    train, start, choice = (_pick(images, labels, part.numpy()) for part in parts)
    test = _pick(test_images, test_labels, np.arange(len(test_images)))
    return Data(name, train, start, choice, test, 10, (1, *images.shape[1:]), (0.0, 1.0))


def _pick(images: Bytes, labels: Bytes, chosen: NDArray[np.int64]) -> Split:
    x = torch.from_numpy(images[chosen]).unsqueeze(1).float().div_(255)
    return Split(x, torch.from_numpy(labels[chosen]).long())


def regression(
    *, noise: float = 0.05, seed: int = 0, lipschitz: int | None = None, selection: int | None = None
) -> Data:
    """Make the 1-D regression: noisy samples of f(x) = max(|x| - 3, 0) / 2 on [-4, -3], [-0.3, 0.3] and [3, 4].

    100 samples are for training, uniform on the three intervals; X_Lip is uniform in [-4, 4] with values of f, and the
    test set is a grid of 400 points in [-4, 4] with values of f. Selection has further noisy samples.

    Args:
        noise: standard deviation of the normal noise on y, at least 0.
        seed: of all draws, 0 or more.
        lipschitz: points for X_Lip; by default 500.
        selection: samples for selection; by default 10.

    Returns:
        The data set, x and y of the shape ``(n, 1)``, ``classes`` and ``box`` None.

    Raises:
        ValueError: for a number out of range.

    Reference: Bungert et al. 2021, section 4.1.

    Example:
        >>> data = regression(noise=0.0)
        >>> float(data.test.y.max())
        0.5
    """
    if not 0 <= noise < math.inf:
        raise ValueError(f"noise must be a standard deviation of at least 0; got {noise!r}")
    draw = generator(seed)
    train = _noisy(100, noise, draw)
    anywhere = 8 * torch.rand(count("lipschitz", 500 if lipschitz is None else lipschitz), generator=draw) - 4
    choice = _noisy(count("selection", 10 if selection is None else selection), noise, draw)
    test = _exact(torch.linspace(-4, 4, 400))
    return Data("regression", train, _exact(anywhere), choice, test, classes=None, shape=(1,), box=None)


def _exact(x: Tensor) -> Split:
    return Split(x.unsqueeze(1), (x.abs() - 3).clamp_min(0).div(2).unsqueeze(1))


def _noisy(samples: int, noise: float, draw: torch.Generator) -> Split:
    lengths = torch.tensor([high - low for low, high in _INTERVALS])
    left = torch.tensor([low for low, _ in _INTERVALS])
    along = torch.rand(samples, generator=draw) * lengths.sum()
    ends = lengths.cumsum(0)
    which = torch.bucketize(along, ends[:-1], right=True)
    exact = _exact(left[which] + along - (ends - lengths)[which])
    return Split(exact.x, exact.y + noise * torch.randn(samples, 1, generator=draw))
