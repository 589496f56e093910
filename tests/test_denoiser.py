"""The example of a denoiser: three rows, one of them proven, and a page that says what it prints."""

from __future__ import annotations

import functools
import importlib
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import cheaplip as cl

enclosing = importlib.import_module("cheaplip.lipschitz.enclosing")
EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "denoiser.py"


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLE))


def test_snippet_of_the_page_proves_what_it_says() -> None:
    page = (EXAMPLE.parent.parent / "docs" / "denoiser.md").read_text("utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(snippet, "denoiser.md", "exec"), names)
    assert cl.lipschitz.upper(names["network"], names["data"].train.x[:1]).value <= 1


def test_example_prints_a_table_and_draws_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ["--epochs", "1", "--images", "128", "--width", "2"]
    monkeypatch.setattr(sys, "argv", ["denoiser.py", *short, "--out", str(tmp_path)])
    monkeypatch.setenv("COLUMNS", "140")
    # A search that takes its time is not what is tried here.
    monkeypatch.setattr(enclosing, "lower", functools.partial(cl.lipschitz.lower, pairs=8, steps=5))
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    shown = capsys.readouterr().out
    rows = [line for line in shown.splitlines() if line.startswith("│")]
    assert [name in row for name, row in zip(("freely", "on pairs", "product held"), rows, strict=True)] == [True] * 3
    assert str(tmp_path / "denoiser.png") in shown
    assert (tmp_path / "denoiser.png").stat().st_size > 10_000


def test_shrunken_network_is_proven_not_to_expand(example: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model, x = example["Denoiser"](1, 4), torch.rand(40, 1, 8, 8)
    with torch.no_grad():
        model.inner[-1].weight *= 20
    assert cl.lipschitz.lower(model.inner, x, pairs=8, steps=10).value > 1
    example["shrink"](model.inner, x)
    assert cl.lipschitz.upper(model.inner, x, method="product").value <= 1
    # The mean of the identity and of what does not expand is firmly nonexpansive.
    u, v = x[:20], x[20:]
    with torch.no_grad():
        change, moved = model(u) - model(v), u - v
    assert bool((change.square().flatten(1).sum(1) <= (change * moved).flatten(1).sum(1) * (1 + 1e-5)).all())
    before = model.inner[-1].weight.clone()
    example["shrink"](model.inner, x)
    assert torch.equal(model.inner[-1].weight, before)


def test_noise_and_its_measure_are_right(example: dict[str, Any]) -> None:
    x = torch.full((50, 1, 28, 28), 0.5)
    given = example["noisy"](x, 0.1, 3)
    assert torch.equal(given, example["noisy"](x, 0.1, 3))
    assert example["psnr"](given, x) == pytest.approx(20.0, abs=0.1)
