"""The page on one's own loop, model and data: its snippets run, in the order in which they stand."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from cheaplip.cli import main
from cheaplip.settings.penalties import PENALTIES

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "own.md").read_text("utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
FILE = "# mine.py\n"


def test_snippets_run_one_after_the_other() -> None:
    names: dict[str, object] = {}
    snippets = [snippet for snippet in SNIPPETS if not snippet.startswith(FILE)]
    for snippet in snippets:
        exec(compile(snippet, "own.md", "exec"), names)
    assert len(snippets) == 2


def test_commands_run_with_the_functions_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (source,) = (snippet for snippet in SNIPPETS if snippet.startswith(FILE))
    (tmp_path / "mine.py").write_text(source, encoding="utf-8")
    (block,) = re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)
    commands = [line for line in block.splitlines() if line.startswith("cheaplip ")]
    assert len(commands) == 3
    try:
        for command in commands:
            status = main(shlex.split(command, comments=True)[1:])
            assert status == 0, f"{command}: {capsys.readouterr().err}"
    finally:
        sys.modules.pop("mine", None)
    left = {path.name for path in (tmp_path / "runs" / "mine").iterdir()}
    table = PAGE.partition("| file | what is in it |")[2].partition("\n\n")[0]
    assert left <= set(re.findall(r"`([a-z_]+\.[a-z]+)`", table))


def test_every_penalty_of_the_command_is_on_the_page() -> None:
    rows = re.findall(r"^\| `\w+` \| `(\w+)` \|", PAGE, flags=re.MULTILINE)
    assert sorted(rows) == sorted(PENALTIES)
