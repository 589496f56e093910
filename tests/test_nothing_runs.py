"""Nothing that is loaded runs code: payloads in every file are refused in one sentence, and never run."""

from __future__ import annotations

import gzip
import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzz_kinds import RESUME, prepare
from fuzzing import contents

import cheaplip as cl
from cheaplip import data, runs
from cheaplip.attacks import Patch
from cheaplip.cli import main

MARK = Path("mark")


class Payload:
    """Unpickled, it leaves a mark where it is unpickled."""

    def __reduce__(self) -> Any:
        return Path.touch, (MARK,)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("made") / "files", experiment=False)


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a run and its files to work in."""
    import shutil

    shutil.copytree(made / "base", tmp_path / "here")
    monkeypatch.syspath_prepend(str(made / "code"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def pickled() -> bytes:
    return pickle.dumps(Payload())


def saved() -> bytes:
    stream = io.BytesIO()
    torch.save({"model": Payload(), "rows": []}, stream)
    return stream.getvalue()


def archived() -> bytes:
    stream = io.BytesIO()
    held = np.array([Payload()], dtype=object)
    np.savez(stream, allow_pickle=True, about=held, picture=held, x=held, y=held)
    return stream.getvalue()


def arrayed() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([Payload()], dtype=object), allow_pickle=True)
    return stream.getvalue()


FORMS: dict[str, Callable[[], bytes]] = {"pickle": pickled, "torch": saved, "npz": archived, "npy": arrayed}
EVALUATE = ["evaluate", "one", "--attacks", "noise", "--limit", "4"]
READERS = {
    "begun/checkpoint.pt": RESUME,
    "one/model.safetensors": EVALUATE,
    "one/config.yaml": EVALUATE,
    "one/result.json": ["compare", "one", "two"],
    "one/metrics.csv": ["report", "one", "--out", "page.html"],
    "one/robust.npz": ["compare", "one", "two"],
    "certificate.npz": ["bounds", "one", "--check", "certificate.npz"],
    "settings.yaml": ["train", "--config", "settings.yaml", "--out", "new"],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("file", READERS)
def test_pickle_in_any_file_is_refused_in_one_sentence_and_never_runs(
    form: str, file: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / file).write_bytes(FORMS[form]())
    before = contents(here)
    assert main(READERS[file]) == 2
    told = capsys.readouterr().err
    assert told.startswith("cheaplip: ")
    assert told.count("\n") == 1
    assert contents(here) == before
    assert not MARK.exists()


@pytest.mark.parametrize("form", FORMS)
def test_pickle_as_a_patch_is_refused_and_never_runs(form: str, here: Path) -> None:
    (here / "patch.npz").write_bytes(FORMS[form]())
    with pytest.raises(ValueError, match="holds no patch") as raised:
        Patch.load("patch.npz")
    assert "\n" not in str(raised.value)
    assert not MARK.exists()


def test_payload_does_run_where_it_is_let_in(here: Path) -> None:
    pickle.loads(pickled())
    assert MARK.exists()
    MARK.unlink()
    np.load(io.BytesIO(arrayed()), allow_pickle=True)
    assert MARK.exists()


TAGS = [
    "!!python/object/apply:pathlib.Path.touch [mark]",
    "!!python/object/new:pathlib.Path [mark]",
    "!!python/name:os.system",
    "!!python/module:antigravity",
    "data: !!python/object/apply:os.system ['touch mark']",
    "lipschitz: {pairs: !!python/object/apply:pathlib.Path.touch [mark]}",
]


@pytest.mark.parametrize("text", TAGS)
@pytest.mark.parametrize("file", ["settings.yaml", "one/config.yaml"])
def test_python_tags_in_yaml_are_refused(text: str, file: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / file).write_text(text)
    assert main(READERS[file]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not MARK.exists()


def test_archive_whose_names_climb_out_of_the_folder_leaves_nothing_there(here: Path) -> None:
    with zipfile.ZipFile("one/robust.npz", "a") as archive:
        archive.writestr("../../evil.npy", b"\x93NUMPY")
        archive.writestr("/tmp/evil.npy", b"\x93NUMPY")
    outside = contents(here.parent)
    with pytest.raises(ValueError, match="damaged"):
        runs.read_samples("one")
    assert contents(here.parent) == outside
    assert not Path("/tmp/evil.npy").exists()


@pytest.mark.parametrize("name", ["../mnist", "mnist/../..", "/etc", "mnist\0", "MNIST"])
def test_data_set_whose_name_is_a_path_is_refused(name: str, here: Path) -> None:
    for call in (data.fetch, data.verify, data.load):
        with pytest.raises((ValueError, TypeError)) as raised:
            call(name, data_dir="data")
        assert "\n" not in str(raised.value)


def test_name_inside_a_zipped_data_file_is_not_believed(here: Path) -> None:
    file = here / "data" / "MNIST" / "raw" / "train-labels-idx1-ubyte.gz"
    with file.open("wb") as raw, gzip.GzipFile("../../../../evil", "wb", fileobj=raw) as zipped:
        zipped.write(b"\0\0\x08\x01")
    before = contents(here.parent)
    assert main(["data", "verify", "--data", "mnist", "--data-dir", "data"]) == 2
    assert contents(here.parent) == before


@pytest.mark.parametrize(("command", "words"), [("train", "which runs its code"), ("bounds", "whose code is run")])
def test_help_says_where_the_users_own_code_is_run(
    command: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--help"]) == 0
    assert words in " ".join(capsys.readouterr().out.split())


def test_message_commands_no_terminal_and_fills_no_screen(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "settings.yaml").write_text('"\\e]0;owned\\a\\e[2J' + "x" * 5000 + '": 1\n')
    assert main(READERS["settings.yaml"]) == 2
    told = capsys.readouterr().err
    assert told.removesuffix("\n").isprintable()
    assert len(told) < 1000


def test_run_named_like_a_tag_stays_text_in_a_report(here: Path) -> None:
    (here / "one").rename(here / "<script>alert(1)<")
    assert main(["report", "<script>alert(1)<", "--out", "page.html"]) == 0
    assert "<script>alert(1)" not in (here / "page.html").read_text("utf-8")
    assert cl.load("<script>alert(1)<") is not None
