"""Bad input in bulk, the short form: every case works or ends with status 2 and one sentence; see soak/fuzz.py."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from fuzz_kinds import KINDS, SLOW, prepare
from fuzzing import run_case
from hypothesis import given
from hypothesis import strategies as st

from cheaplip.data.idx import parse_idx
from cheaplip.report.reading import read_history
from cheaplip.runs.results import parse_result
from cheaplip.settings import TrainSettings, from_mapping

SEED = 6
CASES = {kind: 1 if kind in SLOW else 19 for kind in KINDS}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("fuzz") / "files")


def test_there_are_300_cases() -> None:
    assert sum(CASES.values()) >= 300


@pytest.mark.parametrize("kind", KINDS)
def test_bad_input_works_or_is_refused_in_one_sentence_and_changes_nothing(kind: str, base: Path) -> None:
    failed = [case for number in range(CASES[kind]) if (case := run_case(base, kind, SEED, number)).end == "failed"]
    assert not failed, f'one alone: python tests/soak/fuzz.py --only "{kind} N" --seed {SEED}'


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
KEYS = st.text(max_size=8) | st.sampled_from(
    ["accuracy", "robust", "lipschitz", "seconds", "others", "lower", "epochs", "pairs", "control", "data", "weight"]
)
TREES: st.SearchStrategy[Any] = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=20
)


def refused_or_read(read: Any, *given: Any) -> None:
    """Call a reader that may refuse, in one line."""
    told = "read"
    try:
        read(*given)
    except (ValueError, TypeError) as error:
        told = str(error)
    assert told
    assert "\n" not in told


@given(TREES)
def test_any_values_are_settings_or_refused(tree: Any) -> None:
    refused_or_read(from_mapping, TrainSettings, tree)


@given(TREES)
def test_any_json_is_a_result_or_refused(tree: Any) -> None:
    refused_or_read(parse_result, json.dumps(tree).encode())


@given(st.binary(max_size=40) | st.binary(max_size=40).map(lambda rest: b"\0\0\x08" + rest))
def test_any_bytes_are_images_or_refused(content: bytes) -> None:
    refused_or_read(parse_idx, content)


@given(rows=st.lists(st.lists(st.text(max_size=6) | st.floats().map(str), max_size=4), max_size=5))
def test_any_table_is_a_history_or_refused(rows: list[list[str]], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("table") / "metrics.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["epoch", "loss"], *rows])
    refused_or_read(read_history, path)
