"""Figure 2: what it leaves in its folder, what it does not do twice, and what it checks."""

from __future__ import annotations

import json
import math
import pickle
import shutil
import statistics
import xml.etree.ElementTree
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cheaplip.experiments import Outcome, reproduce, stages
from cheaplip.experiments.figure2 import training
from cheaplip.experiments.figure2.picture import named
from cheaplip.experiments.figure2.steepness import steepest
from cheaplip.experiments.figure2.theory import checks, least
from cheaplip.experiments.jobs import Job
from cheaplip.experiments.propositions import constant_from
from cheaplip.settings import ReproduceSettings

RUNS = ("runs/sigmoid-seed-0.json", "runs/linear-seed-0.json")


def one_after_the_other(jobs: Sequence[Job], *_: Any, **__: Any) -> list[Any]:
    """run_all() without its processes, which take seconds to start."""
    return [job.call(*job.arguments) for job in jobs]


def draw(folder: Path, **settings: Any) -> Outcome:
    return reproduce("figure2", ReproduceSettings(out=str(folder), **({"epochs": 1} | settings)))


def read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "run_all", one_after_the_other)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "run_all", one_after_the_other)
        yield draw(tmp_path_factory.mktemp("experiments") / "figure2")


@pytest.fixture
def folder(outcome: Outcome, tmp_path: Path) -> Path:
    """A copy of a finished folder that a test may spoil."""
    return Path(shutil.copytree(outcome.files[0].parent, tmp_path / "figure2"))


