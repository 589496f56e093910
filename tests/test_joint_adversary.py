"""Pairs that ride with an adversary: the same as one after the other, by fewer passes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from oracles import assert_all_close, mlp, picture, rand
from torch import Tensor, nn

import cheaplip as cl
from cheaplip.attacks import PGD, one_step
from cheaplip.modes import frozen
from cheaplip.penalties import LipschitzPenalty

BOX = (0.0, 1.0)
ADVERSARIES = {
    "one step": one_step(0.5),
    "one step, maximum norm": one_step(0.2, "inf"),
    "three steps": PGD(0.5, steps=3, loss="cross-entropy", early_stop=False),
    "fast gradient sign": PGD(
        0.2, "inf", steps=1, step=0.2, loss="cross-entropy", random_start=False, early_stop=False
    ),
}


class Counted(nn.Module):
    """A network that counts its forwards and the samples in them."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.seen = inner, list[int]()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        output: Tensor = self.inner(x)
        return output


def penalty_of(**arguments: Any) -> LipschitzPenalty:
    settings: dict[str, Any] = {"weight": 0.3, "pairs": 5, "box": BOX, "renew": 3} | arguments
    return LipschitzPenalty.from_data(rand(40, 6, seed=3), **settings)


def batch(number: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    x = rand(16, 6, seed=100 + number)
    return x.to(dtype), (x[:, 0] + x[:, 1] > 1).long() + (x[:, 2] > 0.5).long()


def one_after_the_other(
    penalty: LipschitzPenalty, model: nn.Module, x: Tensor, y: Tensor, adversary: Any
) -> tuple[Tensor, Tensor]:
    with frozen([model]):
        x = adversary(model, x, y)
    return penalty.joint(model, x)


@pytest.mark.parametrize("arguments", [{}, {"steps": 3}, {"every": 2}, {"reduce": "mean"}, {"p_in": 1, "p_out": "inf"}])
@pytest.mark.parametrize("name", ADVERSARIES)
def test_riding_pairs_equal_one_after_the_other(name: str, arguments: dict[str, Any]) -> None:
    adversary = ADVERSARIES[name]
    together, apart = mlp(6, 12, 8, 3), mlp(6, 12, 8, 3)
    penalties = penalty_of(**arguments), penalty_of(**arguments)
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9) for net in (together, apart)]
    values = set()
    for number in range(12):
        x, y = batch(number)
        with torch.random.fork_rng():
            first = penalties[0].joint(together, x, y, adversary=adversary)
        with torch.random.fork_rng():
            second = one_after_the_other(penalties[1], apart, x, y, adversary)
        torch.rand(1)
        assert_all_close(first, second, rtol=1e-11)
        for (logits, term), optimizer in zip((first, second), optimizers, strict=True):
            optimizer.zero_grad()
            torch.autograd.backward(F.cross_entropy(logits, y) + term)
            optimizer.step()
        values.add(round(float(penalties[0].value), 9))
        assert_all_close(penalties[0].pairs.u, penalties[1].pairs.u, rtol=1e-10)
    assert len(values) > 3, "the pairs must have moved for the comparison to mean anything"
    assert_all_close(together.parameters(), apart.parameters(), rtol=1e-10)


def test_one_step_adversary_and_pairs_take_one_forward_before_that_of_the_loss() -> None:
    net, penalty = Counted(mlp(6, 12, 3)), penalty_of()
    penalty.joint(net, *batch(0), adversary=one_step(0.5))
    assert net.seen == [16 + 2 * 5, 16 + 2]


def test_pairs_share_the_first_of_several_gradients() -> None:
    net, penalty = Counted(mlp(6, 12, 3)), penalty_of()
    penalty.joint(net, *batch(0), adversary=ADVERSARIES["three steps"])
    assert net.seen == [16 + 2 * 5, 16, 16, 16 + 2]


def test_where_no_pair_moves_none_rides() -> None:
    net, penalty = Counted(mlp(6, 12, 3)), penalty_of(every=2)
    penalty.joint(net, *batch(0), adversary=one_step(0.5))
    net.seen.clear()
    penalty.joint(net, *batch(1), adversary=one_step(0.5))
    assert net.seen == [16, 16 + 2]
    net.seen.clear()
    penalty.eval().joint(net, *batch(1), adversary=one_step(0.5))
    assert net.seen == [16, 10, 16 + 2]


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(12), nn.Dropout(0.5)], ids=["BatchNorm", "Dropout"])
def test_model_that_differs_in_training_is_attacked_in_eval_mode_apart_from_the_pairs(layer: nn.Module) -> None:
    net = nn.Sequential(nn.Linear(6, 12), copy.deepcopy(layer), nn.Tanh(), nn.Linear(12, 3)).double()
    other, x, y = copy.deepcopy(net), *batch(0)
    penalties = penalty_of(), penalty_of()
    torch.manual_seed(0)
    first = penalties[0].joint(net, x, y, adversary=one_step(0.5))
    torch.manual_seed(0)
    second = one_after_the_other(penalties[1], other, x, y, one_step(0.5))
    assert_all_close(first, second, rtol=0.0)
    assert_all_close(net.buffers(), other.buffers(), rtol=0.0)
    assert all(module.training for module in net.modules())


