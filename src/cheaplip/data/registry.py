"""Which data sets there are, where their files lie, and whether these are the right ones."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

from cheaplip.data.idx import FileInfo, read_verified


@final
@dataclass(frozen=True)
class FileSet:
    """A data set that lies in four IDX files: images and labels of training and test.

    Args:
        folder: the folder of torchvision's layout, ``<data dir>/<folder>/raw/<file>.gz``.
        mirrors: where to download from, each with ``/`` at the end, the first one first.
        files: training images, training labels, test images, test labels.
    """

    folder: str
    mirrors: tuple[str, ...]
    files: tuple[FileInfo, FileInfo, FileInfo, FileInfo]


def _four_files(*sha256: str) -> tuple[FileInfo, FileInfo, FileInfo, FileInfo]:
    train, train_labels, test, test_labels = sha256
    return (
        FileInfo("train-images-idx3-ubyte", train, 47_040_016),
        FileInfo("train-labels-idx1-ubyte", train_labels, 60_008),
        FileInfo("t10k-images-idx3-ubyte", test, 7_840_016),
        FileInfo("t10k-labels-idx1-ubyte", test_labels, 10_008),
    )


# The hashes are of the decompressed bytes: the same data is about in differently wrapped .gz files.
FILE_SETS = {
    "mnist": FileSet(
        folder="MNIST",
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        files=_four_files(
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    "fashion-mnist": FileSet(
        folder="FashionMNIST",
        mirrors=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        files=_four_files(
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ),
}


@final
@dataclass(frozen=True)
class FileCheck:
    """What :func:`verify` found.

    Args:
        file: where the file lies, or should lie.
        status: ``ok``, ``missing``, or ``altered`` (cut short, damaged or other bytes).
        bytes: its size on disk, 0 if it is missing.
    """

    file: Path
    status: Literal["ok", "missing", "altered"]
    bytes: int


@final
@dataclass(frozen=True)
class Source:
    """What :func:`sources` says of a data set.

    Args:
        name: the name for :func:`load`.
        sizes: the default splits, ``(("train", 53000), ...)``.
        licence: of the data.
        needs_files: whether it lies in files; if not, it comes with a package or is computed.
        found: the data folder that holds its files, None where there is none.
    """

    name: str
    sizes: tuple[tuple[str, int], ...]
    licence: str
    needs_files: bool
    found: Path | None


_LISTED = (
    ("digits", (1150, 144, 144, 359), "CC BY 4.0 (E. Alpaydin, C. Kaynak; comes with scikit-learn)"),
    ("mnist", (53_000, 6_000, 1_000, 10_000), "CC BY-SA 3.0 (Y. LeCun, C. Cortes, C. Burges)"),
    ("fashion-mnist", (53_000, 6_000, 1_000, 10_000), "MIT (Zalando SE)"),
    ("regression", (100, 500, 10, 400), "none needed (computed)"),
)


def file_set(name: str) -> FileSet:
    """Return the files of a data set, or raise ValueError where it has none."""
    if name not in FILE_SETS:
        raise ValueError(f"only {' and '.join(FILE_SETS)} lie in files; got {name!r}")
    return FILE_SETS[name]


def raw_dir(name: str, folder: Path) -> Path:
    """Return the folder of a data set's files inside a data folder."""
    return folder / file_set(name).folder / "raw"


def present(name: str, folder: Path, info: FileInfo) -> Path | None:
    """Return where a file lies, gzipped or plain, or None; gzipped first, as that is what fetch renews."""
    plain = raw_dir(name, folder) / info.name
    candidates = (plain.with_name(f"{info.name}.gz"), plain)
    return next((path for path in candidates if path.is_file()), None)


def missing(name: str, folder: Path) -> list[FileInfo]:
    """Return which files of a data set a data folder lacks."""
    return [info for info in file_set(name).files if present(name, folder, info) is None]


