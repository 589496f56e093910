from __future__ import annotations

import gzip
import hashlib
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cheaplip.data.idx import FileInfo, parse_idx, read_verified

shapes = st.lists(st.integers(0, 5), min_size=1, max_size=4)


def idx(array: np.ndarray[Any, Any]) -> bytes:
    sizes = np.array(array.shape, ">u4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def info_of(content: bytes, name: str = "file") -> FileInfo:
    return FileInfo(name, hashlib.sha256(content).hexdigest(), len(content))


@given(shapes, st.randoms(use_true_random=False))
def test_idx_gives_back_the_array_that_was_written(shape: list[int], random: Any) -> None:
    array = np.array([random.randrange(256) for _ in range(int(np.prod(shape)))], np.uint8).reshape(shape)
    assert np.array_equal(parse_idx(idx(array)), array)


@given(shapes, st.data())
def test_idx_of_a_wrong_length_is_refused(shape: list[int], data: st.DataObject) -> None:
    content = idx(np.zeros(shape))
    wrong = data.draw(st.sampled_from([content[:k] for k in range(len(content))] + [content + b"\0"]))
    with pytest.raises(ValueError, match=r"^mine .*(cut short|must have|is no IDX file)"):
        parse_idx(wrong, "mine")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (bytes([1, 0, 8, 1]), "is no IDX file: expected it to begin with 00 00, got '01 00 08 01'"),
        (bytes([0, 0, 13, 1]), r"must hold unsigned bytes \(IDX type 08\); got type 0d"),
        (bytes([0, 0, 8, 0]), "no room for the sizes of its 0 dimensions"),
        (bytes([0, 0, 8, 4]), "no room for the sizes of its 4 dimensions"),
        (bytes([0, 0, 8, 1, 255, 255, 255, 255]), "must have 4,294,967,303 bytes"),
    ],
)
def test_idx_header_that_lies_is_refused(header: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_idx(header)


@given(st.binary(min_size=1, max_size=200), st.data())
def test_any_altered_bit_is_noticed(tmp_path_factory: pytest.TempPathFactory, content: bytes, data: Any) -> None:
    path = tmp_path_factory.mktemp("bits") / "file"
    place, bit = data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(0, 7))
    altered = bytearray(content)
    altered[place] ^= 1 << bit
    for wrap in (bytes, gzip.compress):
        path.write_bytes(wrap(bytes(content)))
        if content[:2] != b"\x1f\x8b":
            assert read_verified(path, info_of(content), "fetch it") == content
        path.write_bytes(wrap(bytes(altered)))
        with pytest.raises(ValueError, match="fetch it"):
            read_verified(path, info_of(content), "fetch it")


def test_gzip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(bytes(50_000_000)))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="holds more than the expected 1,000 bytes"):
            read_verified(path, info_of(bytes(1000)), "")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000