def test_adversary_that_asks_for_no_gradient_leaves_the_pairs_their_own_passes() -> None:
    net, penalties = mlp(6, 12, 3), (penalty_of(), penalty_of())
    x, y = batch(0)

    def looks(model: Any, x: Tensor, y: Tensor) -> Tensor:
        model(x.clone().requires_grad_())  # and no backward
        return 1 - x

    first = penalties[0].joint(net, x, y, adversary=looks)
    second = penalties[1].joint(net, 1 - x)
    assert_all_close(first, second, rtol=1e-12)
    assert_all_close(penalties[0].pairs.u, penalties[1].pairs.u, rtol=1e-12)


def test_adversary_gets_its_own_gradient_whatever_it_does_with_it() -> None:
    net, seen = mlp(6, 12, 3), dict[str, list[Tensor]]()

    def twice(name: str) -> Any:
        def adversary(model: Any, x: Tensor, y: Tensor) -> Tensor:
            leaf = x.clone().requires_grad_()
            (slope,) = torch.autograd.grad(F.cross_entropy(model(leaf), y), leaf, create_graph=True)
            (bend,) = torch.autograd.grad(slope.square().sum(), leaf)
            seen[name] = [slope.detach(), bend]
            return x

        return adversary

    x, y = batch(0)
    penalty = penalty_of()
    before = picture(net)
    penalty.joint(net, x, y, adversary=twice("carrier"))
    twice("plain")(net, x, y)
    assert_all_close(seen["carrier"], seen["plain"], rtol=1e-11)
    after = picture(net)
    assert before.keys() == after.keys()
    assert all(parameter.grad is None for parameter in net.parameters())


def test_fit_lets_the_pairs_ride_and_equals_the_loop_by_hand_bit_for_bit() -> None:
    def parts() -> tuple[Counted, LipschitzPenalty, cl.Discrepancy, torch.optim.SGD]:
        net, penalty = Counted(mlp(6, 12, 3, dtype=torch.float32)), penalty_of().float()
        sgd = torch.optim.SGD(net.parameters(), lr=0.1)
        return net, penalty, cl.Discrepancy(penalty, target=0.6, step=0.01), sgd

    batches = [batch(number, torch.float32) for number in range(4)]
    net, penalty, control, sgd = parts()
    adversary = one_step(0.5)
    arguments: dict[str, Any] = {"penalty": penalty, "control": control, "optimizer": sgd, "epochs": 2}
    cl.fit(net, batches, loss=F.cross_entropy, adversary=adversary, seed=4, progress=False, **arguments)
    assert set(net.seen) == {26, 18}
    other, other_penalty, other_control, other_sgd = parts()
    torch.manual_seed(4)
    for x, y in batches * 2:
        logits, term = other_penalty.joint(other, x, y, adversary=adversary)
        other_sgd.zero_grad()
        torch.autograd.backward(F.cross_entropy(logits, y) + term)
        other_sgd.step()
        other_control.step((logits.argmax(1) == y).sum() / len(y))
    assert_all_close(net.parameters(), other.parameters(), rtol=0.0)
    assert_all_close(penalty.buffers(), other_penalty.buffers(), rtol=0.0)


def test_plain_function_as_adversary_is_given_the_users_own_model_by_fit() -> None:
    net, penalty = mlp(6, 12, 3), penalty_of()
    seen = []

    def adversary(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        seen.append(model)
        return x

    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    settings: dict[str, Any] = {"loss": F.cross_entropy, "optimizer": sgd, "epochs": 1, "progress": False}
    cl.fit(net, [batch(0)], penalty=penalty, adversary=adversary, **settings)
    assert seen == [net]


def test_adversary_that_returns_another_shape_is_refused() -> None:
    x, y = batch(0)
    with pytest.raises(ValueError, match="the minibatch must be"):
        penalty_of().joint(mlp(6, 12, 3), x, y, adversary=lambda model, x, y: x[:, :3])


def test_model_that_is_nan_at_all_pairs_is_reported_while_they_ride() -> None:
    x, y = batch(0)
    with pytest.raises(ValueError, match="NaN or infinite at all 5 pairs"):
        penalty_of().joint(lambda x: F.linear(x, x.new_full((3, 6), 1e200)) * 1e200, x, y, adversary=one_step(0.5))