def remedy(folder: Path) -> str:
    """Return how to repair a data folder, the end of an error."""
    return f"`cheaplip data fetch --data-dir {folder}` gets it anew"


def cache_dir() -> Path:
    """Return the user's cache of this package."""
    try:
        import pooch
    except ImportError as error:
        raise ImportError(
            "looking into the user's cache and downloading need pooch: "
            'pip install "cheaplip[cli]", or name the data folder (data_dir, CHEAPLIP_DATA)'
        ) from error
    return Path(pooch.os_cache("cheaplip"))


def place(name: str, data_dir: str | Path | None = None) -> tuple[Path, bool]:
    """Return the data folder that is meant, with the files or without, and whether the user named it."""
    file_set(name)
    named = data_dir if data_dir is not None else os.environ.get("CHEAPLIP_DATA") or None
    if named is not None:
        return Path(named).expanduser(), True
    here = Path("data")
    return (here, False) if not missing(name, here) else (cache_dir(), False)


def find_dir(name: str, data_dir: str | Path | None = None) -> Path:
    """Return the data folder of a data set: the argument, CHEAPLIP_DATA, ./data if it holds it, or the cache.

    Args:
        name: ``mnist`` or ``fashion-mnist``.
        data_dir: a folder that holds ``MNIST/raw`` or ``FashionMNIST/raw``.

    Returns:
        The folder. Only the user's cache, the last resort, may still lack the files.

    Raises:
        FileNotFoundError: if the folder that the argument or the variable names lacks a file.
        ValueError: if ``name`` lies in no files.
        ImportError: if it comes to the cache, without pooch.

    Example:
        >>> find_dir("mnist", "no/such/folder")
        Traceback (most recent call last):
        FileNotFoundError: expected no/such/folder/MNIST/raw/train-images-idx3-ubyte.gz (or without .gz), ...
    """
    folder, named = place(name, data_dir)
    if named and (lacking := missing(name, folder)):
        raise FileNotFoundError(
            f"expected {raw_dir(name, folder) / lacking[0].name}.gz (or without .gz), found no such file; "
            f"{remedy(folder)}, or name the folder that holds {file_set(name).folder}/raw"
        )
    return folder


def check_file(name: str, folder: Path, info: FileInfo) -> FileCheck:
    """Compare one file with what it must be."""
    path = present(name, folder, info)
    if path is None:
        return FileCheck(raw_dir(name, folder) / f"{info.name}.gz", "missing", 0)
    try:
        read_verified(path, info, "")
    except ValueError:
        return FileCheck(path, "altered", path.stat().st_size)
    return FileCheck(path, "ok", path.stat().st_size)


def verify(name: str, data_dir: str | Path | None = None) -> list[FileCheck]:
    """Compare the files of a data set with their SHA-256.

    Args:
        name: ``mnist`` or ``fashion-mnist``.
        data_dir: the data folder; by default where :func:`find_dir` looks.

    Raises:
        ValueError: if ``name`` lies in no files.

    Example:
        >>> {check.status for check in verify("mnist", "no/such/folder")}
        {'missing'}
    """
    folder, _ = place(name, data_dir)
    return [check_file(name, folder, info) for info in file_set(name).files]


def sources(data_dir: str | Path | None = None) -> list[Source]:
    """Return the data sets that have a name, with their sizes, their licence and where their files were found.

    Args:
        data_dir: the data folder; by default where :func:`find_dir` looks.

    Example:
        >>> [source.name for source in sources("no/such/folder")]
        ['digits', 'mnist', 'fashion-mnist', 'regression']
    """
    listed = []
    for name, counts, licence in _LISTED:
        sizes = tuple(zip(("train", "lipschitz", "selection", "test"), counts, strict=True))
        needs_files, found = name in FILE_SETS, None
        if needs_files:
            folder, _ = place(name, data_dir)
            found = None if missing(name, folder) else folder
        listed.append(Source(name, sizes, licence, needs_files, found))
    return listed