def alter(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    run = read(path)
    change(run)
    path.write_text(json.dumps(run), encoding="utf-8")


def test_folder_holds_pictures_numbers_and_runs(outcome: Outcome) -> None:
    folder = outcome.files[0].parent
    assert set(contents(folder)) == {"experiment.json", "figure2.png", "figure2.svg", "figure2.json", *RUNS}
    assert [path.name for path in outcome.files[:3]] == ["figure2.png", "figure2.svg", "figure2.json"]
    with Image.open(folder / "figure2.png") as image:
        assert image.format == "PNG"
        assert image.width > image.height > 500
    assert xml.etree.ElementTree.parse(folder / "figure2.svg").getroot().tag.endswith("svg")


def test_picture_names_every_weight_its_lip_and_its_error(outcome: Outcome) -> None:
    text = (outcome.files[1]).read_text("utf-8")
    for result in read(outcome.files[2])["results"]:
        assert f"λ = {named(result['weight'])}" in text
        assert f"Lip {result['lip']['values'][0]:.3f}, error {result['error']['values'][0]:.5f}" in text


def test_json_has_the_documented_keys(outcome: Outcome) -> None:
    found = read(outcome.files[2])
    assert list(found) == [
        *("figure", "networks", "conditions", "meanings", "seeds", "noise", "constant_from"),
        *("results", "checks", "remarks"),
    ]
    assert found["conditions"]["epochs"] == 1
    assert found["conditions"]["weights"] == [0.0, 10.0, 1.0, 1e-10]
    assert [(result["output"], result["weight"]) for result in found["results"]] == [
        (output, weight) for output in ("sigmoid", "linear") for weight in (0.0, 10.0, 1.0, 1e-10)
    ]
    for result in found["results"]:
        cells = [name for name in result if name not in ("output", "weight")]
        compared = ["least"] if result["weight"] >= 1 else []
        assert cells == ["lip", "lower", "risk", "error", "objective", *compared]
        assert set(cells) <= set(found["meanings"])
        assert result["lower"]["mean"] <= result["lip"]["mean"] * (1 + 1e-4)
    assert {check["name"] for check in found["checks"]} == {
        "risk does not fall",
        "Lip does not rise",
        "objective is close to the least possible",
    }
    assert set(found["checks"][0]) == {
        *("output", "seed", "name", "proposition", "weights", "value", "tolerance", "holds")
    }


def test_table_has_a_row_for_each_output_and_weight(outcome: Outcome) -> None:
    assert [row[:2] for row in outcome.rows] == [
        (output, weight) for output in ("sigmoid", "linear") for weight in ("0", "10", "1", "10⁻¹⁰")
    ]
    assert all(len(row) == len(outcome.heads) for row in outcome.rows)


def test_repeated_command_trains_nothing_and_leaves_the_same_bits(
    outcome: Outcome, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, times = contents(folder), [(folder / name).stat().st_mtime_ns for name in RUNS]
    planned: list[Job] = []
    monkeypatch.setattr(stages, "run_all", lambda jobs, *_, **__: planned.extend(jobs))
    again = draw(folder)
    assert not planned
    assert contents(folder) == before
    assert [(folder / name).stat().st_mtime_ns for name in RUNS] == times
    assert (again.rows, again.remarks) == (outcome.rows, outcome.remarks)


def test_half_written_run_is_trained_again_to_the_same_bits(folder: Path) -> None:
    before = contents(folder)
    damaged, whole = (folder / name for name in RUNS)
    damaged.write_bytes(before[RUNS[0]][:1000])
    time = whole.stat().st_mtime_ns
    draw(folder)
    assert contents(folder) == before
    assert whole.stat().st_mtime_ns == time


@pytest.mark.parametrize(
    "change",
    [
        lambda run: run["stages"].pop(),
        lambda run: run["stages"].reverse(),
        lambda run: run["stages"][1].pop("least"),
        lambda run: run["stages"][2].update(lip=math.nan),
        lambda run: run["stages"][2].update(risk="small"),
        lambda run: run["stages"][0]["curve"].pop(),
        lambda run: run["stages"].__setitem__(0, 3),
        lambda run: run.update(stages="none"),
        lambda run: run.update(seed=1),
        lambda run: run["conditions"].update(batch_size=3),
        lambda run: run.clear(),
    ],
    ids=[
        "stage-lost",
        "order",
        "number-lost",
        "nan",
        "text",
        "curve",
        "no-stage",
        "no-stages",
        "seed",
        "other",
        "empty",
    ],
)
def test_run_that_is_not_whole_does_not_count_as_finished(folder: Path, change: Callable[[Any], None]) -> None:
    path = folder / RUNS[0]
    assert training.staged(folder, "sigmoid", 0, 1).read() is not None
    alter(path, change)
    assert training.staged(folder, "sigmoid", 0, 1).read() is None


def test_bar_counts_the_weights_that_a_run_has_done(folder: Path) -> None:
    path, run = folder / RUNS[0], training.staged(folder, "sigmoid", 0, 1)
    assert run.done() == 4
    alter(path, lambda run: run["stages"].pop())
    assert run.done() == 3
    path.write_text("{", encoding="utf-8")
    assert run.done() == 0


def test_more_seeds_train_only_what_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[Job] = []

    def plant(jobs: Sequence[Job], *_: Any, **__: Any) -> None:
        planned.extend(jobs)
        for job in jobs:
            _, output, seed, _ = job.arguments
            path = folder / f"runs/{output}-seed-{seed}.json"
            shutil.copy(folder / f"runs/{output}-seed-0.json", path)
            assert seed == 1
            alter(path, lambda run: run.update(seed=1))
            alter(path, lambda run: run["stages"][1].update(lip=run["stages"][1]["lip"] + 1))

    monkeypatch.setattr(stages, "run_all", plant)
    two = draw(folder, seeds=2)
    assert [job.name for job in planned] == ["sigmoid output, seed 1", "linear output, seed 1"]
    cell = read(folder / "figure2.json")["results"][1]["lip"]
    assert cell["mean"] == statistics.fmean(cell["values"])
    assert cell["std"] == pytest.approx(math.sqrt(0.5))
    assert f"{cell['mean']:.4f} ± {cell['std']:.4f}" in two.rows[1]


def test_violated_check_is_stored_and_said(folder: Path) -> None:
    alter(folder / RUNS[1], lambda run: run["stages"][1].update(risk=0.0, lip=99.0))
    outcome = draw(folder)
    violated = [check for check in read(folder / "figure2.json")["checks"] if not check["holds"]]
    assert ("linear", "risk does not fall", [1.0, 10.0]) in [(c["output"], c["name"], c["weights"]) for c in violated]
    for what in ("risk does not fall", "Lip does not rise"):
        said = f"VIOLATED, linear output, seed 0, λ = 1 to 10, Proposition 2: {what}"
        assert any(remark.startswith(said) for remark in outcome.remarks)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"data": "mnist"}, "figure2 has no setting data; got mnist: leave it out"),
        ({"limit": 5}, "figure2 has no setting limit; got 5: leave it out"),
        ({"run": "x"}, "figure2 has no setting run; got x: leave it out"),
        ({"device": "cuda"}, "figure2 runs on the CPU, where so small a network is fastest; got device cuda"),
    ],
    ids=["data", "limit", "run", "device"],
)
def test_settings_that_it_does_not_have_are_refused_before_the_folder_is_made(
    given: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=sentence):
        draw(tmp_path / "new", **given)
    assert not (tmp_path / "new").exists()


