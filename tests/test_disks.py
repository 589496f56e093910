"""Disks that are full, read-only or gone, and what killed processes left: one sentence, and nothing half-written."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
import torch
from test_training import Run, same_bits
from torch import Tensor, nn

import cheaplip as cl
from cheaplip.cli import main
from cheaplip.data import load
from cheaplip.experiments import figure1, stages
from cheaplip.files import alone, changing, whole
from cheaplip.runs import attacking, finished, pipeline, read_result
from cheaplip.training.checkpoint import FILE, METRICS


def torn(path: Path) -> Path:
    """Leave what a killed process leaves that was writing a file."""
    left = path.with_name(f".{path.name}.abcd_123{path.suffix}")
    left.write_bytes(b"half")
    return left


def test_what_a_killed_process_left_goes_when_the_file_is_written_again(tmp_path: Path) -> None:
    mine, other = torn(tmp_path / "x.txt"), torn(tmp_path / "y.txt")
    notes = tmp_path / ".x.txt.notes"
    notes.touch()
    with whole(tmp_path / "x.txt") as temporary:
        temporary.write_text("done")
    assert not mine.exists()
    assert other.exists()
    assert notes.exists()


def test_what_another_process_is_writing_stays(tmp_path: Path) -> None:
    with whole(tmp_path / "x.txt") as first:
        first.write_text("first")
        with whole(tmp_path / "x.txt") as second:
            second.write_text("second")
        assert first.exists()
    assert (tmp_path / "x.txt").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]


@contextmanager
def limited(size: int) -> Iterator[None]:
    """Let no file grow larger than so many bytes, in this process and those that it starts."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # What workers fork off keeps the limit that it began with: it begins anew inside, and again after.
    server: Any = forkserver._forkserver
    server._stop()
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        server._stop()
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_checkpoint_that_has_no_room_is_told_in_one_line_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with limited(10_000):
        assert main(["train", "--epochs", "2", "--out", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err
    assert f"cannot write {tmp_path / 'run' / FILE}: File too large" in told
    assert told.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def fails(number: int, at: int, monkeypatch: pytest.MonkeyPatch, name: str = "fsync") -> None:
    """Let a call of the operating system fail from its n-th time on."""
    real, calls = getattr(os, name), iter(range(1, 1_000_000))

    def call(*arguments: Any) -> Any:
        if next(calls) >= at:
            raise OSError(number, os.strerror(number))
        return real(*arguments)

    monkeypatch.setattr(os, name, call)


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "No space left on device; make room there"),
        (errno.EDQUOT, "make room there"),
        (errno.EROFS, "Read-only file system; choose a folder that is writable"),
        (errno.EIO, "choose a folder that is writable"),
    ],
)
def test_disk_that_fails_in_training_leaves_the_earlier_checkpoint(
    number: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed, resumed = Run(), Run()
    undisturbed.fit(epochs=3)
    with monkeypatch.context() as patch:
        fails(number, 3, patch)  # checkpoint and history of the first epoch are written
        with pytest.raises(ValueError, match=f"cannot write .*{FILE}: .*{says}") as caught:
            Run().fit(epochs=3, checkpoint=tmp_path)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE, METRICS]
    resumed.fit(epochs=3, checkpoint=tmp_path, resume=True)
    assert same_bits(undisturbed.state(), resumed.state())


