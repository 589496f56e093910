"""Networks that are no classifiers, parameters of inference mode, spoilt results: bounded, or told in one sentence."""

from __future__ import annotations

import copy
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from cheaplip.cli import main
from cheaplip.lipschitz import lower, upper
from cheaplip.lipschitz.problem import problem_of
from cheaplip.lipschitz.upper import bounded
from cheaplip.models import build, check_fits
from cheaplip.runs.results import parse_result


def denoiser() -> nn.Module:
    """A factory of the name that the tests import: images to images."""
    return nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 1, 3, padding=1))


@pytest.mark.parametrize("words", [["--shape", "1,6,6"], ["--data", "digits", "--domain", "box"]])
def test_images_to_images_are_bounded(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--steps", "3", "--out", str(tmp_path)]
    assert main(["bounds", f"{__name__}:denoiser", *words, *out, "--save", str(tmp_path / "a.npz")]) == 0
    lines = {line.split("  ")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "LipSDP-Neuron" in lines["upper"]
    assert "1 × " in lines["2"]
    assert (tmp_path / "bounds.png").exists()
    assert main(["bounds", f"{__name__}:denoiser", *words[:2], "--check", str(tmp_path / "a.npz")]) == 0


def test_training_still_asks_for_one_output_a_class() -> None:
    with pytest.raises(ValueError, match=r"outputs of shape \(2, k\)"):
        build(f"{__name__}:denoiser", shape=(1, 6, 6), classes=None)
    with pytest.raises(ValueError, match=r"outputs of shape \(2, ...\) for inputs"):
        check_fits(nn.Flatten(0), (3,), None, free=True)


def test_part_of_a_network_has_to_end_where_a_part_ends() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), nn.LayerNorm(2), nn.Linear(2, 2)).eval()
    problem, far = problem_of(net, (3,), 2.0, None), time.monotonic() + 9
    ends = [part[1] for part in problem.parts(1000)]
    assert len(ends) == 3
    with torch.no_grad():
        before = bounded(problem, "auto", far, ends[0])[0]
        assert before == upper(net[:3], torch.zeros(1, 3)).value
        for end in (1, 2, 99):
            with pytest.raises(ValueError, match=f"one of {', '.join(map(str, ends))}; got {end}"):
                bounded(problem, "auto", far, end)


def test_parameters_of_inference_mode_are_named_and_left_alone() -> None:
    with torch.inference_mode():
        net = nn.Linear(3, 2)
    for bound in (upper, lower):
        with pytest.raises(ValueError, match=r"inference|Inference"):
            bound(net, torch.zeros(1, 3))
    assert net.weight.requires_grad
    assert upper(copy.deepcopy(net), torch.zeros(1, 3)).proven


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ("3", "'lipschitz.others' must be a list of bounds"),
        ("[3]", "'lipschitz.others' must be a list of bounds"),
        ('[{"lower": 1}, {"upper": true}]', "'lipschitz.others.1.upper' must be a finite number; got True"),
        ('[{"lower": NaN}]', "it must hold finite numbers alone; got NaN"),
    ],
)
def test_other_bounds_in_results_are_numbers(others: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_result(f'{{"lipschitz": {{"lower": 1, "others": {others}}}}}'.encode())
