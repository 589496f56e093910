"""Data sets: digits (embedded), MNIST, Fashion-MNIST, a 1-D regression and a user's own.

:func:`load` gives any of them by name, split with a seed; :class:`BatchLoader` makes minibatches of a split.
:func:`find_dir`, :func:`fetch` and :func:`verify` look after the files, :func:`sources` says what there is.
"""

from __future__ import annotations

from cheaplip.data.download import fetch
from cheaplip.data.loader import BatchLoader
from cheaplip.data.naming import class_names, class_words
from cheaplip.data.registry import FileCheck, Source, find_dir, sources, verify
from cheaplip.data.sets import load, regression
from cheaplip.data.splits import Data, Split

__all__ = [
    "BatchLoader",
    "Data",
    "FileCheck",
    "Source",
    "Split",
    "class_names",
    "class_words",
    "fetch",
    "find_dir",
    "load",
    "regression",
    "sources",
    "verify",
]
