"""What goes wrong with Ray, told in a sentence; that it works is in test_sweep.py."""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import os
import pickle
import socket
from pathlib import Path
from typing import Any

import pytest

from cheaplip.cli import main
from cheaplip.experiments.jobs import Job, Place, on_ray, run_all

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason='needs Ray: pip install "cheaplip[ray]"')
JOB = Job("a", pow, (2, 3))


def test_missing_ray_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.import_module

    def without_ray(name: str, package: str | None = None) -> Any:
        if name == "ray":
            raise ModuleNotFoundError("No module named 'ray'")
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", without_ray)
    (tmp_path / "grid.yaml").write_text("grid: {epochs: [1, 2]}")
    out = str(tmp_path / "out")
    assert main(["sweep", "--config", str(tmp_path / "grid.yaml"), "--engine", "ray", "--out", out]) == 2
    assert capsys.readouterr().err == 'cheaplip: engine ray needs Ray: pip install "cheaplip[ray]"\n'


@needs_ray
def test_cluster_that_is_not_there_is_told_soon() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(OSError, match=f"cannot join the Ray cluster at 127.0.0.1:{port} .* `ray start --head`"):
        run_all([JOB], Place(engine="ray", address=f"127.0.0.1:{port}"))


@needs_ray
def test_address_that_is_none_is_told() -> None:
    with pytest.raises(OSError, match="cannot join the Ray cluster at nonsense"):
        run_all([JOB], Place(engine="ray", address="nonsense"))


def test_worker_that_does_not_see_the_folder_says_so(tmp_path: Path) -> None:
    elsewhere = on_ray._Surroundings(str(tmp_path), (), "runs", ".seen")
    (tmp_path / "runs").mkdir()
    answer = pickle.loads(on_ray._perform(elsewhere, b""))
    assert f"does not see the folder {tmp_path / 'runs'}: it must lie on a file system that all nodes" in str(
        answer.error
    )


def test_ray_reports_nothing_to_its_makers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    monkeypatch.setattr(importlib, "import_module", lambda name: builtins)
    on_ray._imported()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
