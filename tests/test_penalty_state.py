"""LipschitzPenalty over time and in bad weather: resumed runs, copies, degenerate pairs, wrong arguments."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from oracles import changes, gradients, mlp, quotients, rand, randn, through_disk
from torch import Tensor
from torch.nn import functional as F

from cheaplip.control import Discrepancy
from cheaplip.penalties import LipschitzPenalty

SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "several moves": {"steps": 2, "every": 3, "renew": 7},
    "samples in a box": {"start": "samples", "renew": 5, "box": (0.0, 1.0)},
    "uniform, mean": {"start": "uniform", "renew": 3, "reduce": "mean", "search": "paper", "step": 0.05},
}


class Run:
    """A small training with everything that a checkpoint holds."""

    def __init__(self, data: Tensor, **arguments: Any) -> None:
        self.net = mlp(5, 8, 3, dtype=torch.float32)
        self.penalty = LipschitzPenalty.from_data(data, weight=0.1, pairs=6, **arguments)
        self.control = Discrepancy(self.penalty, target=0.5, step=0.01, warmup=20)
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1, momentum=0.9)

    def steps(self, numbers: range, joint: bool) -> None:
        for number in numbers:
            x = rand(8, 5, seed=number, dtype=torch.float32)
            y = (3 * x[:, 0]).long()
            logits, reg = self.penalty.joint(self.net, x) if joint else (self.net(x), self.penalty(self.net))
            self.optimizer.zero_grad()
            torch.autograd.backward(F.cross_entropy(logits, y) + reg)
            self.optimizer.step()
            self.control.step((logits.argmax(1) == y).float().mean())

    def parts(self) -> list[Any]:
        return [self.net, self.penalty, self.control, self.optimizer]

    def state(self) -> list[Any]:
        return copy.deepcopy([part.state_dict() for part in self.parts()])


DATA = rand(40, 5, seed=9, dtype=torch.float32)


@pytest.mark.parametrize("joint", [False, True], ids=["forward", "joint"])
@pytest.mark.parametrize("arguments", SETTINGS.values(), ids=SETTINGS.keys())
def test_resumed_run_has_the_bits_of_an_undisturbed_one(arguments: dict[str, Any], joint: bool) -> None:
    whole, first, second = Run(DATA, **arguments), Run(DATA, **arguments), Run(DATA, **arguments)
    whole.steps(range(30), joint)
    first.steps(range(15), joint)
    for part, state in zip(second.parts(), through_disk(first.state()), strict=True):
        part.load_state_dict(state)
    second.steps(range(15, 30), joint)
    assert changes(whole.state()[0], second.state()[0]) == []
    assert changes(whole.state()[1], second.state()[1]) == []
    assert second.control.calls == 30


@pytest.mark.parametrize("other", [{"seed": 1}, {"data": 10 * DATA}], ids=["another seed", "data of another scale"])
def test_state_dict_alone_decides_what_comes_next(other: dict[str, Any]) -> None:
    first = Run(DATA, renew=7)
    first.steps(range(10), joint=True)
    second = Run(**{"data": DATA, "renew": 7, **other})
    for part, state in zip(second.parts(), first.state(), strict=True):
        part.load_state_dict(state)
    for run in (first, second):
        run.steps(range(10, 30), joint=True)
    assert changes(first.state()[1], second.state()[1]) == []


@pytest.mark.parametrize("loads", range(1, 5))
@pytest.mark.parametrize("moves", range(4))
def test_copy_goes_its_own_way_and_takes_over_a_state(moves: int, loads: int) -> None:
    net, penalty, other = mlp(5, 8, 3), make(seed=1), make(seed=2)
    for _ in range(moves):
        penalty(net)
    penalty.eval()(net)
    for _ in range(10):
        other(net)
    state = copy.deepcopy(penalty.state_dict())
    twin = copy.deepcopy(penalty)
    assert changes(state, twin.state_dict()) == []
    for _ in range(loads):
        twin.load_state_dict(other.state_dict())
    assert changes(state, penalty.state_dict()) == []
    assert twin.eval()(net).item() == other.eval()(net).item()
    assert penalty(net).item() == pytest.approx(0.5 * quotients(net, *state_points(state)).max().item())


def make(**arguments: Any) -> LipschitzPenalty:
    return LipschitzPenalty.from_data(DATA.double(), weight=0.5, pairs=6, **arguments)


def state_points(state: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    u, v = state["pairs.points"].chunk(2)
    return u, v


def test_copy_continues_with_the_same_bits() -> None:
    net, penalty = mlp(5, 8, 3), make(renew=4)
    penalty(net)
    twin = copy.deepcopy(penalty)
    for _ in range(10):
        assert penalty(net).item() == twin(net).item()
    assert changes(penalty.state_dict(), twin.state_dict()) == []


def test_penalty_follows_the_model_to_float64() -> None:
    single, wide = (LipschitzPenalty.from_data(DATA, weight=0.5, pairs=6) for _ in range(2))
    single(mlp(5, 8, 3, dtype=torch.float32)), wide(mlp(5, 8, 3, dtype=torch.float32))
    wide.to(torch.float64)
    for _ in range(5):
        expected, result = single(mlp(5, 8, 3, dtype=torch.float32)), wide(mlp(5, 8, 3))
        assert result.dtype == wide.value.dtype == wide.weight.dtype == torch.float64
        torch.testing.assert_close(result.float(), expected, rtol=1e-3, atol=1e-4)


def test_value_and_weight_stay_wide_for_a_model_in_half_precision() -> None:
    net = mlp(5, 8, 3, dtype=torch.bfloat16)
    penalty = make().to(torch.bfloat16)
    penalty(net)
    assert penalty.value.dtype == torch.float32
    Discrepancy(penalty, target=0.5, step=1e-4).step(1.0)  # too small a step for 8 bits
    assert penalty.weight.item() == pytest.approx(0.5001, abs=1e-6)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_measuring_without_gradients_leaves_a_penalty_that_trains(mode: Callable[[], Any]) -> None:
    net, penalty = mlp(5, 8, 3), make()
    penalty.load_state_dict(make(seed=1).state_dict())
    with mode():
        result = penalty.eval()(net)
    assert not result.requires_grad
    again = penalty.train()(net)
    assert again.item() == pytest.approx(result.item())
    assert any(bool(g.any()) for g in gradients(again, net))


def test_pairs_move_where_the_loop_builds_no_graph() -> None:
    net, penalty, twin = mlp(5, 8, 3), make(), make()
    with torch.no_grad():
        penalty(net)
    twin(net)
    assert changes(penalty.state_dict(), twin.state_dict()) == []


# Degenerate pairs and functions


def root(x: Tensor) -> Tensor:
    """Finite everywhere, with an infinite slope at 0."""
    return x.abs().sqrt()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("reduce", ["max", "mean", ("softmax", 0.1)])
@pytest.mark.parametrize("joint", [False, True], ids=["forward", "joint"])
def test_pairs_with_outputs_nan_or_infinite_stay_out_of_the_loss(
    reduce: Any, every: int, joint: bool, bad: float
) -> None:
    def function(x: Tensor) -> Tensor:
        return torch.where(x > 3, bad, scale * x**2)

    scale = torch.ones((), requires_grad=True)
    # The last pair climbs into the bad region, the first one climbs away from it.
    u, v = torch.tensor([[-1.0], [5.0], [1.0]]), torch.tensor([[-0.5], [5.5], [2.0]])
    penalty = LipschitzPenalty(u, v, weight=1.0, reduce=reduce, every=every, step=0.5)
    for _ in range(8):
        result = penalty.joint(function, torch.zeros(2, 1))[1] if joint else penalty(function)
        assert math.isfinite(result.item())
        (gradient,) = torch.autograd.grad(result, scale)
        assert math.isfinite(gradient.item())


def test_pair_whose_slope_is_infinite_is_renewed() -> None:
    penalty = LipschitzPenalty(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 1.0]]), weight=1.0)
    for _ in range(5):
        assert math.isfinite(penalty(root).item())


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_error_says_nan_where_all_outputs_are(bad: float, train: bool) -> None:
    net = mlp(5, 8, 3)
    with torch.no_grad():
        list(net.parameters())[-1].fill_(bad)
    with pytest.raises(ValueError, match="NaN or infinite at all 6 pairs"):
        make().train(train)(net)


def test_equal_points_of_a_pair_give_no_nan_and_are_renewed() -> None:
    net, points = mlp(5, 8, 3), randn(4, 5)
    penalty = LipschitzPenalty(points, points.clone(), weight=0.5)
    results = [penalty(net) for _ in range(5)]
    assert all(math.isfinite(r.item()) for r in results)
    assert all(bool(torch.isfinite(g).all()) for r in results for g in gradients(r, net))
    assert results[-1].item() > 0
    assert not torch.equal(penalty.pairs.u, penalty.pairs.v)


@pytest.mark.parametrize("start", ["noise", "uniform"])
def test_data_of_one_sample_make_pairs_that_measure(start: str) -> None:
    net, penalty = mlp(5, 8, 3), LipschitzPenalty.from_data(DATA[:1].double(), weight=0.5, pairs=3, start=start)
    assert max(penalty(net).item() for _ in range(3)) > 0


@pytest.mark.parametrize("reduce", ["max", "mean", ("softmax", 0.1)])
def test_constant_network_costs_nothing_and_has_no_nan_in_its_gradient(reduce: Any) -> None:
    net = mlp(5, 8, 3)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    penalty = make(reduce=reduce)
    for _ in range(3):
        result = penalty(net)
        assert result.item() == 0
        assert all(bool((g == 0).all()) for g in gradients(result, net))
    assert bool(torch.isfinite(penalty.pairs.points).all())
