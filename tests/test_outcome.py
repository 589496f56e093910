from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cheaplip.experiments import NAMES, reproduce
from cheaplip.experiments.outcome import MARK, claim, has_only, read_json, write_json
from cheaplip.settings import ReproduceSettings


def test_a_folder_is_claimed_once_and_then_known(tmp_path: Path) -> None:
    claim(tmp_path / "new", "toy", {"seed": 0, "size": (1, 2)})
    before = (tmp_path / "new" / MARK).read_bytes()
    claim(tmp_path / "new", "toy", {"seed": 0, "size": (1, 2)})
    assert (tmp_path / "new" / MARK).read_bytes() == before


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("path", {"seed": 0}, "holds the experiment toy, not path: choose another folder by --out"),
        ("toy", {"seed": 1}, "holds the experiment toy with seed = 0, got 1: give the same, or choose"),
    ],
)
def test_folder_of_another_experiment_is_refused(
    tmp_path: Path, name: str, settings: dict[str, Any], message: str
) -> None:
    claim(tmp_path, "toy", {"seed": 0})
    with pytest.raises(ValueError, match=message):
        claim(tmp_path, name, settings)


def test_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match="holds other files than those of an experiment"):
        claim(tmp_path, "toy", {})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="is a file, not a folder"):
        claim(tmp_path / "file", "toy", {})


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b'{"experiment": "toy"}'])
def test_damaged_mark_is_told_and_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MARK).write_bytes(content)
    with pytest.raises(ValueError, match=r"experiment.json"):
        claim(tmp_path, "toy", {})
    assert (tmp_path / MARK).read_bytes() == content


def test_json_that_is_not_finite_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_json_is_read_as_it_was_written(tmp_path: Path) -> None:
    content = {"λ": [0.1, 1e-30], "name": "ε"}
    assert read_json(write_json(tmp_path / "a.json", content)) == content


def test_settings_of_all_experiments_are_never_refused() -> None:
    has_only(ReproduceSettings(jobs=2, device="cpu", out="x", data_dir="y"), "toy")


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_refuses_a_setting_that_it_does_not_have(name: str, tmp_path: Path) -> None:
    wrong = {"run": "x"} if name != "figure1" else {"limit": 3}
    with pytest.raises(ValueError, match=f"{name} has no setting"):
        reproduce(name, ReproduceSettings(out=str(tmp_path / "out"), **wrong))
    assert not (tmp_path / "out").exists()
