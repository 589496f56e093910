"""LipschitzPenalty: what it is worth, what its gradient is, and how its arguments change both."""

from __future__ import annotations

import copy
import math
import statistics
from typing import Any

import pytest
import torch
from oracles import (
    assert_all_close,
    changes,
    gradients,
    matrix_of,
    mlp,
    operator_norm,
    quotients,
    rand,
    randn,
    reduced,
)  # fmt: skip
from torch import Tensor
from torch.nn import functional as F

from cheaplip.control import Discrepancy
from cheaplip.pairs.search import GROW, SHRINK
from cheaplip.penalties import LipschitzPenalty
from cheaplip.reference import Pair, clip_step, lipschitz_constant


def weighted(x: Tensor) -> Tensor:
    """A norm given as a callable: Euclidean with weights 1, 2, 3, ... on the coordinates."""
    flat = x.flatten(1)
    return (flat * torch.arange(1, flat.shape[1] + 1, dtype=flat.dtype)).square().sum(1).sqrt()


def make(weight: float = 0.3, count: int = 5, size: int = 4, **arguments: Any) -> LipschitzPenalty:
    return LipschitzPenalty(randn(count, size, seed=1), randn(count, size, seed=2), weight=weight, **arguments)


def batch(number: int) -> tuple[Tensor, Tensor]:
    x = randn(16, 6, seed=100 + number)
    return x, (x[:, 0] + x[:, 1] * x[:, 2] > 0).long() + (x[:, 3] > 0.5).long()


def literal_pairs(tau: float) -> list[Pair]:
    return [Pair(a, b, tau) for a, b in zip(randn(5, 6, seed=1), randn(5, 6, seed=2), strict=True)]


@pytest.mark.parametrize("joint", [False, True], ids=["forward", "joint"])
@pytest.mark.parametrize("tau", [0.05, 0.01])
def test_hundred_steps_equal_the_literal_algorithm(joint: bool, tau: float, monkeypatch: pytest.MonkeyPatch) -> None:
    # The literal algorithm knows no bounds of its step size.
    monkeypatch.setattr("cheaplip.pairs.search.SMALLEST", 0.0)
    monkeypatch.setattr("cheaplip.pairs.search.LARGEST", math.inf)
    fast, slow = mlp(6, 12, 8, 3), mlp(6, 12, 8, 3)
    penalty = make(0.2, size=6, search="paper", renew=None, min_distance=1e-9, step=tau)
    control = Discrepancy(penalty, target=0.7, step=0.01)
    pairs, weight = literal_pairs(tau), 0.2
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9) for net in (fast, slow)]
    weights = set()
    for number in range(100):
        x, y = batch(number)
        logits, reg = penalty.joint(fast, x) if joint else (fast(x), penalty(fast))
        optimizers[0].zero_grad()
        torch.autograd.backward(F.cross_entropy(logits, y) + reg)
        optimizers[0].step()
        control.step((logits.argmax(1) == y).double().mean())
        pairs, weight, lipschitz = clip_step(
            slow, F.cross_entropy, optimizers[1], pairs, (x, y), weight,
            target=0.7, weight_step=0.01, grow=GROW, shrink=SHRINK, maximum="before",
        )  # fmt: skip
        weights.add(round(weight, 6))
        assert penalty.value.item() == pytest.approx(lipschitz, rel=1e-9)
        assert penalty.weight.item() == pytest.approx(weight, abs=1e-12)
    assert len(weights) > 5, "λ must have moved for the comparison to mean anything"
    assert_all_close(fast.parameters(), slow.parameters())
    assert_all_close(penalty.pairs.u, [pair.x for pair in pairs])
    assert_all_close(penalty.pairs.v, [pair.x_prime for pair in pairs])


