"""Minibatch and pairs in one forward of a chain of plain layers, against the same network that is not known for one."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from oracles import assert_all_close, gradients, mlp, quotients, rand, randn
from test_chains import chains, convolutions
from torch import Tensor, nn
from torch.autograd import forward_ad

from cheaplip.attacks import one_step
from cheaplip.penalties import LipschitzPenalty, sharing
from cheaplip.penalties import lipschitz as penalties_lipschitz

Step = tuple[Tensor, Tensor]


def weighted(x: Tensor) -> Tensor:
    flat = x.flatten(1)
    return (flat * torch.arange(1, flat.shape[1] + 1, dtype=flat.dtype)).square().sum(1).sqrt()


def make(shape: tuple[int, ...] = (4,), count: int = 5, **arguments: Any) -> LipschitzPenalty:
    u, v = randn(count, *shape, seed=1), randn(count, *shape, seed=2)
    return LipschitzPenalty(u, v, **({"weight": 0.3} | arguments))


def unknown(net: nn.Module) -> Callable[[Tensor], Tensor]:
    """The same function, in which nobody recognises a chain."""
    return lambda x: net(x)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all forwards that minibatch and pairs shared."""
    seen: list[int] = []

    def shared(*arguments: Any) -> Step:
        seen.append(len(arguments[0].outputs))
        return sharing.shared(*arguments)

    monkeypatch.setattr(penalties_lipschitz, "shared", shared)
    return seen


@given(st.data(), st.integers(1, 6), st.integers(1, 5))
def test_steps_equal_those_of_the_same_function(data: st.DataObject, batch: int, count: int) -> None:
    flat = data.draw(st.booleans())
    shape = (3, 4) if flat else (2, 8, 8)
    net = data.draw(chains() if flat else convolutions()).double()
    for parameter in net.parameters():
        parameter.requires_grad_(data.draw(st.booleans()))
    norms = st.sampled_from([1, 2, math.inf, weighted])
    settings: dict[str, Any] = {
        "p_in": data.draw(norms), "p_out": data.draw(norms), "power": data.draw(st.sampled_from([1, 2])),
        "cap": data.draw(st.sampled_from([None, 0.05])), "steps": data.draw(st.integers(1, 2)),
        "every": data.draw(st.integers(1, 2)), "renew": data.draw(st.sampled_from([None, 2])),
    }  # fmt: skip
    known, other = make(shape, count, **settings), make(shape, count, **settings)
    for number in range(3):
        x = randn(batch, *shape, seed=number)
        logits, reg = known.joint(net, x)
        expected, expected_reg = other.joint(unknown(net), x)
        torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(reg, expected_reg, rtol=1e-9, atol=1e-12)
        if expected.requires_grad:
            loss, expected_loss = logits.square().sum() + reg, expected.square().sum() + expected_reg
            assert_all_close(gradients(loss, net), gradients(expected_loss, net))
    assert_all_close([known.pairs.points, known.value], [other.pairs.points, other.value])
    assert all(parameter.grad is None for parameter in net.parameters())


def test_one_forward_serves_minibatch_and_pairs(counted: list[int]) -> None:
    make().joint(mlp(4, 6, 3), rand(7, 4))
    assert counted == [7 + 2 * 5]


def test_pairs_share_the_forward_at_an_adversarys_points(counted: list[int]) -> None:
    net, penalty, other, x = mlp(4, 6, 3), make(), make(), rand(7, 4)
    y = torch.arange(7) % 3
    torch.manual_seed(0)
    logits, reg = penalty.joint(net, x, y, adversary=one_step(0.5))
    assert counted == [17]
    torch.manual_seed(0)
    moved = one_step(0.5)(net, x, y)
    torch.testing.assert_close(logits, net(moved))
    torch.testing.assert_close(reg, other.joint(unknown(net), moved)[1])


@pytest.mark.parametrize(
    "arguments", [{"reduce": "mean"}, {"reduce": ("softmax", 0.1)}], ids=["mean", "soft maximum"]
)  # fmt: skip
def test_other_reductions_go_the_general_way(counted: list[int], arguments: dict[str, Any]) -> None:
    make(**arguments).joint(mlp(4, 6, 3), rand(7, 4))
    assert counted == []


def test_nothing_is_shared_where_nothing_moves(counted: list[int]) -> None:
    net, penalty = mlp(4, 6, 3), make(every=3)
    for _ in range(7):
        penalty.joint(net, rand(7, 4))
    penalty.eval().joint(net, rand(7, 4))
    assert len(counted) == 3


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # forward_ad's own
@pytest.mark.parametrize("asks", ["backward", "forward"])
def test_derivatives_by_the_minibatch_are_there_for_who_asks(asks: str, counted: list[int]) -> None:
    net, penalty, x, along = mlp(4, 6, 3), make(), rand(7, 4), randn(7, 4)
    forward = torch.autograd.functional.jvp(net, x, along)[1]  # type: ignore[no-untyped-call]
    if asks == "backward":
        logits, _ = penalty.joint(net, x.requires_grad_())
        (found,) = torch.autograd.grad(logits.sum(), x)
        torch.testing.assert_close(found, torch.autograd.grad(net(x).sum(), x)[0])
    else:
        with forward_ad.dual_level():
            logits, _ = penalty.joint(net, forward_ad.make_dual(x, along))  # type: ignore[no-untyped-call]
            torch.testing.assert_close(forward_ad.unpack_dual(logits).tangent, forward)  # type: ignore[no-untyped-call]
    assert counted == []


