"""WeightPenalty against its formula, and what all penalties have in common."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from oracles import (
    assert_all_close,
    changes,
    gradients,
    mlp,
    picture,
    rand,
    through_disk,
)  # fmt: skip
from torch import nn

from cheaplip.control import Discrepancy
from cheaplip.penalties import LayerProductPenalty, LipschitzPenalty, WeightPenalty


@pytest.mark.parametrize("power", [1, 2])
def test_weight_penalty_is_the_norm_of_all_trainable_parameters(power: int) -> None:
    net = mlp(4, 6, 3)
    list(net.parameters())[1].requires_grad_(False)
    trainable = [p for p in net.parameters() if p.requires_grad]
    norm = torch.cat([p.flatten() for p in trainable]).square().sum().sqrt()
    penalty, before = WeightPenalty(weight=0.25, power=power), picture(net)
    result = penalty(net)
    torch.testing.assert_close(result, 0.25 * norm**power)
    assert penalty.value.item() == pytest.approx(norm.item())
    slope = 0.25 * (1 / norm if power == 1 else 2)
    assert_all_close(gradients(result, net), [slope * p for p in trainable], rtol=1e-7)
    assert changes(before, picture(net)) == []


def test_weight_penalty_counts_a_shared_parameter_once() -> None:
    first, second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    second.weight = first.weight
    torch.testing.assert_close(WeightPenalty(weight=1.0)(nn.Sequential(first, second)), first.weight.norm())


@pytest.mark.parametrize("around", [nn.DataParallel, lambda net: lambda x: x - net(x)], ids=["wrapper", "closure"])
def test_weight_penalty_sees_the_parameters_behind_wrappers_and_callables(around: Callable[[nn.Module], Any]) -> None:
    net = mlp(4, 6, 3)
    torch.testing.assert_close(WeightPenalty(weight=1.0)(around(net)), WeightPenalty(weight=1.0)(net))


def test_weight_penalty_of_zero_weights_has_no_nan_in_its_gradient() -> None:
    net = nn.Linear(3, 2)
    nn.init.zeros_(net.weight)
    nn.init.zeros_(net.bias)
    result = WeightPenalty(weight=1.0)(net)
    assert result.item() == 0
    assert all(bool((g == 0).all()) for g in gradients(result, net))


@pytest.mark.parametrize("model", [nn.ReLU(), mlp(4, 3).requires_grad_(False), torch.sin])
def test_weight_penalty_of_a_model_without_trainable_parameters_is_refused(model: Any) -> None:
    with pytest.raises(ValueError, match="needs a model with trainable parameters"):
        WeightPenalty(weight=1.0)(model)


# All penalties alike

X = rand(20, 4, seed=8)
PENALTIES: dict[str, Callable[..., Any]] = {
    "lipschitz": lambda **given: LipschitzPenalty.from_data(X, **given),
    "weight": lambda **given: WeightPenalty(**given),
    "layers": lambda **given: LayerProductPenalty(mlp(4, 6, 3), X, **given),
}
each_penalty = pytest.mark.parametrize("make", PENALTIES.values(), ids=PENALTIES.keys())


@each_penalty
def test_control_drives_the_weight_also_between_forward_and_backward(make: Callable[..., Any]) -> None:
    net, penalty = mlp(4, 6, 3), make(weight=0.5)
    control = Discrepancy(penalty, target=0.9, step=0.25)
    result = penalty(net)
    expected = [g / 0.5 for g in gradients(result, net)]
    control.step(torch.tensor(1.0))
    assert penalty.weight.item() == 0.75
    assert_all_close([g / 0.5 for g in gradients(result, net)], expected)
    assert result.item() == pytest.approx(0.5 * penalty.value.item())
    fresh = make(weight=0.0)
    fresh.load_state_dict(through_disk(penalty.state_dict()))
    assert fresh.weight.item() == 0.75


@each_penalty
def test_weight_may_be_set_by_a_number(make: Callable[..., Any]) -> None:
    penalty = make(weight=0.5)
    penalty.weight = 2
    assert penalty.weight.item() == 2.0
    assert penalty.weight.dtype == torch.float64 or penalty.weight.dtype == torch.float32
    assert penalty.state_dict()["weight"] == 2.0
    penalty.weight = torch.tensor(3.0)
    for wrong in (-1.0, math.nan, None, "heavy", torch.tensor(-1.0), torch.tensor(math.nan), torch.ones(3)):
        with pytest.raises((TypeError, ValueError), match=r"weight \(λ\)"):
            penalty.weight = wrong
    assert penalty.weight.item() == 3.0


@each_penalty
@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"weight": w}, r"weight \(λ\)") for w in (-1.0, math.nan, math.inf, "a")]
    + [({"weight": 1.0, "power": 3}, "power must be 1 or 2")],
)
def test_weight_or_power_out_of_range_is_refused(
    make: Callable[..., Any], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(**arguments)


@each_penalty
def test_descent_on_a_penalty_lowers_it(make: Callable[..., Any]) -> None:
    net, penalty = mlp(4, 6, 3), make(weight=1.0)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02)
    values = []
    for _ in range(60):
        optimizer.zero_grad()
        torch.autograd.backward(penalty(net))
        optimizer.step()
        values.append(penalty.value.item())
    assert values[-1] < 0.8 * max(values)