def test_maximum_before_the_move_is_close_to_the_maximum_after_it_but_not_the_same() -> None:
    net, pairs, weight = mlp(6, 12, 8, 3), literal_pairs(0.01), 0.2
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    gaps = []
    for number in range(100):
        kept, before = copy.deepcopy(net), pairs
        pairs, weight, _ = clip_step(
            net, F.cross_entropy, optimizer, pairs, batch(number), weight,
            target=0.7, weight_step=0.01, grow=GROW, shrink=SHRINK, maximum="before",
        )  # fmt: skip
        first, second = lipschitz_constant(kept, before).item(), lipschitz_constant(kept, pairs).item()
        gaps.append(abs(second / first - 1))
    assert 0 < statistics.mean(gaps) < 0.02
    assert max(gaps) < 0.25


@pytest.mark.parametrize("p_out", [1, 2, math.inf, weighted])
@pytest.mark.parametrize("p_in", [1, 2, "inf", weighted])
def test_value_and_gradient_equal_those_of_the_steepest_quotient(p_in: Any, p_out: Any) -> None:
    net, penalty = mlp(4, 6, 3), make(p_in=p_in, p_out=p_out)
    u, v = penalty.pairs.u.clone(), penalty.pairs.v.clone()
    steepest = quotients(net, u, v, p_in, p_out).max()
    result = penalty(net)
    torch.testing.assert_close(result, 0.3 * steepest)
    torch.testing.assert_close(penalty.value, steepest.detach())
    assert_all_close(gradients(result, net), gradients(0.3 * steepest, net))


@pytest.mark.parametrize("joint", [False, True], ids=["forward", "joint"])
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("reduce", ["max", "mean", ("softmax", 0.2)])
def test_every_reduction_and_power_has_the_gradient_of_its_formula(
    reduce: Any, power: int, train: bool, joint: bool
) -> None:
    net, penalty, x = mlp(4, 6, 3), make(reduce=reduce, power=power).train(train), rand(7, 4)
    u, v = penalty.pairs.u.clone(), penalty.pairs.v.clone()
    wanted = 0.3 * reduced(quotients(net, u, v), reduce) ** power
    result = penalty.joint(net, x)[1] if joint else penalty(net)
    torch.testing.assert_close(result, wanted)
    assert_all_close(gradients(result, net), gradients(wanted, net))
    assert result.dim() == 0


@pytest.mark.parametrize("reduce", ["max", "mean", ("softmax", 0.2)])
def test_gradient_agrees_with_finite_differences(reduce: Any) -> None:
    net, penalty = mlp(4, 6, 3), make(reduce=reduce, power=2).eval()
    names, values = zip(*net.named_parameters(), strict=True)

    def value(*parameters: Tensor) -> Tensor:
        given = dict(zip(names, parameters, strict=True))
        result: Tensor = penalty(lambda x: torch.func.functional_call(net, given, (x,)))
        return result

    assert torch.autograd.gradcheck(value, tuple(p.detach().requires_grad_() for p in values))


def test_joint_gives_the_models_own_logits_and_their_gradient() -> None:
    net, x = mlp(4, 6, 3), rand(7, 4)
    logits, _ = make().joint(net, x)
    torch.testing.assert_close(logits, net(x))
    assert_all_close(gradients(logits.square().sum(), net), gradients(net(x).square().sum(), net))


def test_two_joint_calls_accumulate_both_gradients() -> None:
    net, penalty = mlp(4, 6, 3), make()
    wanted = [torch.zeros_like(p) for p in net.parameters()]
    for number in range(2):
        u, v, x = penalty.pairs.u.clone(), penalty.pairs.v.clone(), rand(7, 4, seed=number)
        loss = net(x).square().mean() + 0.3 * quotients(net, u, v).max()
        wanted = [a + b for a, b in zip(wanted, gradients(loss, net), strict=True)]
        logits, reg = penalty.joint(net, x)
        torch.autograd.backward(logits.square().mean() + reg)
    assert_all_close([p.grad for p in net.parameters() if p.grad is not None], wanted)


