"""Data-parallel training: several processes do what one does, gradient for gradient, and agree on λ."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ranks_worker as worker
import torch
import torch.distributed as dist
from torch import Tensor, nn

import cheaplip as cl
from cheaplip.attacks import PGD
from cheaplip.cli import main
from cheaplip.data import BatchLoader
from cheaplip.penalties.ranks import processes
from cheaplip.runs import finished
from cheaplip.runs import processes as ending
from cheaplip.training.ranks import default_fabric

QUIET = os.environ | {"OMP_NUM_THREADS": "1"}
CLOSE = 1e-12  # in float64: rounding, and nothing else


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict[str, Any]]:
    """What each of two processes found, on this machine, by gloo."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    here = Path(worker.__file__)
    done = subprocess.run(
        [*command, str(here), str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
        env=QUIET,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"2-{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    return worker.by_hand(0, 1)


def distance(first: Any, second: Any) -> float:
    """The largest difference between two structures of numbers."""
    if isinstance(first, Tensor):
        return float((first - second).abs().max())
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        return max(distance(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return max((distance(a, b) for a, b in zip(first, second, strict=True)), default=0.0)
    return float(abs(first - second))


@pytest.mark.parametrize("case", list(worker.CASES))
@pytest.mark.parametrize("kind", ["plain", "apart", "frozen norm"])
def test_two_halves_are_the_whole_gradient_for_gradient(
    found: list[dict[str, Any]], alone: dict[str, Any], case: str, kind: str
) -> None:
    name = f"{case}, {kind}"
    first, second = (process["by hand"][name] for process in found)
    assert distance(first, second) == 0
    assert distance(first, alone[name]) < CLOSE
    assert float(alone[name]["gradients"][-1][0].abs().max()) > 1e-4


def test_fit_on_two_processes_is_fit_on_one(found: list[dict[str, Any]]) -> None:
    one = worker.fitted(default_fabric(nn.Linear(1, 1)))
    first, second = (process["fit"] for process in found)
    for key in ("weights", "weight", "rows", "kept"):
        assert distance(first[key], second[key]) == 0
        assert distance(first[key], one[key]) < CLOSE
    union = torch.stack([first["points"], second["points"]], 1).flatten(0, 1)
    assert distance(union, one["points"]) < CLOSE


@pytest.mark.parametrize("name", list(worker.RIVALS))
def test_processes_agree_with_a_penalty_on_the_minibatch(found: list[dict[str, Any]], name: str) -> None:
    first, second = (process["rivals"][name] for process in found)
    for key in ("weights", "weight"):
        assert distance(first[key], second[key]) == 0
    assert distance(first["weights"], found[0]["fit"]["weights"]) > 1e-6


def test_a_penalty_on_the_minibatch_is_that_of_the_whole_minibatch(found: list[dict[str, Any]]) -> None:
    penalty = worker.RIVALS["Jacobian"]()
    one = worker.fitted(default_fabric(nn.Linear(1, 1)), beside=penalty)
    for process in found:
        assert distance(process["rivals"]["Jacobian"]["weights"], one["weights"]) < CLOSE


@pytest.mark.parametrize("name", ["Jacobian", "ALP", "TRADES"])
def test_value_of_a_penalty_on_the_minibatch_is_that_of_all(found: list[dict[str, Any]], name: str) -> None:
    first, second = ([row["value_2"] for row in process["rivals"][name]["rows"]] for process in found)
    assert first == second
    if name == "Jacobian":
        one = worker.fitted(default_fabric(nn.Linear(1, 1)), beside=worker.RIVALS[name]())
        assert first == pytest.approx([row["value_2"] for row in one["rows"]], rel=1e-6)


@pytest.mark.parametrize("accumulate", [2, 3, 100])
def test_a_minibatch_in_parts_makes_the_same_step(accumulate: int) -> None:
    fabric = default_fabric(nn.Linear(1, 1))
    whole, parts = (worker.fitted(fabric, accumulate=number) for number in (1, accumulate))
    for key in ("weights", "weight", "rows", "points"):
        assert distance(whole[key], parts[key]) < CLOSE


def test_parts_attack_as_the_whole_does() -> None:
    fabric, attack = (
        default_fabric(nn.Linear(1, 1)),
        PGD(0.1, steps=2, box=None, random_start=False, early_stop=False, loss="cross-entropy"),
    )
    whole, parts = (worker.fitted(fabric, accumulate=number, adversary=attack) for number in (1, 3))
    assert distance(whole["weights"], parts["weights"]) < CLOSE
    assert distance(whole["weights"], worker.fitted(fabric)["weights"]) > 1e-6


def test_two_processes_make_the_same_step_in_parts(found: list[dict[str, Any]]) -> None:
    for process in found:
        assert distance(process["in parts"]["weights"], process["fit"]["weights"]) < CLOSE


def test_resumed_processes_end_with_the_same_bits(found: list[dict[str, Any]]) -> None:
    for process in found:
        assert distance(process["resumed"], process["whole"]) == 0
    assert not torch.equal(found[0]["whole"]["points"], found[1]["whole"]["points"])


def test_ctrl_c_in_one_process_stops_all_at_the_same_step(found: list[dict[str, Any]]) -> None:
    for process in found:
        assert "stopped in epoch 2, whose first 2 steps are saved" in process["halted"]
        assert distance(process["gone on"], process["whole"]) == 0


def test_all_processes_keep_the_epoch_of_the_first(found: list[dict[str, Any]]) -> None:
    assert found[0]["whole"]["kept"] == found[1]["whole"]["kept"]
    assert distance(found[0]["whole"]["weights"], found[1]["whole"]["weights"]) == 0


def test_a_checkpoint_of_two_processes_is_refused_by_one(found: list[dict[str, Any]], folder: Path) -> None:
    with pytest.raises(ValueError, match="it was begun with 2 processes, and now has 1"):
        worker.fitted(default_fabric(nn.Linear(1, 1)), folder / "stopped-2", epochs=4, renew=3, resume=True)


def test_a_sharded_model_is_trained_as_a_whole_one(found: list[dict[str, Any]]) -> None:
    for process in found:
        for key in ("weights", "weight", "rows"):
            assert distance(process["sharded"][key], process["fit"][key]) < CLOSE
            assert distance(process["sharded in parts"][key], process["fit"][key]) < CLOSE


def test_a_sharded_model_is_selected_and_resumed(found: list[dict[str, Any]]) -> None:
    for process in found:
        assert distance(process["sharded, resumed"], process["sharded, whole"]) == 0
        assert distance(process["sharded, whole"]["weights"], process["whole"]["weights"]) < CLOSE


def test_the_first_of_two_equal_quotients_leads(found: list[dict[str, Any]]) -> None:
    assert [process["tie"] for process in found] == [[2.0], [0.0]]


def test_mean_of_gradients_is_another_penalty_and_all_agree_on_it(found: list[dict[str, Any]]) -> None:
    first, second = (process["mean of gradients"] for process in found)
    assert distance(first["rows"], second["rows"]) == 0
    assert distance(first["weights"], second["weights"]) == 0
    assert distance(first["weights"], found[0]["fit"]["weights"]) > 1e-6


def test_a_torch_loader_is_divided(found: list[dict[str, Any]]) -> None:
    samples, own = 4 * worker.BATCH, worker.BATCH // 2
    assert [row["steps"] for row in found[0]["loader"]] == [epoch * samples // 2 // own for epoch in (1, 2, 3)]
    assert distance(found[0]["loader"], found[1]["loader"]) == 0


def test_alone_nothing_changes() -> None:
    penalty = worker.penalty_for()
    before = penalty.pairs.points.clone()
    cl.spread(penalty)
    assert processes() == (0, 1)
    assert torch.equal(penalty.pairs.points, before)
    output = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    term, accuracy = cl.agree(penalty, torch.tensor(2.0), output, torch.tensor([0, 1]))
    assert (float(term), float(accuracy)) == (2.0, 0.5)


def test_each_share_draws_its_own() -> None:
    shares = [cl.LipschitzPenalty.from_data(torch.rand(40, 3), weight=1.0, pairs=8) for _ in range(2)]
    for rank, penalty in enumerate(shares):
        cl.spread(penalty, rank, 2)
    drawn = [penalty.pairs.start.renew([0, 1])[0] for penalty in shares]
    assert not torch.equal(*drawn)


def test_pairs_that_cannot_be_divided_are_refused() -> None:
    with pytest.raises(ValueError, match="got 8 pairs for 3 processes: take 6 or 9"):
        cl.spread(worker.penalty_for(), 0, 3)
    penalty = worker.penalty_for()
    cl.spread(penalty, 0, 2)
    with pytest.raises(ValueError, match="spread over 2 processes already"):
        cl.spread(penalty, 0, 2)


def test_shares_of_a_loader_make_the_whole() -> None:
    x = torch.arange(11.0)[:, None]
    whole = BatchLoader(x, torch.arange(11), batch_size=4, seed=5)
    parts = [whole.share(rank, 3) for rank in range(3)]
    minibatches = [y for _, y in whole]
    shares = [[y for _, y in part] for part in parts]
    assert [len(part) for part in parts] == [3, 3, 3]
    for number, minibatch in enumerate(minibatches):
        joined = torch.cat([share[number] for share in shares])
        assert torch.equal(joined.sort().values, minibatch.sort().values)


def test_a_minibatch_too_small_for_all_is_left_out() -> None:
    whole = BatchLoader(torch.zeros(9, 1), torch.arange(9), batch_size=4)
    assert [len(list(whole.share(rank, 2))) for rank in range(2)] == [2, 2]
    with pytest.raises(ValueError, match="each of 5 processes needs a sample of every minibatch; got batch_size=4"):
        whole.share(0, 5)
    with pytest.raises(ValueError, match="one process's share already, of 2"):
        whole.share(0, 2).share(0, 2)


def test_command_trains_on_two_processes(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "cheaplip",
        "train",
        "--epochs",
        "2",
        "--penalty",
        "lipschitz+jacobian+alp+trades",
        "--devices",
        "2",
        "--out",
        str(tmp_path / "run"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path, env=QUIET, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("the run lies in") == 1
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert len(state["shares"]) == 1
    assert len(state["penalty_0"]["pairs.points"]) == 16


def test_group_of_processes_is_kept_when_it_is_dissolved() -> None:
    # In PyTorch 2.13 a model's wrapper that held the last reference hung now and then; rounds of it prove nothing.
    dist.init_process_group("gloo", store=torch._C._distributed_c10d.HashStore(), rank=0, world_size=1)
    group = dist.group.WORLD
    ending.dissolve()
    assert not dist.is_initialized()
    assert any(kept is group for kept in ending._ENDED)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--devices", "3"], "lipschitz.pairs must be a multiple of the number of processes, 3; got 16: take 18"),
        (["--devices", "2", "--batch-size", "1"], "batch_size must be at least the number of processes, 2; got 1"),
        (["--devices", "0"], "devices must be"),
        (["--devices", "128", "--lipschitz.pairs", "128", "--device", "cpu"], "devices must be at most 64 on a CPU"),
    ],
)
def test_what_processes_cannot_share_is_said_before_they_start(
    words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--out", str(tmp_path / "run"), *words]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_of_one_process_is_saved_whatever_others_are_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert main(["train", "--epochs", "1", "--model", "mlp:64-10", "--out", str(tmp_path / "run")]) == 0
    assert finished(tmp_path / "run")
