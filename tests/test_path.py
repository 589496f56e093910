"""The regularisation path: exact where it says so, checked as it says, kept when it stops."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from torch import nn

import cheaplip as cl
from cheaplip.experiments import Outcome, path, reproduce, stages
from cheaplip.experiments.jobs import Job
from cheaplip.experiments.path.checks import check
from cheaplip.experiments.path.exact import X, Y, best, largest_slope, pieces
from cheaplip.experiments.path.training import DIRECTIONS, WEIGHTS, measured, network
from cheaplip.experiments.propositions import Check, constant_from
from cheaplip.settings import ReproduceSettings

STEPS = 3


def at_once(jobs: Sequence[Job], *_: Any, **arguments: Any) -> list[Any]:
    return [job.call(*job.arguments) for job in jobs]


def miniature(folder: Path, patch: pytest.MonkeyPatch, seeds: int = 1, epochs: int = STEPS) -> Outcome:
    patch.setattr(stages, "run_all", at_once)
    patch.setattr(path, "draw", lambda runs: Figure())  # drawing is slow, and seen once above
    return reproduce("path", ReproduceSettings(out=str(folder), epochs=epochs, seeds=seeds))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    folder = tmp_path_factory.mktemp("path") / "out"
    return folder, reproduce("path", ReproduceSettings(out=str(folder), epochs=STEPS, jobs=1))


def test_run_leaves_pictures_and_every_point_and_check(done: tuple[Path, Outcome]) -> None:
    folder, outcome = done
    assert outcome.files[0] == folder / "path.png"
    assert all(file.stat().st_size > 0 for file in outcome.files)
    assert (folder / "path.svg").read_text("utf-8").count("<svg") == 1
    content = json.loads((folder / "path.json").read_text("utf-8"))
    assert [found["direction"] for found in content["paths"]] == list(DIRECTIONS)
    for found, weights in zip(content["paths"], (WEIGHTS, WEIGHTS[::-1]), strict=True):
        assert tuple(point["weight"] for point in found["points"]) == weights
        for point in found["points"]:
            assert set(point) == {"weight", "risk", "lipschitz", "penalty", "distance", "least"}
            assert point["risk"] + point["weight"] * point["lipschitz"] >= point["least"] * (1 - 1e-9)
    keys = {"seed", "direction", "name", "proposition", "value", "tolerance", "weights", "holds"}
    assert all(set(found) == keys for found in content["checks"])
    assert {found["proposition"] for found in content["checks"]} == {"premise", "2", "3", "4, Remark 2"}
    assert len(content["checks"]) == 12
    assert len(outcome.rows) == 6


def test_violated_check_is_printed_as_such(done: tuple[Path, Outcome]) -> None:
    folder, outcome = done
    content = json.loads((folder / "path.json").read_text("utf-8"))
    violated = [found for found in content["checks"] if not found["holds"]]
    said = [remark for remark in outcome.remarks if remark.startswith("VIOLATED")]
    assert len(violated) == len(said) > 0  # three steps are too few
    assert f"{12 - len(said)} of 12 checks hold" in outcome.remarks
    assert "VIOLATED" in {row[-1] for row in outcome.rows}


def test_finished_runs_are_kept_and_others_begun_again_with_the_same_bits(
    done: tuple[Path, Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, outcome = done
    growing, falling = (folder / "runs" / f"{direction}-seed-0.json" for direction in DIRECTIONS)
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in outcome.files}
    half = json.loads(falling.read_text("utf-8"))
    del half["stages"][5:]
    falling.write_text(json.dumps(half), "utf-8")
    again = miniature(folder, monkeypatch)
    assert growing.stat().st_mtime_ns == before[growing][0]
    assert falling.stat().st_mtime_ns != before[falling][0]
    numbers = [file for file in again.files if file.suffix == ".json"]
    assert [file.read_bytes() for file in numbers] == [before[file][1] for file in numbers]
    assert len(numbers) == 3
    falling.write_text("{", "utf-8")
    assert miniature(folder, monkeypatch).rows == outcome.rows


def test_second_seed_adds_its_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = miniature(tmp_path / "out", monkeypatch, seeds=2, epochs=1)
    assert len(outcome.rows) == 12
    assert {row[2] for row in outcome.rows} == {"0", "1"}
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": "mnist"}, "path has no setting data"),
        ({"limit": 3}, "path has no setting limit"),
        ({"run": "runs/x"}, "path has no setting run"),
        ({"device": "cuda"}, "path runs on the CPU"),
    ],
)
def test_settings_of_others_are_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        reproduce("path", ReproduceSettings(out=str(tmp_path / "out"), **settings))
    assert not (tmp_path / "out").exists()


def test_folder_of_other_steps_is_refused(done: tuple[Path, Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=f"with epochs = {STEPS}, got 4"):
        miniature(done[0], monkeypatch, epochs=4)


def planted(**changes: float) -> list[Check]:
    """Check a path that is as the propositions say, but for the changes, each of one number of one of three points."""
    points = [
        {"weight": 1e-4, "risk": 1e-6, "lipschitz": 2.0, "distance": 1.0, "least": 2.01e-4},
        {"weight": 1e-2, "risk": 1e-3, "lipschitz": 1.0, "distance": 0.5, "least": 1.1e-2},
        {"weight": 1.0, "risk": 0.25, "lipschitz": 0.0, "distance": 0.0, "least": 0.25},
    ]
    for change, value in changes.items():
        name, number = change.rsplit("_", 1)
        points[int(number)][name] = value
    return check([points[1], points[2], points[0]], smallest=2.0, spread=0.5)


def test_path_as_the_propositions_say_passes_every_check() -> None:
    assert [found.holds for found in planted()] == [True] * 6


@pytest.mark.parametrize(
    ("changes", "violated", "value"),
    [
        ({"least_1": 0.8e-2}, 0, 1.1 / 0.8 - 1),
        ({"risk_0": 1.1e-3, "least_0": 1.3e-3}, 1, 1e-4 / 1.3e-3),
        ({"risk_2": 1e-4, "least_2": 1e-4}, 1, 9e-4 / 1.1e-2),
        ({"lipschitz_0": 1.96, "lipschitz_1": 2.04, "least_1": 2.14e-2}, 2, 0.04),
        ({"lipschitz_0": 1.9}, 3, 0.05),
        ({"lipschitz_0": 2.08, "least_0": 2.09e-4}, 3, 0.04),
        ({"risk_0": 1e-4, "least_0": 3e-4}, 4, 0.02),
        ({"distance_2": 0.01}, 5, 0.02),
        ({"distance_2": math.nan}, 5, math.nan),
        ({"lipschitz_1": math.nan}, 2, math.nan),
    ],
)
def test_planted_violation_is_found(changes: dict[str, float], violated: int, value: float) -> None:
    found = planted(**changes)
    assert not found[violated].holds
    assert found[violated].value == pytest.approx(value, nan_ok=True)
    assert found[violated].told()["holds"] is False


def test_change_within_the_tolerance_holds() -> None:
    slightly = planted(lipschitz_0=1.99, lipschitz_1=2.01, least_1=2.11e-2, risk_2=0.999e-3, least_2=0.999e-3)
    assert [found.holds for found in slightly] == [True] * 6
    assert slightly[1].value > 0
    assert slightly[2].value == pytest.approx(0.01)


def test_path_of_one_point_is_refused() -> None:
    with pytest.raises(ValueError, match="two points or more; got 0"):
        check([], smallest=1.0, spread=1.0)


def test_best_function_is_beaten_by_no_other() -> None:
    draw = np.random.default_rng(0)
    for weight in WEIGHTS:
        found = best(X, Y, weight)
        assert found.objective == pytest.approx(found.risk + weight * found.lipschitz)
        assert found.lipschitz == pytest.approx(largest_slope(X, found.values), abs=1e-12)
        for size in (1e-3, 1e-1):
            other = found.values + size * draw.standard_normal((200, len(X)))
            lips = np.abs(np.diff(other) / np.diff(X)).max(1)
            assert (np.mean((other - Y) ** 2, 1) + weight * lips).min() >= found.objective * (1 - 1e-9)


def test_best_function_goes_from_the_flattest_fit_to_the_mean() -> None:
    assert best(X, Y, 1e-9).lipschitz == pytest.approx(largest_slope(X, Y), rel=1e-6)
    edge = constant_from(X, Y)
    assert best(X, Y, 1.01 * edge).values == pytest.approx(np.full(10, Y.mean()), abs=1e-9)
    assert best(X, Y, 0.99 * edge).lipschitz > 1e-3


@settings(max_examples=10)
@given(seed=st.integers(0, 10_000))
def test_pieces_are_those_of_the_network(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Linear(1, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 1)).double()
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
    at, values = pieces(net, -1.0, 1.0)
    grid = torch.linspace(-1, 1, 5001, dtype=torch.float64).unsqueeze(1).requires_grad_()
    output = net(grid)
    (slope,) = torch.autograd.grad(output.sum(), grid)
    inside, wanted = grid.detach().flatten().numpy(), output.detach().flatten().numpy()
    assert np.interp(inside, at, values) == pytest.approx(wanted, abs=1e-9)
    assert float(slope.abs().max()) <= largest_slope(at, values) * (1 + 1e-9) + 1e-9


def test_lip_is_measured_beside_the_penaltys() -> None:
    net = network(0)
    penalty = cl.LipschitzPenalty(*torch.tensor([[[0.0]], [[0.5]]]).double(), weight=0.1)
    penalty(net)
    point = measured(net, penalty)
    assert 0 < point["penalty"] < point["lipschitz"]
    with torch.no_grad():
        output = net(torch.from_numpy(X).unsqueeze(1)).squeeze(1).numpy()
    assert point["risk"] == pytest.approx(np.mean((output - Y) ** 2))
    assert point["distance"] >= np.abs(output - Y.mean()).max()


def test_networks_of_two_seeds_differ_and_of_one_are_equal() -> None:
    first, again, other = (network(seed).state_dict()["1.weight"] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
