"""The benchmark of the step's cost: what it computes, counts and writes; no time is asserted."""

from __future__ import annotations

import doctest
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import step_cost
import step_plot
import step_report
from arithmetic import adversarial_floor, authors_cost, clip_floor, multiply_adds
from authors import authors_penalty, square_quotients
from step_variants import (
    Variant,
    Workload,
    adversarial_variant,
    authors_variant,
    both_variants,
    clip_variants,
    plain,
)
from timing import peak_bytes, summarise

MODULES = ("arithmetic", "authors", "step_cost", "step_plot", "step_report", "step_variants", "tables", "timing")
TINY = "mlp:784-8-10"
FILES = ["step_cost.json", "step_cost.md", "step_cost.png", "step_cost.svg"]


@pytest.fixture(autouse=True)
def _leave_chance_and_threads_as_they_were() -> Any:
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    yield
    torch.set_rng_state(state)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", MODULES)
def test_every_example_in_the_benchmark_runs(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS).failed == 0


# Inputs times outputs of each layer; a convolution once per pixel of its output.
BY_HAND = {
    "mlp:784-64-64-10": [784 * 64, 64 * 64, 64 * 10],
    "mlp:784-200-80-10": [784 * 200, 200 * 80, 80 * 10],
    "cnn": [28 * 28 * 32 * 25, 14 * 14 * 64 * 32 * 25, 3136 * 1024, 1024 * 10],
}


@pytest.mark.parametrize(
    ("network", "share", "floor"),
    [
        ("mlp:784-64-64-10", 50176 / 54912, 1.2553),
        ("mlp:784-200-80-10", 156800 / 173600, 1.2541),
        ("cnn", 627200 / 13883904, 1.1848),
    ],
)
def test_multiply_adds_share_and_floor_are_those_computed_by_hand(network: str, share: float, floor: float) -> None:
    work = Workload.make(network, batch=2)
    assert list(work.operations) == BY_HAND[network]
    assert work.share == pytest.approx(share, abs=1e-12)
    assert clip_floor(128, 16, work.share) == pytest.approx(floor, abs=5e-5)


def test_floors_are_those_of_the_design() -> None:
    deep = [clip_floor(128, pairs, share=0.0) for pairs in (8, 16, 32, 64)]
    assert [round(floor, 2) for floor in deep] == [1.10, 1.18, 1.35, 1.68]
    assert clip_floor(128, 32, 0.0, every=2) == pytest.approx(1 + 2 / 128 + 64 / 384)
    assert clip_floor(128, 32, 0.0, every=2, shared=True) == pytest.approx(1 + 2 / 128 + 63 / 384)
    assert adversarial_floor(7, share=0.0) == pytest.approx(17 / 3)
    assert authors_cost(128, 500, share=0.0) == pytest.approx(1 + 2 / 128 + 5000 / 384)


class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the operations of matrix products and convolutions, forward and backward, by torch's own formulas."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        self.total += 0 if formula is None else formula(*args, **(kwargs or {}), out_val=result)
        return result


def counted(variant: Variant) -> float:
    """Floating-point operations of one step, once its state is made."""
    step = variant.build()
    for _ in range(variant.period):
        step()
    with Counter() as counter:  # type: ignore[no-untyped-call]
        for _ in range(variant.period):
            step()
    return float(counter.total / variant.period)


@pytest.mark.parametrize("network", ["mlp:784-20-8-10", "cnn"])
def test_every_step_makes_exactly_the_operations_of_its_floor(network: str) -> None:
    work = Workload.make(network, batch=8)
    variants = [
        *clip_variants(work, [3]),
        *both_variants(work, [3]),
        *(adversarial_variant(work, steps) for steps in (1, 7)),
    ]
    base = counted(Variant("plain", None, 1.0, lambda: work.step(plain)))
    for variant in [*variants, authors_variant(work, pairs=5)]:
        assert counted(variant) / base == pytest.approx(variant.floor, rel=1e-9), variant.key


def test_multiply_adds_of_an_unknown_layer_are_refused_and_leave_no_hook() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    with pytest.raises(ValueError, match="linear and convolutional layers are known; got BatchNorm1d"):
        multiply_adds(model, torch.zeros(2, 3))
    assert not model[0]._forward_hooks
    assert not model[1]._forward_hooks


def test_grouped_convolutions_are_counted_by_group() -> None:
    assert multiply_adds(nn.Conv2d(4, 6, 3, groups=2), torch.zeros(1, 4, 5, 5)) == [3 * 3 * 6 * 2 * 9]


@pytest.mark.parametrize("key", range(6))
def test_versions_train_copies_and_leave_the_network_alone(key: int) -> None:
    work = Workload.make(TINY, batch=4)
    before = {name: value.clone() for name, value in work.model.state_dict().items()}
    versions = [*clip_variants(work, [2]), adversarial_variant(work, 1), adversarial_variant(work, 7)]
    step = [*versions, authors_variant(work, pairs=3)][key].build()
    for _ in range(3):
        step()
    assert all(torch.equal(value, before[name]) for name, value in work.model.state_dict().items())
    assert all(parameter.grad is None for parameter in work.model.parameters())


