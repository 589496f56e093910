from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from cheaplip.experiments.jobs import Job, Place, cores, run_all


def threads() -> int:
    return torch.get_num_threads()


def fail(text: str) -> None:
    raise ValueError(text)


def fail_after(path: str) -> None:
    while not Path(path).exists():
        time.sleep(0.05)
    fail("what is wrong")


def leave(path: str) -> None:
    Path(path).touch()


def stay(path: str) -> None:
    time.sleep(60)
    leave(path)


def die() -> None:
    os._exit(1)


def be_killed_once(path: str) -> str:
    if Path(path).exists():
        return "again"
    Path(path).touch()
    os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def begin_once(path: str, other: str) -> str:
    Path(path).touch(exist_ok=False)
    while not Path(other).exists():
        time.sleep(0.05)
    time.sleep(0.5)
    return "once"


def told(name: str) -> str | None:
    return os.environ.get(name)


def test_workers_see_the_environment_as_it_is_when_they_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("one", "two"):
        monkeypatch.setenv("CHEAPLIP_TOLD", value)
        assert run_all([Job("tell", told, ("CHEAPLIP_TOLD",))], Place(workers=1)) == [value]


def test_results_come_in_the_order_of_the_jobs_and_no_process_is_left() -> None:
    jobs = [Job(str(k), pow, (k, 2)) for k in range(5)]
    assert run_all(jobs, Place(workers=2)) == [0, 1, 4, 9, 16]
    assert [one for one in multiprocessing.active_children() if one.name == "cheaplip worker"] == []


def test_no_jobs_start_no_process() -> None:
    assert run_all([]) == []


def test_a_job_has_one_thread() -> None:
    assert run_all([Job("threads", threads, ())], Place(workers=1)) == [1]


def test_error_of_a_job_is_raised_and_what_still_runs_is_stopped(tmp_path: Path) -> None:
    first, last = tmp_path / "first", tmp_path / "last"
    jobs = [Job("a", leave, (str(first),)), Job("b", fail_after, (str(first),)), Job("c", stay, (str(last),))]
    with pytest.raises(ValueError, match="what is wrong"):
        run_all(jobs, Place(workers=2))
    assert first.exists()
    assert not last.exists()


def test_a_process_that_dies_is_told_in_a_sentence() -> None:
    with pytest.raises(ChildProcessError, match="the worker of dies died 3 times"):
        run_all([Job("dies", die, ())], Place(workers=1))


@pytest.mark.parametrize("workers", [0, -1])
def test_fewer_than_one_worker_is_refused(workers: int) -> None:
    with pytest.raises(ValueError, match=f"jobs must be a whole number of at least 1; got {workers}"):
        Place(workers=workers)


def test_bar_shows_title_and_the_jobs_that_run(capsys: pytest.CaptureFixture[str]) -> None:
    run_all([Job("the job", time.sleep, (1.2,), done=lambda: 0.5)], Place(workers=1), title="table", progress=True)
    shown = capsys.readouterr().err
    assert "table" in shown
    assert "100%" in shown


def test_cores_are_at_least_one() -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)


class UnpackableError(Exception):
    """Packed, but not unpacked: it needs two arguments."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first + second)


def raise_unpackable() -> None:
    raise UnpackableError("what is", " wrong")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_job_whose_worker_is_killed_is_begun_again_and_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    beside, killed = tmp_path / "beside", tmp_path / "killed"
    jobs = [Job("killed", be_killed_once, (str(killed),)), Job("beside", begin_once, (str(beside), str(killed)))]
    assert run_all(jobs, Place(workers=2)) == ["again", "once"]
    assert "the worker of killed died: it goes on from what it kept, try 2 of 3" in capsys.readouterr().err


def test_all_jobs_are_done_and_errors_come_in_their_places_if_asked() -> None:
    jobs = [Job("a", fail, ("what is wrong",)), Job("b", raise_unpackable, ()), Job("c", pow, (2, 3))]
    wrong, strange, power = run_all(jobs, Place(workers=1), keep_going=True)
    assert isinstance(wrong, ValueError)
    assert str(wrong) == "what is wrong"
    assert isinstance(strange, RuntimeError)
    assert str(strange) == "UnpackableError: what is wrong"
    assert power == 8


def test_what_cannot_be_sent_is_told() -> None:
    with pytest.raises(TypeError, match="a cannot be sent to another process"):
        run_all([Job("a", lambda: 1, ())])
