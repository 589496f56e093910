"""The discrepancy principle moves a weight up above the target, down below it, and never under its floor."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import through_disk
from torch import Tensor

from cheaplip.control import Discrepancy


class Weight:
    """The smallest thing that a control can drive."""

    def __init__(self, weight: Any) -> None:
        self.weight = weight


def start(weight: float, kind: str) -> Weight:
    return Weight(weight if kind == "number" else torch.tensor(weight, dtype=torch.float64))


KINDS = pytest.mark.parametrize("kind", ["number", "tensor"])


@KINDS
@pytest.mark.parametrize(
    ("measure", "value", "rule", "wanted"),
    [
        ("accuracy", 0.95, "additive", 1.25),
        ("accuracy", 0.85, "additive", 0.75),
        ("accuracy", 0.90, "additive", 0.75),  # the paper raises λ only above the target
        ("accuracy", 0.95, "multiplicative", 1.25),
        ("accuracy", 0.85, "multiplicative", 0.8),
        ("loss", 0.85, "additive", 1.25),
        ("loss", 0.95, "additive", 0.75),
        ("loss", 0.85, "multiplicative", 1.25),
        ("loss", 0.95, "multiplicative", 0.8),
        ("value", 0.95, "additive", 1.25),  # too steep
        ("value", 0.85, "additive", 0.75),
        ("value", 95.0, "multiplicative", 1.25),
    ],
)
def test_one_step_follows_the_rule(kind: str, measure: str, value: float, rule: str, wanted: float) -> None:
    penalty = start(1.0, kind)
    control = Discrepancy(penalty, target=0.9, step=0.25, measure=measure, rule=rule, floor=1e-3)
    control.step(value)
    assert float(penalty.weight) == pytest.approx(wanted, rel=1e-12)


@KINDS
@pytest.mark.parametrize("value", [0.95, torch.tensor(0.95), torch.tensor([0.95], dtype=torch.float64)[0]])
def test_value_may_be_a_number_or_a_tensor(kind: str, value: float | Tensor) -> None:
    penalty = start(1.0, kind)
    Discrepancy(penalty, target=0.9, step=0.5).step(value)
    assert float(penalty.weight) == 1.5
    assert isinstance(penalty.weight, Tensor) == (kind == "tensor")


def test_weight_tensor_is_replaced_since_a_graph_may_hold_the_old_one() -> None:
    penalty = start(1.0, "tensor")
    kept = penalty.weight
    Discrepancy(penalty, target=0.9, step=0.5).step(torch.tensor(0.95, requires_grad=True))
    assert kept.item() == 1.0
    assert penalty.weight.item() == 1.5
    assert not penalty.weight.requires_grad


@KINDS
def test_warmup_lets_calls_pass(kind: str) -> None:
    penalty = start(1.0, kind)
    control = Discrepancy(penalty, target=0.9, step=0.25, warmup=2)
    seen = []
    for _ in range(4):
        control.step(1.0)
        seen.append(float(penalty.weight))
    assert seen == [1.0, 1.0, 1.25, 1.5]


@KINDS
@given(
    values=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=20),
    rule=st.sampled_from(["additive", "multiplicative"]),
    measure=st.sampled_from(["accuracy", "loss", "value"]),
    floor=st.floats(1e-3, 0.5),
    above=st.floats(0.0, 2.0),
)
def test_weight_rises_just_where_the_target_is_beaten_and_never_falls_below_its_floor(
    kind: str, values: list[float], rule: str, measure: str, floor: float, above: float
) -> None:
    penalty = start(floor + above, kind)
    control = Discrepancy(penalty, target=0.5, step=0.1, rule=rule, measure=measure, floor=floor)
    for value in values:
        before = float(penalty.weight)
        control.step(value)
        after = float(penalty.weight)
        beaten = value < 0.5 if measure == "loss" else value > 0.5
        assert (after > before) == beaten
        assert after >= floor


@KINDS
def test_multiplicative_rule_leaves_zero_by_its_floor(kind: str) -> None:
    penalty = start(0.0, kind)
    control = Discrepancy(penalty, target=0.9, step=1.0, rule="multiplicative", floor=0.5)
    control.step(1.0)
    control.step(1.0)
    assert float(penalty.weight) == pytest.approx(1.0)


def test_state_dict_carries_the_warmup_over() -> None:
    first = Discrepancy(Weight(1.0), target=0.9, step=0.25, warmup=3)
    first.step(1.0)
    first.step(1.0)
    second = Discrepancy(Weight(1.0), target=0.9, step=0.25, warmup=3)
    second.load_state_dict(through_disk(first.state_dict()))
    second.step(1.0)
    assert second.penalty.weight == 1.0
    second.step(1.0)
    assert second.penalty.weight == 1.25


@pytest.mark.parametrize("state", [{}, {"calls": 1, "more": 2}, {"moves": 1}])
def test_unknown_or_missing_keys_of_a_state_are_refused(state: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="'calls' alone"):
        Discrepancy(Weight(1.0), target=0.9, step=0.1).load_state_dict(state)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"measure": "error"}, 'measure must be "accuracy", "loss" or "value"'),
        ({"rule": "adaptive"}, 'rule must be "additive" or "multiplicative"'),
        ({"target": 95}, "between 0 and 1, as a fraction; got 95"),
        ({"target": 0.0}, "between 0 and 1"),
        ({"target": math.nan}, "between 0 and 1"),
        ({"target": 0.0, "measure": "loss"}, "finite loss above 0"),
        ({"target": math.inf, "measure": "loss"}, "finite loss above 0"),
        ({"target": 0.0, "measure": "value"}, "finite value above 0"),
        ({"step": 0.0}, "step must be a finite number above 0"),
        ({"step": -0.1}, "step must be a finite number above 0"),
        ({"step": math.nan}, "step must be a finite number above 0"),
        ({"warmup": -1}, "warmup must be a whole number"),
        ({"warmup": 1.5}, "warmup must be a whole number"),
        ({"step": 1e39}, "step and floor must be numbers of λ's dtype, torch.float32"),
        ({"floor": 1e300}, "numbers of λ's dtype"),
        ({"floor": -1.0}, "floor must be a finite number"),
        ({"floor": math.inf}, "floor must be a finite number"),
        ({"rule": "multiplicative"}, "floor above 0"),
    ],
)
def test_bad_argument_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Discrepancy(Weight(torch.tensor(1.0)), **{"target": 0.9, "step": 0.1, **arguments})


@pytest.mark.parametrize("arguments", [{"target": "high"}, {"step": "small"}, {"floor": None}])
def test_argument_that_is_no_number_gets_a_sentence(arguments: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match=f"{next(iter(arguments))} must be"):
        Discrepancy(Weight(1.0), **{"target": 0.9, "step": 0.1, **arguments})


@pytest.mark.parametrize("penalty", [object(), Weight("heavy"), Weight(None)])
def test_penalty_without_a_weight_is_refused(penalty: Any) -> None:
    with pytest.raises(TypeError, match="penalty must have a weight"):
        Discrepancy(penalty, target=0.9, step=0.1)


@pytest.mark.parametrize(
    ("measure", "value"), [("accuracy", math.nan), ("accuracy", 95.0), ("loss", math.nan), ("value", math.nan)]
)
def test_number_that_is_no_accuracy_or_loss_is_refused_and_moves_nothing(measure: str, value: float) -> None:
    penalty = Weight(1.0)
    with pytest.raises(ValueError, match=rf"{measure}.* got {value}"):
        Discrepancy(penalty, target=0.9, step=0.1, measure=measure).step(value)
    assert penalty.weight == 1.0


@KINDS
@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("x", TypeError, "accuracy must be a number or a tensor with one entry; got 'x'"),
        (None, TypeError, "accuracy must be a number"),
        (True, TypeError, "accuracy must be a number"),
        (torch.tensor([0.95, 0.95]), ValueError, r"accuracy must be one number; got a tensor of shape \(2,\)"),
        (torch.zeros(0), ValueError, r"one number; got a tensor of shape \(0,\)"),
    ],
)
def test_value_that_is_not_one_number_is_refused_and_moves_nothing(
    kind: str, value: Any, error: type[Exception], message: str
) -> None:
    penalty = start(1.0, kind)
    with pytest.raises(error, match=message):
        Discrepancy(penalty, target=0.9, step=0.1).step(value)
    assert float(penalty.weight) == 1.0


def test_value_in_a_longer_shape_leaves_the_shape_of_the_weight() -> None:
    penalty = start(1.0, "tensor")
    Discrepancy(penalty, target=0.9, step=0.5).step(torch.tensor([[0.95]]))
    assert penalty.weight.shape == ()
    assert penalty.weight.item() == 1.5
