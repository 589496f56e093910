"""Figure 1: the pair that is shown is chosen by its rule, told truly, and not searched for twice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

import cheaplip as cl
from cheaplip import runs
from cheaplip.data import load as load_data
from cheaplip.experiments import figure1, reproduce
from cheaplip.experiments.figure1 import search
from cheaplip.experiments.jobs import Job
from cheaplip.settings import ReproduceSettings, TrainSettings

SMALL = ReproduceSettings(data="digits", epochs=4, jobs=1)
FILES = ["figure1.png", "figure1.svg", "figure1.gif", "figure1.json"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("figure1") / "out"
    outcome = reproduce("figure1", replace(SMALL, out=str(folder)))
    assert list(outcome.files) == [folder / name for name in FILES]
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished folder that a test may spoil."""
    return Path(shutil.copytree(finished, tmp_path / "out"))


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run jobs in this process, which is faster for a few of them, and note their names."""
    names: list[str] = []

    def run_all(jobs: Sequence[Job], *_: Any, **__: Any) -> list[Any]:
        names.extend(job.name for job in jobs)
        return [job.call(*job.arguments) for job in jobs]

    monkeypatch.setattr(figure1, "run_all", run_all)
    return names


def read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "figure1.json").read_text("utf-8"))
    return found


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_json_holds_pair_updates_and_comparison_with_the_paper(finished: Path) -> None:
    found = read(finished)
    assert list(found) == [
        *("network", "search", "rule", "pair", "way", "before", "after", "as_in_paper", "ways", "updates")
    ]
    assert [moment["update"] for moment in found["updates"]] == list(range(search.UPDATES + 1))
    assert (found["before"], found["after"]) == (found["updates"][0], found["updates"][-1])
    assert set(found["before"]) == {"update", "quotient", "distance", "classes", "confidences"}
    assert found["after"]["quotient"] > found["before"]["quotient"]
    assert found["way"] == {"search": "ascent", "box": [0.0, 1.0]}
    assert [(way["search"], way["box"] is not None) for way in found["ways"]] == list(map(tuple, search.WAYS))
    assert set(found["as_in_paper"]) == {"before", "exchanged", "below_30_percent", "all"}
    assert found["network"]["data"] == "digits"
    assert found["network"]["epochs"] == 4


def test_what_is_said_of_the_pair_before_is_what_the_network_says_of_these_test_images(finished: Path) -> None:
    found, model, data = read(finished), cl.load(finished / "run"), load_data("digits", seed=0)
    at = found["pair"]["test_images"]
    x, y = data.test.x[at], data.test.y[at]
    assert found["pair"]["classes"] == found["before"]["classes"] == [str(int(k)) for k in y]
    assert y[0] != y[1]
    output = model(x).detach()
    assert found["before"]["confidences"] == pytest.approx(output.softmax(1).amax(1).tolist(), abs=1e-5)
    assert found["before"]["distance"] == pytest.approx(float((x[0] - x[1]).norm()), rel=1e-5)
    quotient = float((output[0] - output[1]).norm() / (x[0] - x[1]).norm())
    assert found["before"]["quotient"] == pytest.approx(quotient, rel=1e-4)


def test_comparison_with_the_paper_follows_from_what_is_shown(finished: Path) -> None:
    found = read(finished)
    same, after = found["as_in_paper"], found["after"]
    assert same["exchanged"] == (after["classes"] == found["pair"]["classes"][::-1])
    assert same["below_30_percent"] == (max(after["confidences"]) < 0.3)
    assert same["all"] == (same["before"] and same["exchanged"] and same["below_30_percent"])
    remarks = " ".join(reproduce("figure1", replace(SMALL, out=str(finished))).remarks)
    assert ("After: as in the paper" in remarks) == same["all"]
    assert ("Before: as in the paper" in remarks) == same["before"]


def test_animation_has_a_frame_for_each_update_and_is_small(finished: Path) -> None:
    with Image.open(finished / "figure1.gif") as image:
        assert image.n_frames == search.UPDATES + 1  # type: ignore[attr-defined]
    assert (finished / "figure1.gif").stat().st_size < 3e6


def test_candidates_are_the_closest_pairs_of_different_classes_that_are_right_and_sure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search, "BATCH", search.IMAGES)  # the answers below are those for all images at once
    data = load_data("digits", seed=0)
    right = nn.functional.one_hot(data.test.y, 10).float()
    found = search.candidates(lambda x: 9.0 * right[: len(x)], data)  # type: ignore[arg-type]
    assert found.bar == 0.9
    first, second = found.images.T
    distances = (data.test.x[first] - data.test.x[second]).flatten(1).norm(dim=1)
    every = torch.cdist(data.test.x.flatten(1), data.test.x.flatten(1))
    every[data.test.y[:, None] == data.test.y] = float("inf")
    expected = every[torch.ones_like(every).triu(1) > 0].sort().values[: search.PAIRS]
    assert torch.allclose(distances, expected, atol=1e-4)
    assert bool((found.labels[:, 0] != found.labels[:, 1]).all())


def test_less_sure_networks_show_less_sure_pairs_and_wrong_ones_are_refused() -> None:
    data = load_data("digits", seed=0)
    right = nn.functional.one_hot(data.test.y, 10).float()
    assert search.candidates(lambda x: 3.0 * right[: len(x)], data).bar == 0.5  # type: ignore[arg-type]
    assert search.candidates(lambda x: right[: len(x)], data).bar == 0.0  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="train it for more epochs"):
        search.candidates(lambda x: torch.eye(10)[torch.zeros(len(x)).long()], data)  # type: ignore[arg-type]


def test_climb_gives_the_same_in_each_process_and_shows_the_steepest_end(finished: Path) -> None:
    climb = search.climb(finished / "run", None, search.WAYS[0])
    found = read(finished)
    assert climb.quotients == [moment["quotient"] for moment in found["updates"]]
    assert 0 <= climb.points.min() <= climb.points.max() <= 1
    assert climb.points.shape == (search.UPDATES + 1, 2, 1, 8, 8)
    assert climb.exchanged <= climb.ever <= climb.pairs == search.PAIRS
    assert search.climb(finished / "run", None, search.Way("ascent", False)).points.min() < 0


def test_repeated_command_does_nothing_again(folder: Path) -> None:
    before = times(folder)
    outcome = reproduce("figure1", replace(SMALL, out=str(folder)))
    assert times(folder) == before
    assert outcome.rows[-1][0] == "quotient"


def test_stopped_command_goes_on_without_training_again(
    folder: Path, in_this_process: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figure1, "draw", lambda *_: None)
    before, found = times(folder / "run"), read(folder)
    (folder / "figure1.json").unlink()
    reproduce("figure1", replace(SMALL, out=str(folder)))
    assert in_this_process == ["ascent", "ascent", "paper", "paper"]
    assert times(folder / "run") == before
    assert read(folder)["updates"] == found["updates"]


def test_network_of_a_run_is_shown_and_left_alone(
    finished: Path, tmp_path: Path, in_this_process: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figure1, "draw", lambda *_: None)
    before = times(finished)
    settings = ReproduceSettings(run=str(finished / "run"), out=str(tmp_path / "out"))
    outcome = reproduce("figure1", settings)
    assert read(tmp_path / "out")["updates"] == read(finished)["updates"]
    assert times(finished) == before
    assert "CLIP" not in in_this_process
    assert outcome.title.startswith("Figure 1")
    with pytest.raises(ValueError, match="holds the experiment figure1 with data = None, got digits"):
        reproduce("figure1", replace(SMALL, out=str(tmp_path / "out")))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"run": "somewhere", "data": "digits"}, "leave out data and epochs"),
        ({"run": "somewhere", "epochs": 3}, "leave out data and epochs"),
        ({"run": "somewhere"}, "found no folder somewhere"),
        ({"data": "regression"}, "trains on fashion-mnist, mnist, digits; got data 'regression'"),
        ({"data": "mnist", "data_dir": "nowhere"}, "expected nowhere/MNIST/raw"),
        ({"seeds": 3}, "figure1 has no setting seeds; got 3"),
        ({"limit": 3}, "figure1 has no setting limit; got 3"),
    ],
)
def test_unfit_settings_are_refused_and_leave_nothing(
    settings: dict[str, Any], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=told):
        reproduce("figure1", ReproduceSettings(**settings, out=str(tmp_path / "out")))
    assert list(tmp_path.iterdir()) == []


def test_run_without_images_in_classes_is_refused(tmp_path: Path) -> None:
    network = tmp_path / "run"
    runs.train(TrainSettings(data="regression", epochs=1, target=None, out=str(network)), progress=False)
    with pytest.raises(ValueError, match="is a regression: give --run another one"):
        reproduce("figure1", ReproduceSettings(run=str(network), out=str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()
