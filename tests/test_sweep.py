from __future__ import annotations

import csv
import importlib.util
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from cheaplip.cli import main
from cheaplip.experiments import grid, sweep, sweeping
from cheaplip.experiments.grid import runs_of
from cheaplip.runs import finished, read_result
from cheaplip.runs import train as train_run
from cheaplip.settings import SweepSettings, TrainSettings

# A network that kills its process once, right after the first checkpoint, and one that fails while it trains.
FATAL = """
import os, signal
from pathlib import Path
from torch import nn

HERE = Path(__file__).parent

class Fatal(nn.Linear):
    def forward(self, x):
        mark, run = HERE / "killed", HERE / "out" / "model=fatal.killing"
        if self.training and not mark.exists() and (run / "checkpoint.pt").exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)

class Failing(nn.Linear):
    def forward(self, x):
        if self.training:
            raise ValueError("what is wrong")
        return super().forward(x)

def killing():
    return nn.Sequential(nn.Flatten(), Fatal(64, 10))

def failing():
    return nn.Sequential(nn.Flatten(), Failing(64, 10))
"""
RAY = importlib.util.find_spec("ray") is not None
SMALL: dict[str, Any] = {"data": "digits", "epochs": 2, "batch_size": 256, "lower_every": 2}


def write(path: Path, content: Any) -> str:
    path.write_text(yaml.safe_dump(content), "utf-8")
    return str(path)


def kept(folder: Path) -> dict[str, Any]:
    """All of a run but its seconds."""
    result = {key: value for key, value in read_result(folder).items() if key != "seconds"}
    with (folder / "metrics.csv").open(encoding="utf-8") as stream:
        rows = [{k: v for k, v in row.items() if "seconds" not in k} for row in csv.DictReader(stream)]
    return {"result": result, "rows": rows, "weights": (folder / "model.safetensors").read_bytes()}


def test_all_combinations_are_run_each_named_by_its_values() -> None:
    plan = {"epochs": 3, "grid": {"target": [0.9, None], "lipschitz": {"pairs": [4, 8]}}, "cases": [{"seed": 1}, {}]}
    runs = runs_of(plan, Path("out"))
    assert [run.name for run in runs[:5]] == [
        "seed=1,target=0.9,lipschitz.pairs=4",
        "seed=1,target=0.9,lipschitz.pairs=8",
        "seed=1,target=null,lipschitz.pairs=4",
        "seed=1,target=null,lipschitz.pairs=8",
        "target=0.9,lipschitz.pairs=4",
    ]
    assert len(runs) == 8
    assert [run.settings.lipschitz.pairs for run in runs[:2]] == [4, 8]
    assert all(run.settings.epochs == 3 and run.settings.out == str(Path("out") / run.name) for run in runs)


def test_settings_of_a_run_folder_are_a_base_and_the_grid_goes_before() -> None:
    plan = {"epochs": 3, "input": {"shape": [64]}, "versions": {}, "grid": {"epochs": [1, 2]}}
    assert [run.settings.epochs for run in runs_of(plan, Path("out"))] == [1, 2]


def test_settings_of_each_penalty_can_stand_in_a_grid() -> None:
    plan = {"cases": [{"penalty": "trades", "trades": {"eps": 0.5}}, {"penalty": "alp"}], "grid": {"alp.steps": [1, 2]}}
    runs = runs_of(plan, Path("out"))
    assert [run.name for run in runs[:2]] == [
        "penalty=trades,trades.eps=0.5,alp.steps=1",
        "penalty=trades,trades.eps=0.5,alp.steps=2",
    ]
    chosen = [(run.settings.trades.eps, run.settings.alp.steps) for run in runs]
    assert chosen == [(0.5, 1), (0.5, 2), (1.5, 1), (1.5, 2)]


def test_numbers_that_yaml_takes_for_text_are_numbers() -> None:
    plan = yaml.safe_load("grid: {weight: [1e-3, 0.5]}")
    assert [run.settings.weight for run in runs_of(plan, Path("out"))] == [1e-3, 0.5]


