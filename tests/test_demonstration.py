"""The demonstration of an adversarial example: on our own networks, on a run, on anybody's network and picture."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cheaplip import runs
from cheaplip.settings import TrainSettings

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
FACTORY = """
import torch
from torch import nn

def make(shape):
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], 3), nn.Dropout(0.5))

def blind(shape):
    model = make(shape)
    model.forward = lambda x: torch.nn.functional.one_hot(x.flatten(1).argmax(1) % 3, 3).float()
    return model

def broken():
    raise RuntimeError("no weights")
"""


@pytest.fixture
def demonstration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The example as a module, in a folder with a picture, labels and factories of a user's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("mine.py").write_text(FACTORY)
    sys.modules.pop("mine", None)
    pixels = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("picture.png")
    Path("labels.txt").write_text("panda\ngibbon\nteapot\n")
    Path("two.txt").write_text("panda\ngibbon\n")
    Path("text.png").write_text("no picture")
    monkeypatch.setattr(importlib.import_module("first_run"), "EPOCHS", 4)
    return importlib.import_module("demonstration")


OWN = ["--model", "mine:make", "--image", "picture.png", "--shape", "3,8,8"]


def test_it_shows_a_plain_and_a_clip_network_without_arguments(
    demonstration: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demonstration.main(["--out", "shown.png"]) == 0
    told = capsys.readouterr().out
    assert all(word in told for word in ("plain", "CLIP", "PGD, 100 steps, norm 2, radius 0.75", "gets right"))
    with Image.open("shown.png") as image:
        assert image.height == image.width  # two rows


def test_it_shows_a_run_on_the_image_that_is_asked_for(
    demonstration: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    settings = TrainSettings(data="digits", model="mlp:64-10", penalty="none", target=None, epochs=3, lower_every=100)
    for name in ("a", "b"):
        runs.train(TrainSettings(**{**vars(settings), "out": str(tmp_path / name)}), progress=False)
    assert demonstration.main(["--run", "a", "b", "--index", "5", "--norm", "inf", "--out", "shown.svg"]) == 0
    assert "norm inf, radius 0.05" in capsys.readouterr().out
    shown = Path("shown.svg").read_text()
    assert shown.count("perturbation") == 2
    assert demonstration.main(["--run", "a", "--index", "5000"]) == 2
    assert "--index must be from 0 to 358; got 5000" in capsys.readouterr().err
    assert demonstration.main(["--run", "a", "a"]) == 2
    assert "different runs" in capsys.readouterr().err


def test_it_shows_anybodys_network_and_picture_with_the_names_of_its_classes(
    demonstration: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demonstration.main([*OWN, "--labels", "labels.txt", "--eps", "3", "--out", "shown.svg"]) == 0
    told, shown = capsys.readouterr().out, Path("shown.svg").read_text()
    assert "mine:make" in told
    assert all(name in shown for name in ("panda", "gibbon", "teapot"))
    assert demonstration.main([*OWN, "--out", "shown.pdf"]) == 0
    assert "class " in capsys.readouterr().out


def test_attack_keeps_to_its_ball_and_box_and_turns_what_it_can(demonstration: Any) -> None:
    model = torch.nn.Linear(6, 3)
    x, y = torch.rand(20, 6), torch.zeros(20, dtype=torch.int64)
    attacked = demonstration.attack(model, x, y, 2.0, 0.5)
    assert float((attacked - x).norm(dim=1).max()) <= 0.5001
    assert 0 <= float(attacked.min()) <= float(attacked.max()) <= 1
    assert torch.equal(attacked, demonstration.attack(model, x, y, 2.0, 0.5))
    assert int((model(attacked).argmax(1) != y).sum()) >= int((model(x).argmax(1) != y).sum())


def test_picture_is_cut_about_its_middle_and_scaled_to_the_unit_box(demonstration: Any) -> None:
    white = np.zeros((10, 30, 3), dtype=np.uint8)
    white[:, 10:20] = 255
    Image.fromarray(white).save("white.png")
    for channels in (1, 3):
        x = demonstration.picture_of(Path("white.png"), (channels, 10, 10))
        assert x.shape == (1, channels, 10, 10)
        assert float(x.min()) == float(x.max()) == 1.0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([*OWN[:2], "--image", "none.png"], "found no file none.png"),
        ([*OWN[:2], "--image", "text.png"], "cannot read text.png"),
        (OWN[:2], "--model needs --image"),
        (["--labels", "labels.txt"], "--labels needs --model"),
        ([*OWN, "--labels", "two.txt"], "--labels must have a line for each class; got 2 for the 3 outputs"),
        ([*OWN, "--labels", "none.txt"], "cannot read none.txt"),
        ([*OWN[:4], "--shape", "3,8"], "--shape must be channels,height,width"),
        ([*OWN[:4], "--shape", "2,8,8"], "--shape must be channels,height,width"),
        ([*OWN, "--norm", "3"], "--norm must be 1, 2 or inf; got 3"),
        ([*OWN, "--eps", "0"], "eps must be a finite number above 0; got 0"),
        ([*OWN, "--eps", "much"], "invalid float value: 'much'"),
        ([*OWN, "--out", "shown.txt"], "--out must end in .png"),
        ([*OWN, "--run", "a"], "leave out --run and --index"),
        ([*OWN, "--mode", "b"], "--help lists all options"),
        (["--data-dir", "a"], "--data-dir is for --run"),
        (["--run", "none"], "found no folder none"),
        (["--model", "mine:missing", *OWN[2:]], "--model must be pkg.mod:factory; got 'mine:missing'"),
        (["--model", "mine:broken", *OWN[2:]], "mine:broken raised RuntimeError: no weights"),
        (["--model", "mine:blind", *OWN[2:]], "no gradient"),
    ],
)
def test_bad_input_is_told_in_one_sentence_with_status_2(
    demonstration: Any, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    assert demonstration.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("demonstration: ")
    assert error.count("\n") == 1
    assert told in error
    assert not Path("runs").exists()
