"""Patches stay where they may lie, change nothing else, turn images where they can, and are the same when read back."""

from __future__ import annotations

import importlib
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from oracles import changes, picture, rand
from torch import Tensor, nn

from cheaplip import evaluate
from cheaplip.attacks.patch import Patch, Success, success
from cheaplip.attacks.patch_training import easiest_target, train_patch
from cheaplip.attacks.placing import placed
from cheaplip.counting import wilson
from cheaplip.data import Data, Split
from cheaplip.runs.patch_picture import AREAS, curves, draw_patch
from cheaplip.runs.patching import PATCH, PICTURE, patch_of

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Brightness(nn.Module):
    """Takes an image for class 1 as far as its mean is bright, else for 0 or 2 by its left half; 2 never mind where."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((1, 2, 3))
        left = x[..., : x.shape[3] // 2].mean((1, 2, 3))
        return torch.stack([0 * mean + 0.05, 6 * (mean - 0.3), 0.2 * left], 1)


def planted(n: int = 60, channels: int = 1, side: int = 16) -> tuple[nn.Module, Tensor, Tensor]:
    """Dark images, of which bright patches make class 1."""
    x = 0.3 * rand(n, channels, side, side, dtype=torch.float32)
    return Brightness(), x, torch.zeros(n, dtype=torch.int64)


def white(channels: int = 1, **arguments: Any) -> Patch:
    return Patch(torch.ones(channels, 6, 6), 1, **arguments)


def dataset(n: int = 60) -> Data:
    _, x, y = planted(n)
    y = torch.arange(n) % 3
    split = Split(x, y)
    return Data("mine", split, split, split, split, classes=3, shape=(1, 16, 16), box=(0.0, 1.0))


# Where it lies.


@settings(max_examples=40)
@given(
    shape=st.sampled_from(["round", "square"]),
    area=st.floats(0.02, 0.35),
    rotation=st.floats(0, 180),
    height=st.integers(8, 40),
    width=st.integers(8, 40),
    seed=st.integers(0, 999),
)
def test_a_patch_lies_whole_on_the_image_and_covers_its_area(
    shape: str, area: float, rotation: float, height: int, width: int, seed: int
) -> None:
    _, cover = placed(torch.zeros(20, 1, height, width), shape, area, rotation, seeded(seed))
    assert cover.shape == (20, 1, height, width)
    assert bool(((cover >= 0) & (cover <= 1)).all())
    pixels = area * height * width
    widest = math.sqrt(4 * pixels / math.pi) if shape == "round" else math.sqrt(2 * pixels)
    if widest + 1 < min(height, width):
        # The edge is a pixel wide, which a small square feels at its corners.
        torch.testing.assert_close(cover.sum((1, 2, 3)), torch.full((20,), pixels), atol=1.0, rtol=0.06)
        rows, columns = cover.amax((1, 3)) > 0, cover.amax((1, 2)) > 0
        assert int(rows.sum(1).max()) <= widest + 3
        assert int(columns.sum(1).max()) <= widest + 3


def test_places_sizes_and_angles_vary_and_use_their_ranges() -> None:
    grid, cover = placed(torch.zeros(2000, 1, 40, 40), "round", (0.02, 0.1), 30.0, seeded())
    share = cover.mean((1, 2, 3))
    assert 0.0195 < float(share.min()) < 0.025
    assert 0.09 < float(share.max()) < 0.1005
    heat = cover.mean((0, 1))
    assert float(heat[3:-3, 3:-3].min()) > 0.005
    assert abs(float(heat.mean()) - 0.06) < 0.002
    right = grid[:, 20, 21] - grid[:, 20, 20]
    angle = torch.atan2(right[:, 1], right[:, 0]).rad2deg()
    assert -30.01 < float(angle.min()) < -29
    assert 29 < float(angle.max()) < 30.01


@pytest.mark.parametrize("shape", ["round", "square"])
@pytest.mark.parametrize("channels", [1, 3])
def test_nothing_changes_outside_the_patch_and_all_stays_in_the_box(shape: str, channels: int) -> None:
    x = rand(30, channels, 20, 24, dtype=torch.float32)
    patch = Patch(rand(channels, 7, 7, dtype=torch.float32, seed=1), 0, shape=shape)
    _, cover = placed(x, shape, patch.area, patch.rotation, seeded(4))
    made = patch.lay(x, seeded(4))
    outside = (cover == 0).expand_as(x)
    assert bool(outside.any())
    assert torch.equal(made[outside], x[outside])
    assert bool((made != x)[(cover == 1).expand_as(x)].all())
    assert bool(patch.threat.admits(x, made, tolerance=0.0).all())


def test_a_patch_shows_its_picture_upright_where_nothing_turns_it() -> None:
    shown = torch.zeros(1, 4, 4)
    shown[0, :2] = 1.0  # the upper half
    made = Patch(shown, 0, shape="square", area=0.25, rotation=0.0).lay(torch.full((50, 1, 16, 16), 0.5), seeded())
    for image in made[:, 0]:
        bright, dark = ((image - value).abs() < 0.3 for value in (1.0, 0.0))
        assert bool(bright.any())
        assert bright.nonzero()[:, 0].max() < dark.nonzero()[:, 0].min()


def test_places_are_drawn_from_the_seed_alone() -> None:
    model, x, y = planted()
    assert torch.equal(white(generator=seeded(2))(model, x, y), white(generator=seeded(2))(model, x, y))
    torch.manual_seed(1)
    first = white()(model, x, y)
    torch.manual_seed(1)
    assert torch.equal(first, white()(model, x, y))
    assert not torch.equal(first, white()(model, x, y))


# What it does.


def test_success_grows_with_the_size_on_a_network_that_counts_bright_pixels() -> None:
    model, x, y = planted()
    rates = [success(model, white(area=area), x, y).rate for area in (0.02, 0.1, 0.2, 0.3)]
    assert rates == sorted(rates)
    assert rates[0] == 0
    assert rates[-1] == 1


def test_success_leaves_out_images_of_the_target_class() -> None:
    model, x, _ = planted()
    y = torch.arange(60) % 3
    counted = success(model, white(area=0.3), x, y)
    assert (counted.hits, counted.images) == (40, 40)
    assert counted.interval == wilson(40, 40)
    with pytest.raises(ValueError, match="images of other classes than the target 1; got none"):
        success(model, white(), x, torch.ones_like(y))


@pytest.mark.parametrize("channels", [1, 3])
def test_training_finds_the_bright_patch_and_leaves_the_model_alone(channels: int) -> None:
    _, x, y = planted(channels=channels)
    net = nn.Sequential(nn.BatchNorm2d(channels), Brightness(), nn.Dropout(0.1)).train()
    before = picture(net)
    trained = train_patch(net, x, 1, area=0.25, steps=40, batch_size=16)
    assert changes(before, picture(net)) == []
    assert all(parameter.grad is None for parameter in net.parameters())
    assert float(trained.picture[:, 3:-3, 3:-3].min()) > 0.95
    net.eval()
    assert success(net[1], trained, x, y).rate > success(net[1], trained.noise(), x, y).rate + 0.5
    again = train_patch(net, x, 1, area=0.25, steps=40, batch_size=16)
    assert torch.equal(trained.picture, again.picture)


def test_the_easiest_target_is_found_by_trial() -> None:
    model, x, y = planted()
    assert easiest_target(model, x, y, steps=20, area=0.3) == 1


def test_controls_have_the_patch_s_size_and_places() -> None:
    model, x, y = planted()
    patch = white(area=0.2)
    real = patch.showing(torch.zeros(1, 16, 16))
    assert real.picture.shape == patch.picture.shape
    changed = [(one.lay(x, seeded()) != x) for one in (patch, real)]
    assert float((changed[0] ^ changed[1]).double().mean()) < 0.01
    assert success(model, real, x, y).rate == 0
    assert torch.equal(patch.noise(1).picture, patch.noise(1).picture)
    assert not torch.equal(patch.noise(1).picture, patch.noise(2).picture)
    channels = Patch(torch.zeros(3, 4, 4), 1, box=((0.0,) * 3, (1.0,) * 3))
    assert channels.noise().picture.shape == (3, 4, 4)


def test_the_harness_takes_a_patch_as_an_attack_without_radius() -> None:
    model, x, y = planted()
    found = evaluate(model, (x, y), {"patch": white(area=0.3)}, seed=0)["patch"]
    assert found.accuracy == 0
    assert (found.norm, found.eps) == (None, None)
    assert found.label == "patch towards class 1, 30 % of the area"


# Files and pictures.


def test_a_patch_is_the_same_when_read_back(tmp_path: Path) -> None:
    patch = Patch(
        rand(3, 5, 5, dtype=torch.float32), 2, shape="square", area=(0.1, 0.2), rotation=10.0, seed=4,
        box=((0.0, 0.0, 0.0), (1.0, 1.0, 2.0)),
    )  # fmt: skip
    back = Patch.load(patch.save(tmp_path / "patch.npz"))
    assert torch.equal(back.picture, patch.picture)
    for name in ("target", "shape", "area", "rotation", "box", "seed"):
        assert getattr(back, name) == getattr(patch, name)
    patch.save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "patch.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.npz", "patch.npz"]


def test_files_that_hold_no_patch_are_told(tmp_path: Path) -> None:
    path = tmp_path / "patch.npz"
    with pytest.raises(FileNotFoundError, match=r"expected the file of a patch, found none at .*patch.npz"):
        Patch.load(path)
    path.write_text("no patch")
    with pytest.raises(ValueError, match="holds no patch, or a damaged one"):
        Patch.load(path)
    np.savez(path, picture=np.zeros(3), about=np.array({"run": "code"}, dtype=object))
    with pytest.raises(ValueError, match="holds no patch, or a damaged one"):
        Patch.load(path)
    white().save(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match="holds no patch, or a damaged one"):
        Patch.load(path)


def test_a_run_s_patch_and_its_picture_are_left_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cheaplip.runs.patching.STEPS", 20)
    patch = patch_of(Brightness(), dataset(), tmp_path, seed=0)
    assert patch.target == 1
    assert torch.equal(Patch.load(tmp_path / PATCH).picture, patch.picture)
    assert (tmp_path / PICTURE).read_bytes().startswith(b"\x89PNG")
    told: list[tuple[str, ...]] = []

    def noted(*arguments: Any, **others: Any) -> Figure:
        told.append(arguments[-1])
        return draw_patch(*arguments, **others)

    monkeypatch.setattr("cheaplip.runs.patch_picture.draw_patch", noted)
    patch_of(Brightness(), replace(dataset(), name="fashion-mnist"), tmp_path)
    assert told[0][:3] == ("T-shirt", "trousers", "pullover")
    patch_of(Brightness(), dataset(), tmp_path)
    assert told[1] == ("0", "1", "2")
    flat = Split(rand(6, 4, dtype=torch.float32), torch.arange(6) % 3)
    with pytest.raises(ValueError, match=r"a patch needs images in classes, .* flat has shape \(4,\) and 3 classes"):
        patch_of(Brightness(), Data("flat", flat, flat, flat, flat, 3, (4,), None), tmp_path)


def test_curves_count_the_patch_beside_its_controls() -> None:
    model, x, y = planted()
    found = curves(model, white(), x, y, torch.zeros(1, 16, 16))
    assert {len(counts) for counts in found.values()} == {len(AREAS)}
    assert [counts[-1].rate for counts in found.values()] == [1.0, 0.0, pytest.approx(0.5, abs=0.5)]
    assert isinstance(found["patch"][0], Success)
    figure = draw_patch(model, white(), x, y, torch.zeros(1, 16, 16), ["dark", "bright", "left"])
    texts = {
        text.get_text() for part in figure.subfigs for axes in part.axes for text in (axes.title, axes.yaxis.label)
    }
    assert {"the patch: “bright”", "taken for “bright” in %", "under noise"} <= texts


def test_the_example_makes_a_patch_for_each_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    sys.modules.pop("patch", None)
    monkeypatch.setattr(importlib.import_module("first_run"), "EPOCHS", 2)
    example = importlib.import_module("patch")
    monkeypatch.setattr(example, "STEPS", 5)
    assert example.main(["--out", "made.png", "--target", "3"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"made.png", "made-plain.npz", "made-CLIP.npz"}
    assert Patch.load("made-CLIP.npz").target == 3
    assert example.main(["--target", "panda"]) == 2
    assert "--target must be one of 0, 1, 2" in capsys.readouterr().err
    assert example.main(["--out", "made.gif"]) == 2
    assert "--out must end in .png, .svg, .pdf; got made.gif" in capsys.readouterr().err
    assert example.main(["--run", "none"]) == 2
    assert "found no folder none" in capsys.readouterr().err


# What it refuses.


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"target": -1}, "target must be a whole number of at least 0; got -1"),
        ({"shape": "star"}, 'shape must be "round" or "square"; got \'star\''),
        ({"area": 0.0}, "area must be a finite number above 0; got 0.0"),
        ({"area": (0.3, 0.2)}, r"area must be a share above 0 and at most 1, or \(smallest, largest\)"),
        ({"area": 1.5}, "area must be a share above 0 and at most 1"),
        ({"rotation": 200}, "rotation must be an angle from 0 to 180 degrees; got 200"),
        ({"box": None}, "a patch needs a box"),
        ({"seed": 0.5}, "seed must be a whole number"),
        ({"picture": torch.ones(2, 4, 4)}, r"1 or 3 channels; got \(2, 4, 4\)"),
        ({"picture": torch.ones(1, 4, 5)}, r"picture must be square, 2 pixels wide or more; got \(1, 4, 5\)"),
        ({"picture": 2 * torch.ones(1, 4, 4)}, "picture must be finite and in the box"),
        ({"picture": torch.full((1, 4, 4), math.nan)}, "picture must be finite and in the box"),
    ],
)
def test_bad_arguments_are_told(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Patch(**dict[str, Any](picture=torch.ones(1, 4, 4), target=1) | arguments)


def test_images_and_models_that_do_not_fit_are_told() -> None:
    model, x, y = planted()
    with pytest.raises(ValueError, match=r"a patch of 3 channels needs images \(n, 3, height, width\)"):
        white(3)(model, x, y)
    with pytest.raises(ValueError, match=r"trained on floating images \(n, channels, height, width\), 1 or 3 channels"):
        train_patch(model, x.flatten(1), 1)
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2, for the model has 3 outputs; got 7 to 7"):
        train_patch(model, x, 7)
    with pytest.raises(ValueError, match="a patch follows the model's gradient, but its output has none"):
        train_patch(lambda images: model(images.round()).detach(), x, 1)
    with pytest.raises(ValueError, match="the model's output is NaN under the patch"):
        train_patch(lambda images: model(images) * math.nan, x, 1)
    with pytest.raises(ValueError, match="steps must be a whole number of at least 1; got 0"):
        train_patch(model, x, 1, steps=0)
    assert white()(model, x[:0], y[:0]).shape == (0, 1, 16, 16)
