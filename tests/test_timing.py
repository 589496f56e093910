"""What all benchmarks share: the timer, the peak of memory, tables and files; no time is asserted."""

from __future__ import annotations

import gc
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from tables import Table, check_writable, write_whole
from timing import Timings, interleave, peak_bytes, summarise, without_gc


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_summary_is_ordered_and_within_the_values(values: list[float]) -> None:
    s = summarise(values)
    assert min(values) <= s.p5 <= s.p25 <= s.median <= s.p75 <= s.p95 <= max(values)
    assert s.count == len(values)
    assert s.mean == pytest.approx(math.fsum(values) / len(values), abs=1e-6)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_summary_refuses_what_has_none(values: list[float]) -> None:
    with pytest.raises(ValueError, match="one finite number or more; got"):
        summarise(values)


def test_every_step_is_timed_next_to_the_base_step_after_a_call_that_is_not() -> None:
    calls: list[str] = []
    told: list[float] = []
    others = {name: ((lambda n=name: calls.append(n)), count) for name, count in (("a", 1), ("b", 2))}
    timed = interleave(
        lambda: calls.append("plain"), others, seconds=0.0, warmup=1, least=2, tick=told.append
    )  # fmt: skip
    assert calls == ["plain"] * 2 + ["a"] * 2 + ["plain"] * 2 + ["b"] * 3 + calls[:9] + calls[:9]
    assert [len(timing.base) for timing in timed.values()] == [2, 2]
    assert told[-1] == 1.0


def test_ratios_are_taken_pair_by_pair_and_totals_over_all() -> None:
    timings = Timings(base=(1.0, 4.0), own=(2.0, 4.0))
    assert timings.ratios() == [2.0, 1.0]
    assert timings.ratio_of_totals() == 6 / 5


def test_garbage_collector_rests_while_timing_and_is_restored_after_an_error() -> None:
    def fail() -> None:
        assert not gc.isenabled()
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        interleave(fail, {"a": (fail, 1)}, seconds=0.0)
    assert gc.isenabled()
    gc.disable()
    try:
        with without_gc():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_peak_memory_counts_what_lives_at_once_and_not_what_was_there() -> None:
    there = torch.ones(10_000)

    def build() -> Any:
        held = torch.zeros(1000)

        def step() -> None:
            first = held.clone()
            del first
            torch.empty(500).copy_(there[:500])

        return step

    assert peak_bytes(build) == 4 * (1000 + 1000)


def test_tables_are_written_in_both_forms_and_refuse_a_short_row() -> None:
    table = Table("costs", ("step", "ms"), (("plain", "1.25"), ("joint", "12")))
    assert table.markdown().splitlines() == [
        "costs", "", "| step | ms |", "|:---|---:|", "| plain | 1.25 |", "| joint | 12 |"
    ]  # fmt: skip
    assert table.text().splitlines() == ["costs", "step     ms", "plain  1.25", "joint    12"]
    with pytest.raises(ValueError, match="2 cells, one per head; got 1"):
        Table("costs", ("step", "ms"), (("plain",),))


def test_file_is_replaced_whole_and_a_bad_folder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_whole(path, "old")
    write_whole(path, b"new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match=r"cannot write .*none.*choose another --out"):
        write_whole(tmp_path / "none" / "b.txt", "text")
    with pytest.raises(ValueError, match=r"cannot write to .*a\.txt.*choose another --out"):
        check_writable(path / "below")
