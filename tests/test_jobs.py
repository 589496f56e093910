from __future__ import annotations

import os
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


def test_results_come_in_the_order_of_the_jobs() -> None:
    jobs = [Job(str(k), pow, (k, 2)) for k in range(5)]
    assert run_all(jobs, Place(workers=2)) == [0, 1, 4, 9, 16]


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
