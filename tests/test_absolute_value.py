"""The |x| example: its page computes what it says, its script prints the page's table."""

from __future__ import annotations

import math
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

import cheaplip as cl

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "absolute_value.md").read_text("utf-8")
SCRIPT = ROOT / "examples" / "absolute_value.py"


def test_snippet_prints_what_its_comment_says(capsys: pytest.CaptureFixture[str]) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    (promised,) = re.findall(r"print\(.*?\)  # (.*)", snippet)
    names: dict[str, object] = {}
    exec(compile(snippet, "absolute_value.md", "exec"), names)
    assert capsys.readouterr().out.strip() == promised == "between 1.0000 and 2.0000"


@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_layer_product_of_the_absolute_value_is_two_and_the_truth_one(p: float) -> None:
    net = runpy.run_path(str(SCRIPT))["absolute_value"]()
    x = torch.linspace(-2, 2, 9).unsqueeze(1)
    assert torch.equal(net(x), x.abs())
    interval = cl.lipschitz.bounds(net, x, p=p, method="product")
    assert interval.lower == pytest.approx(1.0, abs=1e-8)
    assert interval.upper == pytest.approx(2.0, abs=1e-9)
    if p == 2:
        assert cl.lipschitz.upper(net, x).value == pytest.approx(1.0, rel=1e-4)
        assert cl.lipschitz.upper(net, x, method="exact").value == pytest.approx(1.0, rel=1e-12)


def test_example_prints_the_table_of_the_page_and_saves_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["absolute_value.py", "--out", str(tmp_path)])
    monkeypatch.setenv("COLUMNS", "100")
    runpy.run_path(str(SCRIPT), run_name="__main__")
    printed = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    lines = [line.replace(r"\|", "¦").split("|")[1:-1] for line in PAGE.splitlines() if line.startswith("| \\|")]
    promised = [[cell.strip().replace("¦", "|") for cell in line] for line in lines]
    assert [row for row in printed if row] == promised
    assert len(promised) == 6
    assert (tmp_path / "absolute_value.png").read_bytes().startswith(b"\x89PNG")
