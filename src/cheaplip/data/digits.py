"""The handwritten digits that come with scikit-learn."""

from __future__ import annotations

import gzip
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Where scikit-learn keeps them: a line for each image, 64 pixels from 0 to 16 and the digit.
TABLE = ("datasets", "data", "digits.csv.gz")
COUNT, SIDE = 1797, 8


def read_digits() -> tuple[NDArray[Any], NDArray[Any]]:
    """Return images, ``(1797, 8, 8)`` from 0 to 16, and labels, ``(1797,)`` from 0 to 9.

    Only the file is read where it lies as usual, since the import of scikit-learn takes seconds.

    Raises:
        ImportError: if scikit-learn is not installed.

    Example:
        >>> images, labels = read_digits()
        >>> images.shape, labels[:5].tolist()
        ((1797, 8, 8), [0, 1, 2, 3, 4])
    """
    table = _table()
    if table is None:
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise ImportError('the digits come with scikit-learn: pip install "cheaplip[cli]"') from error
        digits = load_digits()
        return digits.images, digits.target
    return table[:, :-1].reshape(COUNT, SIDE, SIDE), table[:, -1].astype(np.int64)


def _table() -> NDArray[Any] | None:
    """Return the table of scikit-learn's file; None if it is not there, or is not as it was."""
    try:
        spec = find_spec("sklearn")
    except ValueError:  # loaded, and not by a finder
        return None
    if spec is None or spec.origin is None:
        return None
    try:
        text = gzip.decompress(Path(spec.origin).parent.joinpath(*TABLE).read_bytes())
        table = np.array([line.split(b",") for line in text.split()], dtype=np.float64)
    except (OSError, EOFError, zlib.error, ValueError):
        return None
    fits = table.shape == (COUNT, SIDE * SIDE + 1) and table.min() >= 0 and table[:, :-1].max() == 2 * SIDE
    return table if fits and set(table[:, -1]) == set(range(10)) else None
