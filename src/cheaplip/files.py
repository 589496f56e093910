"""Files are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Give a temporary path to write to, which becomes ``path`` when the block ends without an error.

    Args:
        path: the file to write; its folder is created.

    Raises:
        ValueError: if the folder cannot be created or written to.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with whole(Path(folder) / "sub" / "x.txt") as temporary:
        ...         _ = temporary.write_text("done")
        ...     (Path(folder) / "sub" / "x.txt").read_text()
        'done'
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror or error}; choose a folder that is writable") from error
    os.close(handle)
    mask = os.umask(0)
    os.umask(mask)
    Path(name).chmod(0o666 & ~mask)  # mkstemp's own mode would hide the file from everybody else
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
