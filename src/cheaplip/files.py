"""Files are written whole or not at all, and folders by one command at a time."""

from __future__ import annotations

import errno
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_ROOM = "make room there and go on, or choose another folder"
_REMEDIES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: "allow larger files (ulimit -f), or choose another folder",
    errno.ENOENT: "the folder is gone; put it back and go on, or choose another one",
}
_CHOOSE = "choose a folder that is writable"


@contextmanager
def whole(path: str | Path, *, make: bool = True) -> Iterator[Path]:
    """Give a temporary path to write to, which becomes ``path`` when the block ends without an error.

    The temporary file lies beside ``path``, its name begins with a dot, and it goes if the block fails. Only a process
    that is killed leaves it; whoever writes the same file next removes it.

    Args:
        path: the file to write.
        make: create its folder; False where the folder must be there, such as that of a run.

    Raises:
        ValueError: if the folder cannot be created or written to, or the disk is full; what was there before stays.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with whole(Path(folder) / "sub" / "x.txt") as temporary:
        ...         _ = temporary.write_text("done")
        ...     (Path(folder) / "sub" / "x.txt").read_text()
        'done'
    """
    path = Path(path)
    try:
        if make:
            path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path)
        handle, temporary = _new(path)
    except OSError as error:
        raise _refusal(path, error) from error
    try:
        yield temporary
        os.fsync(handle)
        if sys.platform == "win32":  # there nobody renames a file that is open
            os.close(handle)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch speaks of positions in its archive where the disk is full
        cause = _cause(error)
        if cause is None:
            raise
        raise _refusal(path, cause) from error
    finally:
        with suppress(OSError):  # closed already; on a disk that became read-only the file stays
            os.close(handle)
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _new(path: Path) -> tuple[int, Path]:
    """Make a temporary file, and lock it as long as it is open, to tell it from one that a killed process left."""
    for last in (False, False, False, True):  # some disks count no links
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        if not _lock(handle, wait=True) or os.fstat(handle).st_nlink or last:
            break
        os.close(handle)  # it looked stale to somebody before it was locked
    mask = os.umask(0)
    os.umask(mask)
    Path(name).chmod(0o666 & ~mask)  # mkstemp's own mode would hide the file from everybody else
    return handle, Path(name)


def _remove_stale(path: Path) -> None:
    """Remove what killed processes left when they wrote this file."""
    ours = re.compile(rf"\.{re.escape(path.name)}\.[a-z0-9_]{{8}}{re.escape(path.suffix)}")
    names: list[str] = []
    with suppress(OSError):
        names = os.listdir(path.parent)  # noqa: PTH208 - names are enough, and the folder may be large
    for stale in (path.parent / name for name in names if ours.fullmatch(name)):
        with suppress(OSError):
            handle = os.open(stale, os.O_RDWR)
            try:
                if _lock(handle):
                    stale.unlink()
            finally:
                os.close(handle)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Make a folder if there is none, and keep other commands out of it for the length of a block.

    Only those are kept out that ask likewise; a process that is killed keeps nobody out. Where the disk or the system
    knows no locks on folders nobody is.

    Raises:
        ValueError: if another command is at work there, or the folder cannot be made.

    Example:
        >>> with tempfile.TemporaryDirectory() as name, alone(Path(name)), alone(Path(name)):
        ...     pass
        Traceback (most recent call last):
        ValueError: another command is at work in ...: wait until it is done, or choose another folder
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refusal(folder, error) from error
    handle = None
    with suppress(OSError):  # Windows opens no folders
        handle = os.open(folder, os.O_RDONLY)
    try:
        if handle is not None and _lock(handle) is False:
            raise ValueError(f"another command is at work in {folder}: wait until it is done, or choose another folder")
        yield
    finally:
        if handle is not None:
            os.close(handle)


@contextmanager
def changing(path: Path) -> Iterator[None]:
    """Keep a file from others who change it likewise, from reading it until it is written anew by :func:`whole`.

    Who comes second waits, so the block should be short. Nobody is kept out where the file is missing, or the disk or
    the system knows no locks.

    Example:
        >>> with tempfile.TemporaryDirectory() as name:
        ...     file = Path(name) / "count"
        ...     _ = file.write_text("1")
        ...     with changing(file), whole(file) as temporary:
        ...         _ = temporary.write_text(str(int(file.read_text()) + 1))
        ...     file.read_text()
        '2'
    """
    with ExitStack() as held:
        with suppress(OSError):
            while sys.platform != "win32":  # there nobody renames onto a file that is open
                handle = os.open(path, os.O_RDONLY)
                held.callback(os.close, handle)
                # Whoever held the lock may have put another file in this one's place meanwhile.
                if _lock(handle, wait=True) is None or os.path.samestat(os.fstat(handle), path.stat()):
                    break
        yield


def _lock(handle: int, *, wait: bool = False) -> bool | None:
    """Lock an open file or folder; False where another process holds it, None where the disk knows no locks."""
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _cause(error: BaseException | None) -> OSError | None:
    """Return the failure of the disk behind an error, or None."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def _refusal(path: Path, error: OSError) -> ValueError:
    remedy = _REMEDIES.get(error.errno or 0, _CHOOSE)
    return ValueError(f"cannot write {path}: {error.strerror or error}; {remedy}")
