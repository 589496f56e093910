"""Read IDX files, the format of MNIST: a header of big-endian numbers, then the bytes of an array.

Reading never runs code from a file, never reads further than the size that is expected (a small gzip file can
hold gigabytes of zeros), and believes no byte before the SHA-256 of all of them fits.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray

Bytes: TypeAlias = NDArray[np.uint8]

_GZIP = b"\x1f\x8b"
_UNSIGNED_BYTES = 0x08


@final
@dataclass(frozen=True)
class FileInfo:
    """What a file must be.

    Args:
        name: its name without ``.gz``.
        sha256: of its decompressed bytes, in hexadecimal.
        bytes: how many they are.
    """

    name: str
    sha256: str
    bytes: int


def parse_idx(content: bytes, name: str = "the IDX file") -> Bytes:
    """Return the array in the bytes of an IDX file of unsigned bytes, read-only and without a copy.

    Args:
        content: the whole file, decompressed.
        name: what to call it in an error.

    Raises:
        ValueError: if the header is no IDX header of unsigned bytes, or the length does not fit it.

    Example:
        >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 3]) + b"abc").tolist()
        [97, 98, 99]
    """
    if len(content) < 4 or content[:2] != b"\0\0":
        raise ValueError(f"{name} is no IDX file: expected it to begin with 00 00, got {content[:4].hex(' ')!r}")
    if content[2] != _UNSIGNED_BYTES:
        raise ValueError(f"{name} must hold unsigned bytes (IDX type 08); got type {content[2]:02x}")
    dims = content[3]
    header = 4 + 4 * dims
    if dims == 0 or len(content) < header:
        raise ValueError(f"{name} is cut short: no room for the sizes of its {dims} dimensions")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", dims, offset=4))
    expected = header + math.prod(shape)
    if len(content) != expected:
        raise ValueError(f"{name} must have {expected:,} bytes for shape {shape}; got {len(content):,}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def read_verified(path: Path, info: FileInfo, remedy: str) -> bytes:
    """Return the decompressed bytes of a file, gzipped or plain, after checking that they are the right ones.

    Args:
        path: the file; whether it is gzipped is told by its first bytes, as browsers unpack without renaming.
        info: what it must be.
        remedy: how to get it anew, the end of each error.

    Raises:
        ValueError: if the file cannot be read, is cut short, too long or altered.
    """
    content = _read(path, info.bytes + 1, remedy)
    if len(content) > info.bytes:
        raise ValueError(f"{path} holds more than the expected {info.bytes:,} bytes; {remedy}")
    if len(content) < info.bytes:
        raise ValueError(f"{path} is cut short: expected {info.bytes:,} bytes, got {len(content):,}; {remedy}")
    digest = hashlib.sha256(content).hexdigest()
    if digest != info.sha256:
        raise ValueError(f"{path} was altered: expected SHA-256 {info.sha256}, got {digest}; {remedy}")
    return content


def _read(path: Path, limit: int, remedy: str) -> bytes:
    try:
        with path.open("rb") as file:
            if file.peek(2)[:2] != _GZIP:
                return file.read(limit)
            with gzip.GzipFile(fileobj=file) as unzipped:
                return unzipped.read(limit)
    except EOFError:
        raise ValueError(f"{path} is cut short: its gzip stream has no end; {remedy}") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged: it cannot be unzipped ({error}); {remedy}") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error}); {remedy}") from error
