"""LayerProductPenalty against the exact spectral norms of the layers' matrices, and what it refuses."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
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
    picture,
    rand,
    randn,
    seeded,
    through_disk,
)
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from cheaplip.penalties import LayerProductPenalty, LipschitzPenalty


def settle(net: nn.Module, x: Tensor, steps: int = 500, **arguments: Any) -> LayerProductPenalty:
    penalty = LayerProductPenalty(net, x, **{"weight": 1.0, **arguments})
    with torch.no_grad():
        for _ in range(steps):
            penalty(net)
    return penalty


IMAGE = rand(2, 2, 6, 6)
LINEAR_LAYERS: dict[str, tuple[nn.Module, Tensor]] = {
    "linear": (nn.Linear(5, 4), rand(2, 5)),
    "linear on the last of two dimensions": (nn.Linear(5, 4, bias=False), rand(2, 3, 5)),
    "convolution": (nn.Conv2d(2, 3, 3), IMAGE),
    "padded, strided, dilated, grouped": (nn.Conv2d(2, 4, 3, 2, 2, dilation=2, groups=2), IMAGE),
    "circular": (nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), IMAGE),
    "reflecting": (nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), IMAGE),
    "1-d": (nn.Conv1d(2, 3, 3, padding="same"), rand(2, 2, 7)),
    "3-d": (nn.Conv3d(1, 2, 2), rand(2, 1, 3, 3, 3)),
    "weight norm": (parametrizations.weight_norm(nn.Linear(5, 4)), rand(2, 5)),
}


@pytest.mark.parametrize(("layer", "x"), LINEAR_LAYERS.values(), ids=LINEAR_LAYERS.keys())
def test_spectral_norm_of_a_layer_is_that_of_its_matrix_from_below(layer: nn.Module, x: Tensor) -> None:
    layer = seeded(layer.double())
    exact = operator_norm(matrix_of(layer, tuple(x.shape[1:])), 2)
    penalty = LayerProductPenalty(layer, x, weight=1.0)
    seen = [float(penalty(layer).detach()) for _ in range(300)]
    assert max(seen) <= exact * (1 + 1e-9)
    assert seen[-1] == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("power", [1, 2])
def test_product_and_gradient_equal_those_of_the_exact_spectral_norms(power: int) -> None:
    net = mlp(5, 7, 6, 3, act=nn.Sigmoid)
    weights = [p for p in net.parameters() if p.dim() == 2]
    exact = torch.stack([torch.linalg.matrix_norm(w, 2) for w in weights]).prod() * 0.25**2
    penalty = settle(net, rand(1, 5), steps=2000, weight=0.5, power=power)
    result = penalty.eval()(net)
    torch.testing.assert_close(result, 0.5 * exact**power, rtol=1e-6, atol=0)
    torch.testing.assert_close(penalty.value.double(), exact, rtol=1e-6, atol=0)
    assert_all_close(gradients(result, net), gradients(0.5 * exact**power, net), rtol=1e-4)


CONSTANTS: dict[str, tuple[nn.Module, Tensor, float]] = {
    "leaky relu": (nn.LeakyReLU(-1.5), rand(1, 4), 1.5),
    "elu": (nn.ELU(2.0), rand(1, 4), 2.0),
    "gelu": (nn.GELU(), rand(1, 4), 1.129),
    "silu": (nn.SiLU(), rand(1, 4), 1.0999),
    "average pool": (nn.AvgPool2d(2), IMAGE, 0.5),
    "average pool, oblong": (nn.AvgPool2d((1, 2)), IMAGE, 2**-0.5),
    "average pool, 1-d": (nn.AvgPool1d(3), rand(1, 2, 6), 3**-0.5),
    "max pool": (nn.MaxPool2d(2), IMAGE, 1.0),
    "dropout": (nn.Dropout(0.9), rand(1, 4), 1.0),
}


@pytest.mark.parametrize(("layer", "x", "constant"), CONSTANTS.values(), ids=CONSTANTS.keys())
def test_other_layers_enter_by_their_lipschitz_constant(layer: nn.Module, x: Tensor, constant: float) -> None:
    net = nn.Sequential(nn.Identity(), nn.Sequential(layer))
    assert LayerProductPenalty(net, x, weight=1.0)(net).item() == pytest.approx(constant)


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.AvgPool1d(2, ceil_mode=True), rand(1, 1, 3)),  # the last window holds one number
        (nn.AvgPool2d(2, divisor_override=1), IMAGE),
        (nn.AvgPool1d(2, padding=1, count_include_pad=False), rand(1, 1, 4)),
    ],
    ids=["ceil", "divisor", "padding"],
)
def test_pool_is_refused_or_counts_no_less_than_the_norm_of_its_matrix(layer: nn.Module, x: Tensor) -> None:
    exact = operator_norm(matrix_of(layer, tuple(x.shape[1:])), 2)
    try:
        value = LayerProductPenalty(layer, x, weight=1.0)(layer).item()
    except TypeError:  # to refuse it is as good
        value = math.inf
    assert value >= exact * (1 - 1e-6)


def test_batch_norm_enters_by_its_statistics_as_in_eval_mode() -> None:
    net: Any = seeded(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, eps=0.1)).double())
    net(rand(20, 4))
    exact = operator_norm(matrix_of(net[0], (4,)), 2) * operator_norm(matrix_of(net[1].eval(), (3,)), 2)
    before = picture(net.train())
    assert settle(net, rand(2, 4)).value.item() == pytest.approx(exact, rel=1e-5)
    assert changes(before, picture(net)) == []


def test_product_is_no_less_than_the_quotients_of_the_network() -> None:
    net = mlp(4, 6, 3)
    bound = settle(net, rand(1, 4)).value.item()
    search = LipschitzPenalty(randn(8, 4), randn(8, 4, seed=1), weight=1.0)
    assert max(search(net).item() for _ in range(100)) <= bound


SHARED: Any = seeded(nn.Linear(3, 3))
POOL = nn.MaxPool2d(2)


def test_layer_that_is_called_twice_counts_twice() -> None:
    net = nn.Sequential(SHARED, nn.ReLU(), SHARED)
    assert settle(net, rand(1, 3).float()).value.item() == pytest.approx(operator_norm(SHARED.weight, 2) ** 2, rel=1e-4)
    pooled: Any = nn.Sequential(POOL, POOL, nn.Flatten(), nn.Linear(8, 2))
    assert settle(pooled, rand(1, 2, 8, 8).float()).value.item() == pytest.approx(
        operator_norm(pooled[3].weight, 2), rel=1e-4
    )


def test_layers_with_names_alike_are_kept_apart() -> None:
    inner = nn.Sequential(OrderedDict(b=nn.Linear(3, 4)))
    net: Any = seeded(nn.Sequential(OrderedDict(a=inner, a_b=nn.Linear(4, 2))).double())
    exact = operator_norm(net.a.b.weight, 2) * operator_norm(net.a_b.weight, 2)
    assert settle(net, rand(1, 3)).value.item() == pytest.approx(exact, rel=1e-4)


class Residual(nn.Sequential):
    """A sequence that is called in its own way."""

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return x + result


class Scaled(nn.Linear):
    """A linear layer that is called in its own way."""

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = super().forward(x)
        return 10 * result


@pytest.mark.parametrize(
    ("net", "x", "message"),
    [
        (nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.PReLU())), rand(1, 3), r"'1\.0' \(PReLU\).*LipschitzPenalty"),
        (nn.Sequential(nn.MaxPool2d(3, stride=1)), IMAGE, r"'0' \(MaxPool2d\)"),
        (nn.Sequential(nn.MaxPool2d(2, dilation=2)), IMAGE, r"'0' \(MaxPool2d\)"),
        (nn.Sequential(nn.Linear(3, 3), nn.LSTM(3, 3)), rand(1, 3), r"'1' \(LSTM\)"),
        (nn.TransformerEncoderLayer(4, 2), rand(1, 4), r"TransformerEncoderLayer"),
        (Residual(nn.Linear(3, 3)), rand(1, 3), "Residual"),
        (nn.Sequential(nn.Sequential(Scaled(3, 3))), rand(1, 3), r"'0\.0' \(Scaled\)"),
        (lambda x: x - SHARED(x), rand(1, 3), "chain"),
        (torch.sin, rand(1, 3), "chain"),
    ],
    ids=[
        "activation",
        "overlap",
        "dilation",
        "recurrent",
        "transformer",
        "residual",
        "own linear",
        "closure",
        "function",
    ],
)
def test_what_is_no_chain_of_known_layers_is_refused_by_name(net: Any, x: Tensor, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        LayerProductPenalty(net, x.float(), weight=1.0)


def test_batch_norm_without_statistics_is_refused_by_name() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, track_running_stats=False))
    with pytest.raises(TypeError, match=r"'1'.*BatchNorm without running statistics"):
        LayerProductPenalty(net, rand(2, 3).float(), weight=1.0)(net)


def test_another_model_than_its_own_is_refused() -> None:
    penalty = LayerProductPenalty(mlp(4, 3), rand(1, 4), weight=1.0)
    for other in (mlp(4, 6, 3), mlp(5, 3)):
        with pytest.raises(ValueError, match=r"not one that the penalty was made for: make a new penalty"):
            penalty(other)


def test_input_that_does_not_fit_the_layers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(1, 5\)|shape \(5,\)"):
        LayerProductPenalty(mlp(4, 3), rand(1, 5), weight=1.0)


def test_vectors_move_in_train_mode_alone_and_resume_from_their_state() -> None:
    net = mlp(5, 7, 3)
    whole, first, second = (LayerProductPenalty(net, rand(1, 5), weight=0.5, seed=s) for s in (0, 0, 1))
    for _ in range(3):
        whole(net), first(net)
    second.load_state_dict(through_disk(first.state_dict()))
    state = copy.deepcopy(first.state_dict())
    first.eval()(net)
    assert changes(state, first.state_dict()) == []
    for _ in range(3):
        assert whole(net).item() == second(net).item()
    assert changes(whole.state_dict(), second.state_dict()) == []
    assert changes(state, second.state_dict()) != []
