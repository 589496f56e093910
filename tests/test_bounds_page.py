"""The page on bounds: its snippets run one after the other, and the gallery says what it finds."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "bounds.md").read_text("utf-8")


def test_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    snippets = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    for snippet in snippets:
        exec(compile(snippet, "bounds.md", "exec"), names)
    assert len(snippets) == 3
    assert capsys.readouterr().out.startswith("True\n")
    assert (tmp_path / "cert.npz").exists()


def test_error_on_the_page_is_the_one_that_is_raised() -> None:
    gallery = runpy.run_path(str(ROOT / "examples" / "gallery.py"))
    row = gallery["row_of"]("LSTM, 12 steps", 1)
    assert "none: module 'inner' (LSTM) is not understood" in row
    assert "(LSTM) is not understood: put it in a module of your own" in PAGE


def test_gallery_encloses_a_linear_map() -> None:
    gallery = runpy.run_path(str(ROOT / "examples" / "gallery.py"))
    cells = [cell.strip() for cell in gallery["row_of"]("linear", 5).strip("|").split("|")]
    assert cells[0] == "linear"
    assert cells[3:5] == ["layer product", "1.00"]