def test_folder_of_other_epochs_is_refused_and_left_alone(folder: Path) -> None:
    before = contents(folder)
    with pytest.raises(ValueError, match="with epochs = 1, got 2: give the same, or choose another folder by --out"):
        draw(folder, epochs=2)
    assert contents(folder) == before


def test_jobs_can_be_sent_to_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[Job] = []
    monkeypatch.setattr(stages, "run_all", lambda jobs, *_, **__: planned.extend(jobs))
    with pytest.raises(ValueError, match="was altered while the experiment ran: give the command again"):
        draw(tmp_path / "new")  # nothing was trained
    assert [pickle.loads(pickle.dumps((job.call, job.arguments))) for job in planned] == [
        (training.train, (tmp_path / "new", output, 0, 1)) for output in ("sigmoid", "linear")
    ]


def path_of(*stages: tuple[float, float, float]) -> list[dict[str, float]]:
    return [{"weight": w, "risk": r, "lip": lip, "objective": r + w * lip} for w, r, lip in stages]


def test_checks_hold_where_risk_grows_and_lip_falls() -> None:
    found = checks(path_of((0.0, 9.0, 0.0), (10.0, 3.0, 0.1), (1.0, 2.0, 1.0), (1e-10, 1.0, 2.0)))
    assert all(check.holds for check in found)
    assert [(check.name, check.weights) for check in found] == [
        (what, weights)
        for weights in ((1e-10, 1.0), (1.0, 10.0))
        for what in ("risk does not fall", "Lip does not rise")
    ]


@pytest.mark.parametrize(("part", "held"), [(0.009, True), (0.011, False)], ids=["within", "beyond"])
def test_checks_allow_one_percent_against_the_theory_and_no_more(part: float, held: bool) -> None:
    found = checks(path_of((1.0, 2.0, 0.5), (10.0, 2.0 * (1 - part), 0.5 * (1 + part))))
    assert [check.holds for check in found] == [held, held]
    assert [check.value for check in found] == pytest.approx([2.0 * part, 0.5 * part])
    assert [check.tolerance for check in found] == pytest.approx([0.02, 0.005])


@pytest.mark.parametrize(("objective", "held"), [(1.09, True), (1.11, False)])
def test_check_of_the_objective_tells_how_far_above_the_least_it_is(objective: float, held: bool) -> None:
    (found,) = checks([{"weight": 1.0, "risk": 0.1, "lip": 1.0, "objective": 2 * objective, "least": 2.0}])
    assert found.value == pytest.approx(objective - 1)
    assert found.holds is held


def test_least_objective_is_that_of_a_search_over_all_values() -> None:
    x, y, weight = np.array([0.0, 2.0, 1.0]), np.array([0.1, 1.0, 0.9]), 0.3
    grid = np.linspace(0, 1.1, 56)
    left, middle, right = np.meshgrid(grid, grid, grid, indexing="ij")
    lip = np.maximum(abs(middle - left), abs(right - middle))
    brute = ((left - 0.1) ** 2 + (middle - 0.9) ** 2 + (right - 1.0) ** 2 + weight * lip).min()
    assert least(x, y, weight) <= brute + 1e-6
    assert least(x, y, weight) == pytest.approx(brute, rel=5e-3)


def test_constant_is_best_from_the_stated_weight_on() -> None:
    draws = np.random.default_rng(0)
    x, y = draws.uniform(-1, 1, 12), draws.normal(size=12)
    threshold, constant = len(x) * constant_from(x, y), float(np.sum((y - y.mean()) ** 2))
    assert least(x, y, 1.02 * threshold) == pytest.approx(constant, rel=1e-6)
    assert least(x, y, 0.8 * threshold) < 0.999 * constant


def test_steepest_place_is_found_between_points_of_the_grid_and_at_a_kink() -> None:
    wave = steepest(lambda x: torch.sin(3 * (x - 0.1234567)), -1.0, 0.9, points=201)
    assert wave.lip == pytest.approx(3.0, rel=1e-7)
    # Flat but for a stair that is narrower than the grid.
    stair = steepest(lambda x: 2 * (x - 0.70003).clamp(0, 1e-4), -1.0, 1.0, points=2001)
    assert stair.lip == pytest.approx(2.0, rel=1e-6)
    assert stair.at == pytest.approx(0.7, abs=1e-3)


def test_steepest_slope_keeps_its_sign() -> None:
    found = steepest(lambda x: -(x**2), 0.0, 2.0)
    assert (found.lip, found.at, found.slope) == pytest.approx((4.0, 2.0, -4.0))