def test_full_disk_is_named_where_torch_names_a_position(tmp_path: Path) -> None:
    class Full:
        def write(self, content: bytes) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def flush(self) -> None:
            pass

    full: Any = Full()
    with pytest.raises(ValueError, match=r"cannot write .*x\.pt: No space left") as caught, whole(tmp_path / "x.pt"):
        torch.save({"weights": torch.zeros(10_000)}, full)
    assert "\n" not in str(caught.value)
    with pytest.raises(RuntimeError, match="another fault"), whole(tmp_path / "x.pt"):
        raise RuntimeError("another fault")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", "--model", "mlp:64-16-10:relu", "--epochs", "1", "--out", str(folder)]) == 0
    return folder


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_disk_that_fails_in_evaluation_changes_nothing(
    number: int, finished_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(finished_run)
    fails(number, 1, monkeypatch)
    assert main(["evaluate", str(finished_run), "--attacks", "noise", "--limit", "5"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"cheaplip: cannot write {finished_run / 'robust.npz'}: {os.strerror(number)}")
    assert told.count("\n") == 1
    assert contents(finished_run) == before


def test_folder_that_vanishes_is_told_and_not_made_anew(tmp_path: Path) -> None:
    gone = tmp_path / "gone"

    def vanish(_: nn.Module) -> float:
        shutil.rmtree(gone)
        return 0.0

    with pytest.raises(ValueError, match=f"cannot write .*{FILE}: .*; the folder is gone; put it back and go on"):
        Run().fit(epochs=3, checkpoint=gone, select=vanish)
    assert not gone.exists()


def test_run_that_vanishes_in_evaluation_is_told_and_not_made_anew(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))

    def vanish(self: Any, model: Any, x: Tensor, y: Tensor) -> Tensor:
        shutil.rmtree(run, ignore_errors=True)
        return x

    monkeypatch.setattr(cl.attacks.Gaussian, "__call__", vanish)
    assert main(["evaluate", str(run), "--attacks", "noise", "--limit", "5"]) == 2
    assert "the folder is gone" in capsys.readouterr().err
    assert not run.exists()


@pytest.mark.parametrize(
    ("words", "jobs_of"), [("figure1 --data digits", figure1), ("figure2", stages), ("path", stages)]
)
def test_experiment_whose_folder_vanishes_is_told_and_not_made_anew(
    words: str, jobs_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(jobs_of, "run_all", lambda *_, **__: shutil.rmtree(out))
    assert main(["reproduce", *words.split(), "--out", str(out)]) == 2
    assert f"{out} was moved or deleted while the experiment ran" in capsys.readouterr().err
    assert not out.exists()


def test_two_commands_do_not_train_in_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "--epochs", "1", "--model", "mlp:64-10", "--out", str(tmp_path / "run")]
    with alone(tmp_path / "run"):
        assert main(command) == 2
        assert f"another command is at work in {tmp_path / 'run'}: wait until it is done" in capsys.readouterr().err
        assert list((tmp_path / "run").iterdir()) == []
    assert main(command) == 0
    assert finished(tmp_path / "run")


def test_run_that_another_command_made_meanwhile_stays(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def made_meanwhile(*arguments: Any, **others: Any) -> Any:
        shutil.copytree(finished_run, tmp_path / "run")
        return load(*arguments, **others)

    monkeypatch.setattr(pipeline, "load", made_meanwhile)
    assert main(["train", "--epochs", "1", "--out", str(tmp_path / "run")]) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert contents(tmp_path / "run") == contents(finished_run)


def test_bounds_found_while_attacks_ran_stay(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))

    def bounded_meanwhile(*_: Any) -> None:
        assert main(["bounds", str(run), "--seconds", "1"]) == 0

    monkeypatch.setattr(attacking, "draw_attacked", bounded_meanwhile)
    assert main(["evaluate", str(run), "--attacks", "noise", "--limit", "5"]) == 0
    found = read_result(run)
    assert found["seconds"]["bounds"] > 0
    assert [entry["attack"] for entry in found["robust"]] == ["noise"]


def test_several_may_write_one_file_at_once(tmp_path: Path) -> None:
    def write(number: int) -> None:
        with whole(tmp_path / "x.txt") as temporary:
            temporary.write_text(str(number))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(200)))
    assert int((tmp_path / "x.txt").read_text()) in range(200)
    assert [file.name for file in tmp_path.iterdir()] == ["x.txt"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps nobody out")
def test_no_change_of_a_file_by_several_at_once_is_lost(tmp_path: Path) -> None:
    file = tmp_path / "count"
    file.write_text("0")

    def count(_: int) -> None:
        with changing(file):
            known = int(file.read_text())
            with whole(file) as temporary:
                temporary.write_text(str(known + 1))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(count, range(100)))
    assert file.read_text() == "100"
    assert list(tmp_path.iterdir()) == [file]


def test_two_commands_do_not_attack_in_one_folder(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(finished_run)
    with alone(finished_run):
        assert main(["evaluate", str(finished_run), "--attacks", "noise", "--limit", "5"]) == 2
    assert f"another command is at work in {finished_run}" in capsys.readouterr().err
    assert contents(finished_run) == before


def test_folder_is_free_again_when_the_process_that_had_it_was_killed(tmp_path: Path) -> None:
    program = "import sys, time, pathlib; from cheaplip.files import alone\n"
    program += "with alone(pathlib.Path(sys.argv[1])): print('in', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "in\n"
        with pytest.raises(ValueError, match="another command is at work"), alone(tmp_path):
            pass
        other.kill()
    with alone(tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_folder_on_a_disk_without_locks_is_open_to_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("cheaplip.files.fcntl.flock", refuse)
    with alone(tmp_path), alone(tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_read_only_folder_is_told_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tmp_path.chmod(0o500)
    try:
        if os.access(tmp_path, os.W_OK):
            pytest.skip("root may write everywhere")
        for command in (["train", "--out"], ["reproduce", "table1", "--data", "digits", "--out"]):
            assert main([*command, str(tmp_path / "run")]) == 2
            assert "cannot write" in capsys.readouterr().err
    finally:
        tmp_path.chmod(0o700)
    assert list(tmp_path.iterdir()) == []


def test_reproduction_says_that_its_disk_is_full(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = ["reproduce", "table1", "--data", "digits", "--epochs", "1", "--limit", "5", "--jobs", "1"]
    with limited(10_000):
        assert main([*table, "--out", str(tmp_path / "table")]) == 2
    told = capsys.readouterr().err
    assert f"{FILE}: File too large" in told
    assert told.count("\n") == 1
    assert [path.name for path in (tmp_path / "table").rglob("*") if path.is_file()] == ["experiment.json"]
