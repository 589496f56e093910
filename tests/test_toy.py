"""The toy: an animation whose numbers are right, and the same each time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from cheaplip.experiments import Outcome, reproduce, toy
from cheaplip.settings import ReproduceSettings


def draw(folder: Path, **settings: Any) -> Outcome:
    return reproduce("toy", ReproduceSettings(out=str(folder), **settings))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return draw(tmp_path_factory.mktemp("experiments") / "toy")


@pytest.fixture(scope="module")
def numbers(outcome: Outcome) -> Any:
    return json.loads((outcome.files[1]).read_text("utf-8"))


def test_folder_holds_the_animation_its_frames_and_its_numbers(outcome: Outcome) -> None:
    folder = outcome.files[0].parent
    frames = [f"frames/{k:03}.png" for k in range(toy.UPDATES + 1)]
    assert set(contents(folder)) == {"experiment.json", "toy.gif", "toy.json", *frames}
    assert [str(path.relative_to(folder)) for path in outcome.files] == ["toy.gif", "toy.json", *frames]


def test_animation_has_a_frame_for_each_update_and_is_small(outcome: Outcome) -> None:
    gif = outcome.files[0]
    assert gif.stat().st_size < 2e6
    with Image.open(gif) as image, Image.open(outcome.files[-1]) as last:
        assert image.n_frames == toy.UPDATES + 1 <= 60  # type: ignore[attr-defined]
        assert image.size == last.size


def test_json_has_the_documented_keys(numbers: Any) -> None:
    assert list(numbers) == ["function", "interval", "lip", "search", "min_distance", "remarks", "updates"]
    assert set(numbers["lip"]) == {"value", "at"}
    assert [update["update"] for update in numbers["updates"]] == list(range(toy.UPDATES + 1))
    for update in numbers["updates"]:
        assert set(update) == {"update", "largest", "pairs"}
        assert [set(pair) for pair in update["pairs"]] == [{"u", "v", "quotient"}] * len(toy.STARTS)


def test_true_constant_is_the_largest_derivative(numbers: Any) -> None:
    x = torch.linspace(-4, 4, 20001, dtype=torch.float64, requires_grad=True)
    (slopes,) = torch.autograd.grad(toy.function(x).sum(), x)
    assert numbers["lip"]["value"] == pytest.approx(float(slopes.abs().max()), rel=1e-6)


def test_every_quotient_is_that_of_its_pair_and_at_most_the_true_constant(numbers: Any) -> None:
    for pair in (pair for update in numbers["updates"] for pair in update["pairs"]):
        u, v = (torch.tensor(pair[name], dtype=torch.float64) for name in ("u", "v"))
        assert -4 <= min(u, v) < max(u, v) <= 4
        assert pair["quotient"] == pytest.approx(float((toy.function(u) - toy.function(v)).abs() / (u - v).abs()))
        assert pair["quotient"] <= numbers["lip"]["value"] * (1 + 1e-9)


def test_largest_quotient_grows_to_within_one_percent_of_the_true_constant(numbers: Any) -> None:
    largest = [update["largest"] for update in numbers["updates"]]
    assert largest == sorted(largest)
    assert largest[0] < 0.5 * numbers["lip"]["value"]
    assert largest[-1] >= 0.99 * numbers["lip"]["value"]


def test_some_pairs_end_in_local_maxima(outcome: Outcome) -> None:
    words = [row[-1] for row in outcome.rows]
    assert words.count("the steepest place") == 2
    assert words.count("a local maximum") == len(toy.STARTS) - 2


def test_repeated_command_leaves_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy, "UPDATES", 1)
    draw(tmp_path / "toy")
    before = contents(tmp_path / "toy")
    draw(tmp_path / "toy")
    assert contents(tmp_path / "toy") == before


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"seeds": 2}, "toy has no setting seeds; got 2: leave it out"),
        ({"epochs": 2}, "toy has no setting epochs; got 2: leave it out"),
        ({"data": "mnist"}, "toy has no setting data; got mnist: leave it out"),
        ({"device": "cuda"}, "toy runs on the CPU, since it has no network; got device cuda: leave it out"),
    ],
    ids=["seeds", "epochs", "data", "device"],
)
def test_settings_that_it_does_not_have_are_refused_before_the_folder_is_made(
    given: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=sentence):
        draw(tmp_path / "new", **given)
    assert not (tmp_path / "new").exists()


def test_folder_of_another_experiment_is_refused_and_left_alone(tmp_path: Path, outcome: Outcome) -> None:
    folder = outcome.files[0].parent
    before = contents(folder)
    with pytest.raises(ValueError, match="holds the experiment toy, not figure2: choose another folder by --out"):
        reproduce("figure2", ReproduceSettings(out=str(folder)))
    assert contents(folder) == before
