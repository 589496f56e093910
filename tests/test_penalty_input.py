"""LipschitzPenalty refuses what does not fit, in one sentence that says what was expected and what came."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from oracles import changes, rand
from torch import Tensor, nn

from cheaplip.penalties import LipschitzPenalty

U, V = (rand(6, 3, seed=seed, dtype=torch.float32) for seed in (0, 1))


@pytest.mark.parametrize(
    ("u", "v", "error", "message"),
    [
        (U, V[:5], ValueError, r"same shape .* got \(6, 3\) .* and \(5, 3\)"),
        (U, V[:, :2], ValueError, "same shape"),
        (U, V.double(), ValueError, "dtype; got .*float32 and .*float64"),
        (U.long(), V.long(), TypeError, "u must be a floating tensor .* got dtype torch.int64: .*float"),
        (U, V.bool(), TypeError, "v must be a floating tensor"),
        (U.tolist(), V, TypeError, "u must be a floating tensor .* got list"),
        (U[:0], V[:0], ValueError, r"u must hold at least one sample.* got \(0, 3\)"),
        (U[:, :0], V[:, :0], ValueError, "at least one sample"),
        (U[:, 0], V[:, 0], ValueError, r"shape \(n, \*input\); got \(6,\)"),
        (U * math.nan, V, ValueError, "u must be finite; got NaN"),
        (U, V / 0, ValueError, "v must be finite; got NaN or infinite"),
    ],
)
def test_points_that_are_no_pairs_are_refused(u: Any, v: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        LipschitzPenalty(u, v, weight=0.5)


NO_NUMBER = (math.nan, math.inf, "a")
WRONG: dict[str, list[tuple[tuple[Any, ...], str]]] = {
    "weight": [((-1, None, *NO_NUMBER), r"weight \(λ\) must be a finite number of at least 0")],
    "reduce": [
        (("sum", "softmax", 5, None, [], ("softmax",), ("mean", 1.0)), "reduce must be"),
        (tuple(("softmax", t) for t in (0.0, -1.0, None, *NO_NUMBER)), "reduce must be .*temperature above 0"),
    ],
    "power": [((0, 3, 1.5, "1", None), "power must be 1 or 2")],
    "search": [(("newton", 3, None), "search must be")],
    "renew": [((0, -1, 2.5, "a"), "renew must be a lifetime of at least 1")],
    "steps": [((0, -1, 1.0, None), "steps must be a whole number of at least 1")],
    "every": [((0, -1, 1.0, None), "every must be a whole number of at least 1")],
    "cap": [((0, -1.0, math.nan, "a"), "cap must be above 0")],
    "box": [
        (((0,), 0.5, (0, 1, 2), "ab", (None, 1), ("a", 1)), r"box must be a pair \(low, high\)"),
        (((1, 0), (0, 0), (0, math.nan), ([0, 0, 2], 1)), "low < high"),
        ((([0, 0], 1), (0, torch.ones(1, 3))), r"one number per channel \(3\)"),
    ],
    "min_distance": [((-1, *NO_NUMBER), "min_distance must be a finite number of at least 0")],
    "step": [((0, -1, *NO_NUMBER), "step must be a finite number above 0")],
    "p_in": [((3, "q", None, -1), "p_in must be 1, 2, inf or a callable")],
    "p_out": [((0.5, "two", None), "p_out must be 1, 2, inf or a callable")],
    "start": [(("data", "", None), "start must be one of noise, samples, uniform")],
    "pairs": [((0, -3, 2.0, None), "pairs must be a whole number of at least 1")],
    "seed": [((0.5, "a", None), "seed must be")],
}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        pytest.param(name, value, message, id=f"{name}={value}")
        for name, rows in WRONG.items()
        for values, message in rows
        for value in values
    ],
)
def test_argument_out_of_range_is_named(name: str, value: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        LipschitzPenalty.from_data(U, **{"weight": 0.5, "pairs": 4, name: value})


def test_distance_that_the_box_has_no_room_for_is_refused() -> None:
    with pytest.raises(ValueError, match=r"min_distance .*box"):
        LipschitzPenalty(U, V, weight=0.5, box=(0.0, 1.0), min_distance=50.0)


@pytest.mark.parametrize(
    ("x", "arguments", "error", "message"),
    [
        ((255 * U).to(torch.uint8), {}, TypeError, "x must be a floating tensor .* got dtype torch.uint8: .*float"),
        (U[:0], {}, ValueError, "x must hold at least one sample"),
        (U / 0, {}, ValueError, "x must be finite"),
        (U[:1], {"start": "samples"}, ValueError, 'at least 2 samples; got 1: use start="noise"'),
        (U, {"lifetime": 3}, TypeError, "lifetime"),
    ],
)
def test_data_that_make_no_pairs_are_refused(
    x: Tensor, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        LipschitzPenalty.from_data(x, weight=0.5, **arguments)


class Detached(nn.Module):
    """A model that autograd cannot see through."""

    def forward(self, x: Tensor) -> Tensor:
        return x.detach() * nn.Parameter(torch.ones(3))


NOT_DIFFERENTIABLE = "does not depend on its input"


@pytest.mark.parametrize("joint", [False, True], ids=["forward", "joint"])
@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (lambda x: (x, x), TypeError, r"must return one floating tensor; got tuple: wrap it in a module whose forward"),
        (lambda x: x.to(torch.complex64), TypeError, r"got a tensor of torch.complex64: return torch.view_as_real"),
        (lambda x: {"logits": x}, TypeError, "got dict"),
        (lambda x: None, TypeError, "got NoneType"),
        (lambda x: x.argmax(1), TypeError, "got a tensor of torch.int64"),
        (lambda x: x.sum(), ValueError, r"one output per sample, shape \(12, ...\); got \(\)"),
        (lambda x: x[:3], ValueError, r"one output per sample, shape \(12, ...\); got \(3, 3\)"),
        (lambda x: x.T, ValueError, "one output per sample"),
        (nn.Linear(4, 2), ValueError, r"failed on \w+ of shape \(\d+, 3\) torch.float32: .*multipl"),
        (nn.Linear(3, 2).double(), ValueError, r"one dtype; got torch.float32 and torch.float64: call .to.torch."),
        (nn.Linear(3, 2, device="meta"), ValueError, r"one device; got cpu and meta: call .to.\"meta"),
        (lambda x: torch.zeros(len(x), 2), ValueError, NOT_DIFFERENTIABLE),
        (Detached(), ValueError, NOT_DIFFERENTIABLE),
        (3, TypeError, "model must be a torch.nn.Module or a callable; got int"),
    ],
)  # fmt: skip
def test_model_that_does_not_fit_is_refused(model: Any, error: type[Exception], message: str, joint: bool) -> None:
    penalty = LipschitzPenalty(U, V, weight=0.5)
    with pytest.raises(error, match=message):
        penalty.joint(model, U[:2]) if joint else penalty(model)


@pytest.mark.parametrize(
    "x",
    [U[:, :2], U[None], U.double(), U[0], U.long(), U.tolist()],
    ids=["width", "rank", "double", "one sample", "integer", "list"],
)
def test_minibatch_that_does_not_fit_the_pairs_is_refused(x: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=r"minibatch must be torch.float32 of shape \(batch, 3\)"):
        LipschitzPenalty(U, V, weight=0.5).joint(nn.Linear(3, 2), x)


@pytest.mark.parametrize(
    "net", [nn.Linear(3, 2), nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5))], ids=["alike", "apart"]
)
def test_refused_minibatch_leaves_the_penalty_as_it_was(net: nn.Module) -> None:
    penalty = LipschitzPenalty(U, V, weight=0.5, steps=2)
    before = copy.deepcopy(penalty.state_dict())
    with pytest.raises(ValueError, match="minibatch must be"):
        penalty.joint(net, U[:, :2])
    assert changes(before, penalty.state_dict()) == []


def test_norm_that_gives_no_number_per_sample_is_refused() -> None:
    for name in ("p_in", "p_out"):
        with pytest.raises(ValueError, match=r"one value per sample, shape \(6,\)"):
            LipschitzPenalty(U, V, weight=0.5, **{name: torch.linalg.vector_norm})(nn.Linear(3, 2))


@pytest.mark.parametrize(
    "search",
    [lambda u, v, *rest: (u[:2], v[:2]), lambda u, v, *rest: u, lambda u, v, *rest: (u[:, :1], v[:, :1])],
    ids=["fewer pairs", "one tensor", "another width"],
)
def test_search_that_returns_no_pairs_is_refused(search: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="search must return"):
        LipschitzPenalty(U, V, weight=0.5, search=search)(nn.Linear(3, 2))


def test_state_of_other_pairs_is_refused_and_nothing_is_taken_over() -> None:
    penalty, other = LipschitzPenalty(U, V, weight=0.5), LipschitzPenalty(U[:4], V[:4], weight=0.7)
    with pytest.raises(RuntimeError, match=r"size mismatch for pairs\.points"):
        penalty.load_state_dict(other.state_dict())
