from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cheaplip.data import fetch, find_dir, load, registry, verify
from cheaplip.data.idx import FileInfo
from cheaplip.data.registry import FILE_SETS, FileSet


def idx(array: np.ndarray[Any, Any]) -> bytes:
    sizes = np.array(array.shape, ">u4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def info_of(content: bytes, name: str = "file") -> FileInfo:
    return FileInfo(name, hashlib.sha256(content).hexdigest(), len(content))


FILES = {
    "train-images-idx3-ubyte": idx(np.arange(20 * 9).reshape(20, 3, 3)),
    "train-labels-idx1-ubyte": idx(np.arange(20) % 10),
    "t10k-images-idx3-ubyte": idx(np.arange(8 * 9).reshape(8, 3, 3) + 50),
    "t10k-labels-idx1-ubyte": idx(np.arange(8)),
}
FIRST = "train-images-idx3-ubyte"
PAGES = {f"{name}.gz": gzip.compress(content) for name, content in FILES.items()}


def write(folder: Path, name: str = FIRST, content: bytes | None = None) -> Path:
    """Put one file where the tiny data set wants it."""
    path = folder / "Tiny" / "raw" / f"{name}.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(PAGES[path.name] if content is None else content)
    return path


def fill(folder: Path) -> Path:
    for name in FILES:
        write(folder, name)
    return folder


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


class Mirror:
    """A web server on this machine with the given pages, that remembers what it was asked for."""

    def __init__(self, pages: dict[str, bytes]) -> None:
        self.asked: list[str] = []
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.rpartition("/")[2]
                asked.append(name)
                self.send_response(200 if name in pages else 404)
                self.send_header("Content-Length", str(len(pages.get(name, b""))))
                self.end_headers()
                self.wfile.write(pages.get(name, b""))

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


Serve = Callable[..., list[Mirror]]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty world: an empty cache, an empty current folder, no variable, and a tiny data set without mirrors."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("CHEAPLIP_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(registry, "cache_dir", lambda: tmp_path / "cache")
    infos = [info_of(content, name) for name, content in FILES.items()]
    monkeypatch.setitem(FILE_SETS, "tiny", FileSet("Tiny", (), (infos[0], infos[1], infos[2], infos[3])))
    return tmp_path / "cache"


@pytest.fixture
def serve(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Start mirrors, one for each set of pages; None is a mirror that is down."""
    running: list[Mirror] = []

    def start(*pages: dict[str, bytes] | None) -> list[Mirror]:
        mirrors = [Mirror(page or {}) for page in pages]
        for mirror, page in zip(mirrors, pages, strict=True):
            if page is None:
                mirror.stop()
            else:
                running.append(mirror)
        tiny = FILE_SETS["tiny"]
        monkeypatch.setitem(FILE_SETS, "tiny", FileSet("Tiny", tuple(m.url for m in mirrors), tiny.files))
        return mirrors

    yield start
    for mirror in running:
        mirror.stop()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (PAGES[f"{FIRST}.gz"][:-9], "is cut short: its gzip stream has no end"),
        (FILES[FIRST][:-1], "is cut short: expected 196 bytes, got 195"),
        (gzip.compress(FILES[FIRST] + b"x"), "holds more than the expected 196 bytes"),
        (PAGES[f"{FIRST}.gz"][:10] + b"\xff" * 30, "is damaged: it cannot be unzipped"),
        (FILES[FIRST][:-1] + b"x", "was altered: expected SHA-256 [0-9a-f]{64}, got "),
        (b"", "is cut short: expected 196 bytes, got 0"),
    ],
    # Names of their own: a gzip header holds the time, and workers that collect in different seconds would disagree.
    ids=["no end", "short", "long", "damaged", "altered", "empty"],
)
def test_unfit_file_is_named_with_the_command_that_mends_it(cache: Path, content: bytes, message: str) -> None:
    path = write(fill(cache), content=content)
    with pytest.raises(ValueError, match=f"^{path} {message}") as caught:
        load("tiny", data_dir=cache)
    assert str(caught.value).endswith(f"; `cheaplip data fetch --data-dir {cache}` gets it anew")
    assert "\n" not in str(caught.value)
    statuses = {check.file.name: check.status for check in verify("tiny", cache)}
    assert statuses == {**dict.fromkeys(PAGES, "ok"), path.name: "altered"}


def test_data_folder_is_the_argument_then_the_variable_then_here_then_the_cache(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_dir("tiny") == cache  # empty still
    fill(Path("data"))
    assert find_dir("tiny") == Path("data")
    monkeypatch.setenv("CHEAPLIP_DATA", str(fill(tmp_path / "variable")))
    assert find_dir("tiny") == tmp_path / "variable"
    assert find_dir("tiny", fill(tmp_path / "argument")) == tmp_path / "argument"
    monkeypatch.setenv("CHEAPLIP_DATA", "")
    next(Path("data").rglob("*labels*")).unlink()
    assert find_dir("tiny") == cache


def test_named_folder_without_the_data_is_an_error_and_nothing_is_downloaded(
    cache: Path, tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    (mirror,) = serve(PAGES)
    fill(cache)
    wanted = tmp_path / "empty" / "Tiny" / "raw" / FIRST
    with pytest.raises(FileNotFoundError, match=f"^expected {wanted}.gz .*cheaplip data fetch --data-dir .*empty"):
        load("tiny", data_dir=tmp_path / "empty")
    monkeypatch.setenv("CHEAPLIP_DATA", str(tmp_path / "empty"))
    with pytest.raises(FileNotFoundError, match=str(wanted)):
        load("tiny")
    assert mirror.asked == []
    assert not (tmp_path / "empty").exists()


def test_plain_files_serve_as_well_as_gzipped_ones(cache: Path) -> None:
    one = load("tiny", data_dir=fill(cache), lipschitz=4, selection=2)
    for path in cache.rglob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    other = load("tiny", data_dir=cache, lipschitz=4, selection=2)
    assert one.train.x.equal(other.train.x)
    assert one.test.x.equal(other.test.x)
    assert (len(one.train), one.shape) == (14, (1, 3, 3))
    assert (one.test.x[0].flatten() * 255).round().tolist() == list(range(50, 59))


def test_load_downloads_what_is_nowhere_into_the_cache(cache: Path, serve: Serve) -> None:
    (mirror,) = serve(PAGES)
    data = load("tiny", lipschitz=4, selection=2)
    assert len(data.train) == 14
    assert names_in(cache) == sorted(PAGES)
    load("tiny", lipschitz=4, selection=2)
    assert sorted(mirror.asked) == sorted(PAGES)


@pytest.mark.parametrize(
    "first",
    [
        None,
        {},
        dict.fromkeys(PAGES, b"<html>sorry</html>"),
        {name: page[:-20] for name, page in PAGES.items()},
        {name: gzip.compress(bytes(200)) for name in PAGES},
        {name: bytes(200_000) for name in PAGES},
    ],
    ids=["down", "404", "no-idx", "cut-short", "altered", "too-long"],
)
def test_second_mirror_helps_out_where_the_first_fails(
    cache: Path, serve: Serve, first: dict[str, bytes] | None
) -> None:
    _, good = serve(first, PAGES)
    assert fetch("tiny", cache, progress=False) == cache
    assert sorted(good.asked) == sorted(PAGES)
    assert {check.status for check in verify("tiny", cache)} == {"ok"}
    assert names_in(cache) == sorted(PAGES)


def test_no_mirror_is_one_sentence_and_leaves_no_file(cache: Path, serve: Serve) -> None:
    serve(None, dict.fromkeys(PAGES, b"corrupt"))
    with pytest.raises(FileNotFoundError) as caught:
        load("tiny")
    sentence = str(caught.value)
    assert sentence.startswith(f"{FIRST}.gz of tiny could not be downloaded (http://127.0.0.1:")
    assert "ConnectionError" in sentence
    assert "what came is cut short: expected 196 bytes, got 7" in sentence
    assert sentence.endswith(f"check the network, or put the file into {cache / 'Tiny' / 'raw'}")
    assert "\n" not in sentence
    assert names_in(cache) == []


def test_download_that_does_not_end_is_broken_off(cache: Path, serve: Serve) -> None:
    serve(dict.fromkeys(PAGES, bytes(200_000)))
    with pytest.raises(FileNotFoundError, match="it sends more than the 65,732 bytes that the file can have"):
        fetch("tiny", cache, progress=False)


def test_fetch_renews_the_missing_and_the_altered_and_leaves_the_rest(cache: Path, serve: Serve) -> None:
    (mirror,) = serve(PAGES)
    missing, altered, *good = [write(cache, name) for name in FILES]
    missing.unlink()
    altered.write_bytes(b"broken")
    before = [path.stat().st_mtime_ns for path in good]
    statuses = [(check.status, check.bytes) for check in verify("tiny", cache)]
    assert statuses == [("missing", 0), ("altered", 6), *(("ok", path.stat().st_size) for path in good)]
    fetch("tiny", cache, progress=False)
    assert mirror.asked == [missing.name, altered.name]
    assert [path.stat().st_mtime_ns for path in good] == before
    assert {check.status for check in verify("tiny", cache)} == {"ok"}


def test_fetch_mends_a_folder_with_an_altered_plain_file(cache: Path, serve: Serve) -> None:
    serve(PAGES)
    plain = write(fill(cache)).with_suffix("")
    plain.with_suffix(".gz").unlink()
    plain.write_bytes(b"broken")
    fetch("tiny", cache, progress=False)
    assert len(load("tiny", data_dir=cache, lipschitz=4, selection=2).test) == 8


def test_fetch_into_a_folder_that_cannot_be_made_says_so(cache: Path, serve: Serve) -> None:
    serve(PAGES)
    Path("data").write_text("a file")
    with pytest.raises(ValueError, match=r"^cannot write into data/Tiny/raw \(.*\): name another data folder$"):
        fetch("tiny", "data")


def test_fetch_shows_a_bar_on_a_terminal_only(
    cache: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(PAGES)
    fetch("tiny", cache)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    fetch("tiny", cache.with_name("other"))
    assert f"{FIRST}.gz" in capsys.readouterr().err


@pytest.mark.parametrize("task", [find_dir, fetch, verify])
def test_data_without_files_has_none_to_look_after(task: Callable[[str], object]) -> None:
    with pytest.raises(ValueError, match="only mnist and fashion-mnist lie in files; got 'digits'"):
        task("digits")


def test_mnist_files_are_the_published_ones(mnist_dir: Path) -> None:
    checks = verify("mnist", mnist_dir)
    assert [check.status for check in checks] == ["ok"] * 4
    assert [check.file.name for check in checks] == [f"{name}.gz" for name in FILES]