@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_value_rises_to_the_operator_norm_of_a_linear_map_and_never_above(p: float) -> None:
    net = mlp(6, 4)
    norm = operator_norm(matrix_of(net, (6,)), p)
    penalty = make(count=8, size=6, p_in=p, p_out=p)
    seen = []
    for _ in range(300):
        penalty(net)
        seen.append(penalty.value.item())
    assert max(seen) <= norm * (1 + 1e-9)
    assert seen[-1] > seen[0]
    if p == 2:
        assert max(seen) >= 0.999 * norm


def test_eval_mode_moves_nothing_and_does_not_steer_later_calls() -> None:
    net, penalty = mlp(4, 6, 3), make(every=3)
    penalty(net)
    state = copy.deepcopy(penalty.state_dict())
    penalty.eval()(mlp(4, 6, 3, seed=5))
    penalty.joint(mlp(4, 6, 3, seed=6), rand(3, 4))
    assert set(changes(state, penalty.state_dict())) <= {"value"}  # the last Lip that was measured


def test_weight_zero_gives_zero_and_no_gradient_but_measures() -> None:
    net, penalty = mlp(4, 6, 3), make(0.0)
    result = penalty(net)
    assert result.item() == 0
    assert penalty.value.item() > 0
    assert all(not bool(g.any()) for g in gradients(result, net))


def test_every_moves_at_every_so_many_calls_and_serves_the_steepest_pair_in_between() -> None:
    net, penalty = mlp(4, 6, 3), make(every=3, renew=None)
    moved = []
    for _ in range(7):
        before = penalty.pairs.points.clone()
        largest = quotients(net, penalty.pairs.u, penalty.pairs.v).detach().max().item()
        result = penalty(net)
        moved.append(not torch.equal(before, penalty.pairs.points))
        if moved[-1]:
            served = 0.3 * largest
        assert result.item() == pytest.approx(served)
    assert moved == [True, False, False, True, False, False, True]


def test_value_is_that_of_the_last_call_also_between_moves() -> None:
    net, penalty = mlp(4, 6, 3), make(every=3)
    for _ in range(4):
        result = penalty(net)
        assert penalty.value.item() == pytest.approx(result.item() / 0.3)


def test_pair_that_was_just_renewed_does_not_serve_as_the_steepest_one() -> None:
    u = torch.tensor([[0.1], [0.2]])  # of the square, whose quotient |u + v| grows by every move
    penalty = LipschitzPenalty(u, u + 0.1, weight=1.0, every=2, renew=20, step=0.2)
    for _ in range(30):
        measured, served = penalty(torch.square).item(), penalty(torch.square).item()
        assert served >= 0.5 * measured


def test_steps_is_the_number_of_moves_per_call_and_the_last_one_is_made_after_measuring() -> None:
    net = mlp(4, 6, 3)
    many, single = make(steps=3), make()
    for _ in range(2):
        one = many(net)
        _, _, three = single(net), single(net), single(net)
        torch.testing.assert_close(one, three)
        assert torch.equal(many.pairs.points, single.pairs.points)


@pytest.mark.parametrize("power", [1, 2])
def test_cap_scales_value_and_gradient_down_together(power: int) -> None:
    net = mlp(4, 6, 3)
    free, low, high = make(power=power), make(power=power, cap=0.5), make(power=power, cap=1e6)
    full, capped = free(net), low(net)
    ratio = (0.5 / free.value.item()) ** power
    assert ratio < 1
    assert capped.item() == pytest.approx(0.3 * 0.5**power)
    assert low.value.item() == free.value.item()
    assert_all_close(gradients(capped, net), [ratio * g for g in gradients(full, net)])
    torch.testing.assert_close(high(net), full)


def test_infinite_cap_caps_nothing() -> None:
    assert make(cap=math.inf)(mlp(4, 6, 3)).item() == make()(mlp(4, 6, 3)).item()
