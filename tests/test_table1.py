"""Table 1: every row trained once, told in every form, with what fell short."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from cheaplip import runs
from cheaplip.experiments import reproduce
from cheaplip.experiments.table1 import cells, layout, plan, work
from cheaplip.experiments.table1.published import published
from cheaplip.settings import ReproduceSettings, from_mapping

SMALL = {"data": "digits", "epochs": 1, "limit": 20, "jobs": 2}


def small(out: Path, **others: Any) -> ReproduceSettings:
    return from_mapping(ReproduceSettings, {**SMALL, "out": str(out), **others})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("table1") / "out"
    reproduce("table1", small(out))
    return out


def result_with(**accuracies: float) -> dict[str, Any]:
    """A result as a run leaves it, with strong PGD at all radii as given, else 0.5."""
    robust = [
        {"attack": "pgd", "eps": eps, "images": 1000, "accuracy": accuracies.get("pgd", 0.5)} for eps in (1.0, 1.5, 2.0)
    ]
    robust.append({"attack": "pgd-paper", "eps": 2.0, "images": 1000, "accuracy": accuracies.get("paper", 0.5)})
    return {
        "data": "mnist",
        "model": "mlp",
        "epochs": 1,
        "penalty": "lipschitz",
        "weight": 0.1,
        "accuracy": {"train": accuracies.get("train", 0.95), "clean": accuracies.get("clean", 0.95)},
        "robust": robust,
        "lipschitz": {"lower": 2.0},
    }


def test_table_is_written_in_every_form(made: Path) -> None:
    table = json.loads((made / "table1.json").read_text("utf-8"))
    assert len(table["rows"]) == len(plan.rows_of("digits"))
    for row in table["rows"]:
        assert {"train", "clean", "noise", "pgd-paper", "pgd@0.25", "pgd@0.5", "pgd@0.75", "lower"} <= row[
            "cells"
        ].keys()
        assert ("weight" in row["cells"]) == (row["method"] in ("weight", "clip", "layers"))
    with (made / "table1.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["method"] for line in lines] == [row["method"] for row in table["rows"]]
    text = (made / "table1.md").read_text("utf-8")
    assert all(f"| {plan.Row('digits', 'clip', t).title}" in text for t in plan.TARGETS)
    assert (made / "table1.tex").read_text("utf-8").count(r"\begin{tabular}") == 1
    assert (made / "table1.png").read_bytes().startswith(b"\x89PNG")


def test_repeated_command_trains_and_attacks_nothing_again(made: Path) -> None:
    def times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (made / "digits").rglob("*") if path.is_file()}

    before, table = times(), (made / "table1.json").read_bytes()
    reproduce("table1", small(made))
    assert times() == before
    assert (made / "table1.json").read_bytes() == table


def test_half_finished_run_is_finished_with_the_same_results(made: Path) -> None:
    lost = made / "digits" / "clip-90" / "seed-0"
    before = runs.read_result(lost)
    (lost / "result.json").unlink()
    reproduce("table1", small(made))
    after = runs.read_result(lost)
    assert {k: v for k, v in after.items() if k != "seconds"} == {k: v for k, v in before.items() if k != "seconds"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"limit": 30}, "holds the experiment table1 with limit = 20, got 30"),
        ({"epochs": 2}, "holds a run with epochs = 1, got 2"),
        ({"data": "regression"}, "table1 is made of mnist, fashion-mnist, digits; got data 'regression'"),
    ],
)
def test_other_settings_in_the_same_folder_are_refused(made: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reproduce("table1", small(made, **changed))


def test_missing_data_is_told_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        reproduce("table1", small(tmp_path / "out", data="mnist", data_dir=str(tmp_path)))
    assert not (tmp_path / "out").exists()


def test_damaged_result_is_told(made: Path) -> None:
    damaged = made / "digits" / "standard" / "seed-0" / "result.json"
    before = damaged.read_bytes()
    damaged.write_bytes(before[:50])
    try:
        with pytest.raises(ValueError, match=r"cannot use .*result.json"):
            reproduce("table1", small(made))
        assert damaged.read_bytes() == before[:50]
    finally:
        damaged.write_bytes(before)


def test_every_row_of_the_paper_has_its_published_values() -> None:
    rows = [row for data in ("mnist", "fashion-mnist") for row in plan.rows_of(data)]
    told = [row for row in rows if published(row.data, row.method, row.target)]
    assert len(told) == 14
    assert {row.method for row in rows if row not in told} == {"layers", "one-step", "pgd-7"}


def test_runs_of_all_rows_and_seeds_lie_in_folders_of_their_own(tmp_path: Path) -> None:
    rows = [row for data in plan.MODELS for row in plan.rows_of(data)]
    folders = {row.folder(tmp_path, seed) for row in rows for seed in range(3)}
    assert len(folders) == 3 * len(rows)


def test_cell_holds_mean_and_deviation_over_seeds() -> None:
    row = plan.Row("mnist", "clip", 0.95)
    made = cells.row_of(row, {0: result_with(train=0.945), 1: result_with(train=0.955)})
    assert made["cells"]["train"]["mean"] == pytest.approx(0.95)
    assert made["cells"]["train"]["std"] == pytest.approx(0.005 * 2**0.5)
    assert made["cells"]["train"]["published"] == 0.953
    assert made["reached"] is True
    assert "± 0.7 [95.3]" in layout.texts(made)[1]


def test_target_that_was_missed_is_said_in_row_and_remarks() -> None:
    row = plan.Row("mnist", "clip", 0.95)
    made = cells.row_of(row, {0: result_with(train=0.95), 1: result_with(train=0.935, clean=0.935)})
    assert made["reached"] is False
    assert "(not reached)" in layout.texts(made)[0]
    assert any("the target was NOT reached" in said for said in cells.remarks([made]))


def test_remarks_say_where_clip_falls_short() -> None:
    clip = cells.row_of(plan.Row("mnist", "clip", 0.95), {0: result_with(paper=0.2)})
    equal = cells.row_of(plan.Row("mnist", "weight", 0.95), {0: result_with()})
    said = " ".join(cells.remarks([clip, equal]))
    assert "PGD (13) is NOT above the paper's" in said
    assert "intervals apart, at none of ε = 1, 1.5, 2" in said


def test_remarks_say_which_rival_is_above_clip() -> None:
    clip = cells.row_of(plan.Row("mnist", "clip", 0.95), {0: result_with(pgd=0.5)})
    rival = cells.row_of(plan.Row("mnist", "one-step"), {0: result_with(pgd=0.7)})
    (said,) = cells.remarks([clip, rival])
    assert said.startswith("MNIST, One-step adv. training is above CLIP at 95 %")
    assert said.endswith("at ε = 1, 1.5, 2")


def test_nothing_is_said_where_all_is_as_it_should_be() -> None:
    clip = cells.row_of(plan.Row("mnist", "clip", 0.95), {0: result_with(pgd=0.7)})
    weight = cells.row_of(plan.Row("mnist", "weight", 0.95), {0: result_with(pgd=0.5)})
    assert cells.remarks([clip, weight]) == []


def test_only_what_is_missing_is_attacked() -> None:
    result = result_with()
    assert list(work.missing(result, limit=1000, images=10_000)) == [("noise", None)]
    others = [("pgd-paper", [2.0]), ("pgd", [1.0, 1.5, 2.0])]
    assert list(work.missing(result, limit=500, images=10_000)) == [("noise", None), *others]


def test_limit_above_the_test_set_is_all_of_it() -> None:
    result = result_with()
    result["robust"].append({"attack": "noise", "images": 1000, "accuracy": 0.5})
    assert list(work.missing(result, limit=5000, images=1000)) == []
    assert list(work.missing(result, limit=5000, images=2000)) != []


def test_attacks_of_other_radii_do_not_stand_in_for_those_of_the_table() -> None:
    result = result_with(paper=0.1)
    result["robust"] += [
        {"attack": "pgd-paper", "eps": 0.5, "images": 10, "accuracy": 0.9},
        {"attack": "pgd", "eps": 0.1, "images": 10, "accuracy": 0.9},
    ]
    made = cells.row_of(plan.Row("mnist", "clip", 0.95), {0: result})
    assert made["cells"]["pgd-paper"]["mean"] == 0.1
    assert made["images"] == dict.fromkeys(("pgd@1", "pgd@1.5", "pgd@2", "pgd-paper"), 1000)


def test_latex_has_no_letter_that_it_cannot_set() -> None:
    clip = cells.row_of(plan.Row("mnist", "clip", 0.95), {0: result_with()})
    assert layout.latex([clip]).isascii()