def test_authors_penalty_is_that_of_the_largest_square_quotient_and_no_quotient_falls() -> None:
    work = Workload.make("mlp:784-8-10:relu", batch=4)
    u, v = work.pairs(6)
    penalty = authors_penalty(u, v)
    largest = square_quotients(work.model, torch.cat([u, v])).max().item()
    for _ in range(4):  # the network stands still, so the maximum may only rise
        value = penalty(work.model)
        assert value.item() >= largest - 1e-4 * largest
        largest = value.item()
    torch.autograd.backward(value)
    assert all(parameter.grad is not None for parameter in work.model.parameters())
    assert largest > 1.05 * square_quotients(work.model, torch.cat([u, v])).max().item()


def test_peak_memory_of_training_grows_with_the_pairs_and_holds_weights_gradients_and_momentum() -> None:
    work = Workload.make(TINY, batch=4)
    held = 3 * 4 * sum(parameter.numel() for parameter in work.model.parameters())
    base, *more = (peak_bytes(build) for build in (
        lambda: work.step(plain), *(variant.build for variant in clip_variants(work, [2, 64], ["joint"]))
    ))  # fmt: skip
    assert held <= base < more[0] < more[1]
    assert more[1] >= base + 4 * 784 * 128


def test_a_run_writes_all_numbers_tables_and_plots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = f"--seconds 0 --batch 4 --device cpu --networks {TINY} --pairs 4,2 --out {tmp_path}"
    assert step_cost.main(command.split()) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES
    results = json.loads((tmp_path / "step_cost.json").read_text("utf-8"))
    assert {"cpu", "threads", "torch", "python", "cheaplip"} <= results["machine"].keys()
    assert results["machine"]["threads"] == 1
    (entry,) = results["networks"]
    assert [(row["name"], row.get("pairs")) for row in entry["rows"]] == [
        *((name, count) for count in (2, 4) for name in ("penalty", "joint", "joint, every=2")),
        *((f"one-step adversary, joint{how}", count) for count in (2, 4) for how in (" after it", "")),
        ("one-step adversary", None), ("PGD-7 adversary", None), ("500 pairs, no input-only backward", 500),
    ]  # fmt: skip
    assert entry["rows"][1]["floor"] == clip_floor(4, 2, entry["first_layer_share"], shared=True)
    assert all(row["ratio"]["count"] == entry["rounds"] >= 5 and row["peak_bytes"] > 0 for row in entry["rows"])
    page = (tmp_path / "step_cost.md").read_text("utf-8")
    assert "| joint, every=2 | 4 |" in page
    assert results["machine"]["cpu"] in page
    printed = capsys.readouterr()
    assert f"{TINY}, batch 4" in printed.out
    assert f"{TINY}, batch 4: time ..." in printed.err
    assert (tmp_path / "step_cost.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "step_cost.svg").read_text("utf-8")
    drawn = step_plot.render(step_plot.draw(results["networks"]), "svg")
    assert drawn == (tmp_path / "step_cost.svg").read_bytes()


@pytest.mark.parametrize(("seconds", "cell"), [(0.00123456, "1.23"), (0.0456789, "45.7"), (1.23456, "1235")])
def test_times_are_shown_with_three_digits_and_no_exponent(seconds: float, cell: str) -> None:
    numbers = {"seconds": summarise([seconds]).to_json()}
    entry = {"network": "n", "batch": 1, "first_layer_share": 0.5, "rounds": 1, "plain": numbers, "rows": []}
    (table,) = step_report.tables({"networks": [entry]})
    assert table.rows[0][2] == cell


def test_growth_is_tabulated_against_pairs_batch_and_width(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GROWTH_PAIRS", "GROWTH_BATCHES", "GROWTH_WIDTHS"):
        monkeypatch.setattr(step_cost, name, (2, 6))
    grown = step_cost.growth([TINY], torch.device("cpu"), 4, 0.0, print)
    tables = step_report.tables({"networks": [], "growth": grown})
    assert [table.heads[0] for table in tables] == ["pairs", "batch", "width"]
    assert [[row[0] for row in table.rows] for table in tables] == [["2", "6"]] * 3
    share = 784 / (784 + 10)
    by_pairs = [clip_floor(4, pairs, share, shared=True) for pairs in (2, 6)]
    by_batch = [clip_floor(batch, 16, share, shared=True) for batch in (2, 6)]
    assert [row[-1] for row in tables[0].rows] == [f"{floor:.2f}" for floor in by_pairs]
    assert [row[-1] for row in tables[1].rows] == [f"{floor:.2f}" for floor in by_batch]
    assert "P = 16" in tables[2].title


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("--pairs 0", "whole number of at least 1; got '0'"),
        ("--pairs 8,x", "whole number of at least 1; got 'x'"),
        ("--networks cnn,cnn", "different names separated by commas; got 'cnn,cnn'"),
        ("--seconds nan", "number of seconds of at least 0; got 'nan'"),
        ("--batch 1.5", "whole number of at least 1; got '1.5'"),
        ("--device tpu", "invalid choice: 'tpu'"),
    ],
)
def test_bad_option_ends_with_status_2_and_what_was_expected(
    command: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        step_cost.main(command.split())
    assert stop.value.code == 2
    assert told in capsys.readouterr().err.splitlines()[-1]


def test_unknown_network_ends_with_status_2_and_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert step_cost.main(["--networks", "resnet", "--out", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "resnet" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_missing_gpu_is_told_with_the_way_around(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert step_cost.main(["--device", "cuda", "--out", str(tmp_path)]) == 2
    assert "use --device cpu" in capsys.readouterr().err