@pytest.mark.parametrize("p_out", [1, 2, math.inf, weighted], ids=["1", "2", "inf", "callable"])
def test_second_derivatives_are_those_of_autograd(p_out: Any) -> None:
    net, x = mlp(4, 6, 3), rand(7, 4)

    def norm_of_gradient(model: Any) -> list[Tensor]:
        logits, reg = make(p_out=p_out).joint(model, x)
        parameters = list(net.parameters())
        first = torch.autograd.grad(logits.square().mean() + reg, parameters, create_graph=True)
        return gradients(torch.stack([g.square().sum() for g in first]).sum(), net)

    assert_all_close(norm_of_gradient(net), norm_of_gradient(unknown(net)))


def test_the_graph_can_be_used_twice_and_late() -> None:
    net, penalty, x = mlp(4, 6, 3), make(renew=1), rand(7, 4)
    largest = quotients(net, penalty.pairs.u.clone(), penalty.pairs.v.clone()).max()
    logits, reg = penalty.joint(net, x)
    for number in range(4):
        penalty.joint(net, rand(9, 4, seed=number))  # moves and renews the pairs meanwhile
    for _ in range(2):
        assert_all_close(gradients(reg, net), gradients(0.3 * largest, net))
        assert_all_close(gradients(logits.square().sum(), net), gradients(net(x).square().sum(), net))


@pytest.mark.parametrize("last", [nn.Sigmoid(), nn.Flatten(), nn.Linear(3, 3)], ids=["unit", "flatten", "linear"])
def test_what_is_done_with_the_outputs_values_does_not_change_gradients(last: nn.Module) -> None:
    net, x = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), last).double(), rand(7, 4)
    logits, reg = make().joint(net, x)
    wanted = gradients(logits.square().sum() + reg, net)
    loss = logits.mul(logits.detach().clone()).sum() + reg
    logits.detach().zero_()
    assert_all_close(gradients(2 * loss - reg, net), wanted)


def test_weights_changed_before_the_backward_are_noticed() -> None:
    net = mlp(4, 6, 3)
    logits, reg = make().joint(net, rand(7, 4))
    with torch.no_grad():
        next(iter(net.parameters())).mul_(1)
        list(net.parameters())[2].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.backward(logits.sum() + reg)


def test_a_layer_that_comes_twice_gets_both_gradients() -> None:
    layer = nn.Linear(4, 4).double()
    net, x = nn.Sequential(layer, nn.Tanh(), layer), rand(7, 4)
    logits, reg = make().joint(net, x)
    expected, expected_reg = make().joint(unknown(net), x)
    assert_all_close(
        gradients(logits.square().sum() + reg, net), gradients(expected.square().sum() + expected_reg, net)
    )


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [(torch.float32, scale) for scale in (1e-18, 1.0, 1e15)]
    + [(torch.float64, scale) for scale in (1e-40, 1e-12, 1.0, 1e12, 1e40)],
)
def test_gradients_are_right_however_small_or_large_the_outputs(dtype: torch.dtype, scale: float) -> None:
    exact = mlp(4, 3)
    with torch.no_grad():
        for parameter in exact.parameters():
            parameter.mul_(scale)
    net = copy.deepcopy(exact).to(dtype)
    penalty, other = make(weight=1.0).to(dtype), make(weight=1.0)
    (u, v), x = (other.pairs.u, other.pairs.v), rand(7, 4)
    wanted = gradients(quotients(exact, u, v).max(), exact)
    found = gradients(penalty.joint(net, x.to(dtype))[1], net)
    assert_all_close([g.double() for g in found], wanted, rtol=1e-5 if dtype is torch.float32 else 1e-9)


def test_a_network_without_slope_has_the_gradient_zero() -> None:
    net = nn.Sequential(nn.Linear(4, 3)).double()
    nn.init.zeros_(net[0].weight)  # type: ignore[arg-type]
    logits, reg = make().joint(net, rand(7, 4))
    assert reg.item() == 0
    torch.autograd.backward(logits.sum() + reg)
    assert net[0].weight.grad is not None
    torch.testing.assert_close(net[0].weight.grad, rand(7, 4).sum(0).expand(3, 4))


def test_without_gradients_no_graph_is_made() -> None:
    with torch.no_grad():
        logits, reg = make().joint(mlp(4, 6, 3), rand(7, 4))
    assert not logits.requires_grad
    assert not reg.requires_grad
