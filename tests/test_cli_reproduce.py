"""The commands reproduce and report: what they print, their exit status, and one line for every wrong thing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cheaplip import experiments
from cheaplip.cli import main
from cheaplip.cli.parser import EXPERIMENTS

TABLE = ["reproduce", "table1", "--data", "digits", "--limit", "10"]


def fails(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    """Run a command that must end with status 2 and this one line."""
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("cheaplip: ")
    assert told.err.count("\n") == 1
    assert message in told.err


def test_the_command_knows_all_experiments() -> None:
    assert EXPERIMENTS == experiments.NAMES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["reproduce", "figure3"], "figure3"),
        (["reproduce"], "experiment"),
        (["reproduce", "table1", "--seeds", "0"], "seeds must be a whole number of at least 1; got 0"),
        (["reproduce", "table1", "--jobs", "none"], "jobs must be a whole number of at least 1, or null; got 'none'"),
        (
            ["reproduce", "table1", "--data", "cifar"],
            "table1 is made of mnist, fashion-mnist, digits; got data 'cifar'",
        ),
        (["reproduce", "table1", "--run", "x"], "table1 has no setting run; got x: leave it out"),
        (["reproduce", "table1", "--seed", "3"], "unknown option --seed, did you mean --seeds?"),
        (["reproduce", "table1", "--data", "mnist", "--data-dir", "nowhere"], "nowhere"),
        (["reproduce", "toy", "--data", "mnist"], "toy has no setting data; got mnist: leave it out"),
        (["report"], "runs"),
        (["report", "nowhere"], "expected a run folder, found no folder nowhere"),
    ],
)
def test_what_a_user_may_get_wrong_is_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    fails(capsys, arguments, message)
    assert list(tmp_path.iterdir()) == []


def test_folder_of_something_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    fails(capsys, [*TABLE, "--out", str(tmp_path)], "holds other files than those of an experiment")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_stopped_command_says_how_to_go_on_and_loses_nothing(tmp_path: Path) -> None:
    arguments = [*TABLE, "--epochs", "200", "--jobs", "1", "--out", str(tmp_path / "out")]
    running = subprocess.Popen([sys.executable, "-m", "cheaplip", *arguments], stderr=subprocess.PIPE, text=True)
    begun = time.monotonic()
    while not list(tmp_path.glob("out/digits/*/seed-0/metrics.csv")) and time.monotonic() < begun + 120:
        time.sleep(0.1)
    os.kill(running.pid, signal.SIGTERM)
    _, told = running.communicate(timeout=60)
    assert running.returncode == 143
    assert "what is finished is kept: go on with cheaplip reproduce table1 --data digits" in told
    assert "Traceback" not in told
    assert json.loads((tmp_path / "out" / "experiment.json").read_text())["experiment"] == "table1"
    assert list((tmp_path / "out").rglob(".*")) == []  # no temporary file is left