def test_folders_of_long_or_like_names_are_told_apart() -> None:
    models = ["a.b:c", "a:b.c", f"{'long' * 50}:one", f"{'long' * 50}:two"]
    names = [run.name for run in runs_of({"grid": {"model": models}}, Path("out"))]
    assert len({name.casefold() for name in names}) == 4
    assert max(map(len, names)) <= grid.LONGEST + 9
    assert names == [run.name for run in runs_of({"grid": {"model": models}}, Path("out"))]


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"epochs": 3}, "a sweep needs a grid of settings"),
        ({"grid": {}}, "a sweep needs a grid of settings"),
        ({"grid": [1]}, "grid must hold settings by name"),
        ({"grid": {"target": []}}, "grid: target must be a list of one value or more"),
        ({"grid": {"target": 0.9}}, "grid: target must be a list of one value or more"),
        ({"grid": {"target": "0.9"}}, "grid: target must be a list of one value or more"),
        ({"grid": {"tarket": [0.9]}}, "unknown setting 'tarket'"),
        ({"grid": {"lipschitz.pears": [2]}}, "unknown setting 'lipschitz.pears'"),
        ({"grid": {"a.b.c": [2]}}, "unknown setting 'a.b.c'"),
        ({"grid": {1: [2]}}, "unknown setting '1' in grid"),
        ({"grid": {"epochs": [1, "two"]}}, "epochs must be a whole number of at least 1; got 'two'"),
        ({"grid": {"epochs": [1, 0]}}, "epochs must be a whole number of at least 1; got 0"),
        ({"grid": {"epochs": [[1]]}}, r"epochs must be a whole number of at least 1; got \[1\]"),
        ({"grid": {"epochs": [1, 1]}}, "the runs epochs=1-........ and epochs=1-........ of the grid have the same"),
        ({"grid": {"weight": [1, 1.0]}}, "the runs weight=1 and weight=1.0 of the grid have the same settings"),
        ({"grid": {"epochs": [1]}, "cases": [{"epochs": 2}]}, "epochs stands in grid and in cases"),
        ({"grid": {"epochs": [1]}, "cases": {"seed": 2}}, "cases must be a list"),
        ({"grid": {"epochs": [1]}, "cases": [3]}, "case 1 must hold settings by name"),
        ({"grid": {"lipschitz.pairs": [1], "lipschitz": {"pairs": [2]}}}, "grid says 'lipschitz.pairs' twice"),
        ({"lipschitz": 3, "grid": {"lipschitz.pairs": [1]}}, "lipschitz must be a mapping of settings; got 3"),
        ({"out": "x", "grid": {"epochs": [1]}}, "a sweep chooses out of each run itself"),
        ({"grid": {"resume": [True]}}, "a sweep chooses resume of each run itself"),
        ({"devices": 2, "grid": {"epochs": [1]}}, "each run of a sweep is one process; got devices 2, nodes 1"),
        ({"grid": {"data": ["digits", "no:such"]}}, "no:such"),
        ({"grid": {"model": ["mlp:64-10", "mlp:64-7"]}}, "the run model=mlp.64-7: "),
        (
            {"data": "regression", "target": 0.1, "grid": {"penalty": ["alp", "trades"]}},
            "the run penalty=trades: penalty trades",
        ),
        ({"grid": {"trades.epsilon": [1.0]}}, "unknown setting 'trades.epsilon'"),
        ({"grid": {"control": {"rule": ["multiplicative"]}}}, "control.floor must be above 0"),
    ],
)
def test_bad_grid_is_one_line_and_nothing_is_run(
    plan: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "grid.yaml", plan)
    assert main(["sweep", "--config", file, "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    with pytest.raises((ValueError, TypeError), match=message):
        raise ValueError(told.err)
    assert [path.name for path in tmp_path.iterdir()] == ["grid.yaml"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "sweep needs a YAML file of settings with a grid: name it by --config"),
        (["--config", "nowhere.yaml"], "found no file nowhere.yaml"),
        (["--config", "grid.yaml", "--jobs", "0"], "jobs must be a whole number of at least 1, or null; got 0"),
        (["--config", "grid.yaml", "--engine", "dask"], "engine must be one of local, ray; got 'dask'"),
        (["--config", "grid.yaml", "--address", "auto"], "address is of engine ray; got 'auto' for engine local"),
        (["--config", "twice.yaml"], "twice.yaml says 'grid' twice, the second time in line 2"),
        (["--config", "grid.yaml", "--out", "grid.yaml"], "grid.yaml is no folder"),
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
    write(tmp_path / "grid.yaml", {"grid": {"epochs": [1, 2]}})
    (tmp_path / "twice.yaml").write_text("grid: {epochs: [1]}\ngrid: {epochs: [2]}\n")
    assert main(["sweep", *arguments]) == 2
    told = capsys.readouterr()
    assert message in told.err
    assert told.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["grid.yaml", "twice.yaml"]


def test_finished_runs_are_kept_when_the_grid_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "run_all", lambda jobs, *_, **__: [job.call(*job.arguments) for job in jobs])
    first = sweep(SMALL | {"grid": {"target": [0.9]}}, SweepSettings(out=str(tmp_path)))
    assert first.heads == ("target", "accuracy", "Lip ≥", "Lip ≤", "λ", "seconds")
    weights = tmp_path / "target=0.9" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    grown = sweep(SMALL | {"grid": {"target": [0.9, 0.95]}}, SweepSettings(out=str(tmp_path)))
    assert weights.stat().st_mtime_ns == before
    assert [row[0] for row in grown.rows] == ["0.9", "0.95"]
    told = json.loads((tmp_path / "sweep.json").read_text("utf-8"))["runs"]
    assert [run["settings"] for run in told] == [{"target": 0.9}, {"target": 0.95}]
    assert told[1]["accuracy"] == read_result(tmp_path / "target=0.95")["accuracy"]
    assert len((tmp_path / "sweep.csv").read_text("utf-8").splitlines()) == 3
    with pytest.raises(ValueError, match="holds a run with epochs = 2, got 3"):
        sweep(SMALL | {"epochs": 3, "grid": {"target": [0.9]}}, SweepSettings(out=str(tmp_path)))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.parametrize(
    "engine",
    [
        # Where there is no Ray; where there is, workers of this machine are killed in the tests of jobs and of kills.
        pytest.param("local", marks=pytest.mark.skipif(RAY, reason="Ray does the same, and more")),
        pytest.param("ray", marks=pytest.mark.skipif(not RAY, reason='needs Ray: pip install "cheaplip[ray]"')),
    ],
)
def test_killed_run_ends_with_the_same_bits_and_a_failing_one_stops_no_other(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fatal.py").write_text(FATAL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    handler = signal.getsignal(signal.SIGTERM)
    models = ["fatal:killing", "mlp:64-10", "fatal:failing"]
    write(tmp_path / "grid.yaml", SMALL | {"grid": {"model": models}})
    jobs = "2" if engine == "ray" else "1"
    command = ["sweep", "--config", "grid.yaml", "--engine", engine, "--jobs", jobs, "--out", "out"]
    assert main(command) == 2
    told = capsys.readouterr().err
    assert "the worker of model=fatal.killing died: it goes on from what it kept, try 2 of 3" in told
    assert "1 of 3 runs failed, the first model=fatal.failing: what is wrong" in told
    assert "Traceback" not in told
    assert (tmp_path / "killed").exists()
    for model in models[:2]:  # the mark keeps the network alive now
        undisturbed = train_run(TrainSettings(**SMALL, model=model, out=str(tmp_path / model[-4:])), progress=False)
        assert kept(tmp_path / "out" / f"model={model.replace(':', '.')}") == kept(undisturbed)
    assert not finished(tmp_path / "out" / "model=fatal.failing")
    assert len(json.loads((tmp_path / "out" / "sweep.json").read_text("utf-8"))["runs"]) == 2
    assert list((tmp_path / "out").glob(".seen*")) == []
    assert signal.getsignal(signal.SIGTERM) is handler
    if engine == "ray":
        import ray

        assert not ray.is_initialized()
    assert torch.get_num_threads() == 1
