"""Download the files of a data set: into a temporary file, checked, then renamed."""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path
from typing import Any, BinaryIO, final

from cheaplip.data.idx import FileInfo, read_verified
from cheaplip.data.registry import check_file, file_set, place, raw_dir

_TIMEOUT = 30.0  # seconds without a byte, after which the other mirror is asked
_SPARE = 65_536  # gzip makes what cannot be compressed a little longer


def fetch(name: str, data_dir: str | Path | None = None, progress: bool = True) -> Path:
    """Download those files of a data set that are missing or altered; leave the others alone.

    Args:
        name: ``mnist`` or ``fashion-mnist``.
        data_dir: the data folder; by default ``CHEAPLIP_DATA``, ./data if it holds the data set, or the user's cache.
        progress: show a bar, if standard error is a terminal.

    Returns:
        The data folder, which then holds the data set.

    Raises:
        FileNotFoundError: if no mirror gives the right file.
        ValueError: if ``name`` lies in no files, or the folder cannot be written to.
        ImportError: without pooch (``pip install "cheaplip[cli]"``).

    Example:
        >>> fetch("digits")
        Traceback (most recent call last):
        ValueError: only mnist and fashion-mnist lie in files; got 'digits'
    """
    folder, _ = place(name, data_dir)
    wanted = [info for info in file_set(name).files if check_file(name, folder, info).status != "ok"]
    for info in wanted:
        _fetch_file(name, folder, info, progress and sys.stderr.isatty())
    return folder


def _fetch_file(name: str, folder: Path, info: FileInfo, shown: bool) -> None:
    target = raw_dir(name, folder) / f"{info.name}.gz"
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    _make_writable(target.parent)
    reasons = []
    try:
        for mirror in file_set(name).mirrors:
            url = f"{mirror}{target.name}"
            try:
                _download(url, temporary, info.bytes + _SPARE, shown)
                read_verified(temporary, info, "not kept")
            except (OSError, ValueError) as error:  # what requests raises is an OSError
                reasons.append(f"{url}: {_reason(error).replace(str(temporary), 'what came')}")
            else:
                temporary.replace(target)
                return
    finally:
        temporary.unlink(missing_ok=True)
    raise FileNotFoundError(
        f"{target.name} of {name} could not be downloaded ({'; '.join(reasons)}): "
        f"check the network, or put the file into {target.parent}"
    )


def _reason(error: Exception) -> str:
    """Say in a few words why a download failed; the texts of requests' own errors are paragraphs."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return f"HTTP status {status}"
    return type(error).__name__ if type(error).__module__.startswith("requests.") else str(error)


def _make_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError as error:
        raise ValueError(f"cannot write into {folder} ({error.strerror or error}): name another data folder") from error
    if not writable:
        raise ValueError(f"cannot write into {folder} (no permission): name another data folder")


def _download(url: str, path: Path, limit: int, shown: bool) -> None:
    try:
        import pooch
    except ImportError as error:
        raise ImportError('downloading needs pooch: pip install "cheaplip[cli]"') from error
    with path.open("wb") as file:
        sink = _Sink(file, limit, url.rpartition("/")[2] if shown else None)
        try:
            pooch.HTTPDownloader(progressbar=sink, chunk_size=65_536, timeout=_TIMEOUT)(url, sink, None)
        finally:
            sink.stop()


@final
class _Sink:
    """Both the file and the progress bar of pooch's downloader: it stops what is too long, and shows how far it is."""

    def __init__(self, file: BinaryIO, limit: int, title: str | None) -> None:
        self._file, self._limit, self._written = file, limit, 0
        self._bar: Any = None
        if title is not None:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task(title, total=None)
            self._bar.start()

    def write(self, chunk: bytes) -> None:
        self._written += len(chunk)
        if self._written > self._limit:
            raise ValueError(f"it sends more than the {self._limit:,} bytes that the file can have")
        self._file.write(chunk)
        if self._bar is not None:
            self._bar.update(self._task, completed=self._written)

    def flush(self) -> None:
        pass

    @property
    def total(self) -> int:
        return self._written

    @total.setter
    def total(self, announced: int) -> None:
        if self._bar is not None and announced:
            self._bar.update(self._task, total=announced)

    def update(self, count: int) -> None:
        pass  # it counts chunks, write counts bytes

    reset = close = flush

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
