"""Lower bounds: never above the true constant, close to it where it is known, and shown by a witness."""

from __future__ import annotations

import importlib
import itertools
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_jacobian import NORMS, norm_by_enumeration
from torch import Tensor, nn
from zoo import ZOO

from cheaplip.lipschitz import climb, lower
from cheaplip.lipschitz.jacobian import jacobian_norms
from cheaplip.lipschitz.witness import quotients

module_of_lower = importlib.import_module("cheaplip.lipschitz.lower")


def linear(seed: int, rows: int = 4, columns: int = 7) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def data(columns: int = 7) -> Tensor:
    return torch.rand(40, columns, generator=torch.Generator().manual_seed(9))


@settings(max_examples=8)
@given(seed=st.integers(0, 10_000))
def test_linear_map_reaches_its_largest_singular_value_and_never_passes_it(seed: int) -> None:
    net = nn.Linear(7, 4)
    net.weight.data = linear(seed)
    exact = float(torch.linalg.matrix_norm(net.weight.data.double(), 2))
    bound = lower(net, data(), pairs=16, steps=60)
    assert bound.proven
    assert 0.99 * exact <= bound.value <= exact


def test_bound_of_a_callable_is_called_an_estimate() -> None:
    assert not lower(lambda x: 2 * x, data(), pairs=2, steps=2).proven


class Casts(nn.Module):
    """A model that insists on float32."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.inner.weight.float() @ x.float().T
        return result.T


def test_model_that_cannot_be_widened_is_measured_as_it_stands() -> None:
    net = Casts()
    bound = lower(net, data(), pairs=8, steps=40)
    assert bound.value == pytest.approx(float(torch.linalg.matrix_norm(net.inner.weight.detach(), 2)), rel=1e-2)


@pytest.mark.parametrize("p", [1, math.inf])
def test_operator_norm_is_not_passed_in_other_norms(p: float) -> None:
    matrix = linear(3)
    exact = float(torch.linalg.matrix_norm(matrix, p))
    value = float(lower(lambda x: x @ matrix.T, data(), p_in=p, p_out=p, pairs=32, steps=200))
    assert 0.8 * exact <= value <= exact * (1 + 1e-4)


def test_absolute_value_network_has_constant_one() -> None:
    net = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        for parameter, value in zip(net.parameters(), ([[1.0], [-1.0]], [0.0, 0.0], [[1.0, 1.0]], [0.0]), strict=True):
            parameter.copy_(torch.tensor(value))
    assert float(lower(net, torch.linspace(-1, 1, 20).unsqueeze(1))) == pytest.approx(1.0, abs=1e-5)


def test_steep_place_away_from_the_data_is_found_in_all_space_and_not_in_the_box() -> None:
    def ramp(x: Tensor) -> Tensor:
        return 4 * nn.functional.softplus(x - 1.5)

    x = torch.rand(20, 1)
    assert float(lower(ramp, x)) > 3
    in_box = 4 * torch.sigmoid(torch.tensor(-0.5)).item()
    assert 0.95 * in_box < float(lower(ramp, x, box=(0.0, 1.0))) <= in_box * (1 + 1e-4)


def test_witness_attains_the_value_inside_the_box() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(7, 20), nn.Tanh(), nn.Linear(20, 3))
    bound = lower(net, data(), box=(0.0, 1.0), pairs=8, steps=20)
    assert bound.witness is not None
    u, v = bound.witness
    with torch.no_grad():
        change = net(torch.stack([u, v]).double().float())
    assert float((change[0] - change[1]).norm() / (u - v).norm()) == pytest.approx(bound.value, rel=1e-4)
    assert float(torch.stack([u, v]).min()) >= 0
    assert float(torch.stack([u, v]).max()) <= 1
    assert bound.proven
    assert (bound.domain, lower(net, data(), pairs=2, steps=2).domain) == ("box", "all")


def test_more_effort_never_finds_less_and_the_seed_decides_the_bits() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(7, 20), nn.Sigmoid(), nn.Linear(20, 3))
    short, longer = (float(lower(net, data(), pairs=8, steps=steps)) for steps in (5, 50))
    assert longer >= short
    assert longer == float(lower(net, data(), pairs=8, steps=50))


def test_model_is_left_as_it_was() -> None:
    net = nn.Sequential(nn.Linear(7, 5), nn.BatchNorm1d(5), nn.Dropout(), nn.Linear(5, 2)).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    state = torch.get_rng_state()
    first, second = (float(lower(net, data(), pairs=4, steps=5)) for _ in range(2))
    assert first == second
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert all(module.training for module in net.modules())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("x", "arguments", "error", "message"),
    [
        (torch.zeros(0, 3), {}, ValueError, "at least one sample"),
        (torch.zeros(3, 3, dtype=torch.int64), {}, TypeError, "floating tensor"),
        (torch.full((3, 3), math.nan), {}, ValueError, "finite"),
        (torch.zeros(3, 5), {}, ValueError, "the model failed on inputs of shape"),
        (torch.rand(3, 3), {"pairs": 0}, ValueError, "pairs must be a whole number"),
        (torch.rand(3, 3), {"steps": 1.5}, ValueError, "steps must be a whole number"),
        (torch.rand(3, 3), {"p_in": 3}, ValueError, "p must be 1, 2, inf|p_in must be"),
        (torch.rand(3, 3), {"box": (1.0, 0.0)}, ValueError, "low < high"),
        (torch.rand(3, 3), {"seconds": 0}, ValueError, "seconds must be"),
        (torch.rand(3, 3), {"ball": torch.zeros(3)}, ValueError, "ball must be a pair"),
        (torch.rand(3, 3), {"ball": (torch.zeros(2), 1.0)}, ValueError, "must be one input"),
        (torch.rand(3, 3), {"ball": ([0.0, 0.0, 0.0], 1.0)}, TypeError, "floating tensor"),
        (torch.rand(3, 3), {"ball": (torch.zeros(3), 0.0)}, ValueError, "radius of the ball"),
        (torch.rand(3, 3), {"ball": (torch.full((3,), 1e6), 0.1)}, ValueError, "use float64"),
        (torch.rand(3, 3), {"ball": (torch.full((3,), math.nan), 1.0)}, ValueError, "finite"),
        (torch.rand(3, 3), {"ball": (torch.full((3,), 2.0), 1.0), "box": (0.0, 1.0)}, ValueError, "lie in the box"),
    ],
)
def test_bad_input_is_one_clear_sentence(
    x: Tensor, arguments: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        lower(nn.Linear(3, 2), x, **arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_model_that_gives_nan_everywhere_claims_nothing() -> None:
    with pytest.raises(ValueError, match="NaN or infinite"):
        lower(lambda x: x * math.nan, torch.rand(4, 2))


@pytest.mark.parametrize("bias", [0.0, 1e4, 1e8, 1e12])
def test_proven_bound_is_not_above_the_constant_beside_a_large_bias(bias: float) -> None:
    net = nn.Linear(1, 1)
    net.weight.data, net.bias.data = torch.tensor([[1.0]]), torch.tensor([bias])
    bound = lower(net, torch.rand(20, 1), pairs=8, steps=5)
    assert bound.proven
    assert bound.value <= 1.0


def test_ball_in_which_all_is_nan_claims_nothing() -> None:
    with pytest.raises(ValueError, match="NaN or infinite"):
        lower(lambda x: x * math.nan, torch.rand(4, 2), ball=(torch.zeros(2), 1.0), pairs=4, steps=4)


@pytest.mark.parametrize(("p_in", "p_out"), NORMS)
def test_linear_map_is_exact_in_every_pair_of_norms(p_in: float, p_out: float) -> None:
    net = nn.Linear(6, 4)
    net.weight.data = linear(5, 4, 6)
    exact = norm_by_enumeration(net.weight.data.double(), p_in, p_out)
    bound = lower(net, data(6), p_in=p_in, p_out=p_out, pairs=8, steps=10)
    assert bound.proven
    assert exact * (1 - 1e-6) <= bound.value <= exact


class Residual(nn.Module):
    """x + A x."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.inner = nn.Linear(len(matrix), len(matrix), bias=False)
        self.inner.weight.data = matrix

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.inner(x)
        return result


def orthogonal(seed: int, size: int = 6) -> Tensor:
    result: Tensor = torch.linalg.qr(linear(seed, size, size))[0]
    return result


def net_of(matrix: Tensor) -> nn.Linear:
    layer = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False)
    layer.weight.data = matrix
    return layer


@pytest.mark.parametrize(
    ("net", "exact"),
    [
        (nn.Sequential(net_of(orthogonal(1)), net_of(orthogonal(2)), net_of(orthogonal(3))), 1.0),
        (nn.Sequential(net_of(orthogonal(1)), nn.ReLU(), net_of(5 * orthogonal(2))), 5.0),
        (nn.Sequential(net_of(2 * orthogonal(1)), nn.Tanh(), net_of(3 * orthogonal(2)), nn.Sigmoid()), 1.5),
        (nn.Sequential(Residual(orthogonal(1) @ torch.diag(torch.tensor([2.0] * 6)) @ orthogonal(1).T)), 3.0),
        (nn.Sequential(nn.Conv1d(1, 1, 2, bias=False), nn.Flatten()), None),
    ],
    ids=["orthogonal", "relu", "composed", "residual", "convolution"],
)
def test_known_constants_are_reached_and_never_passed(net: nn.Module, exact: float | None) -> None:
    x = data(6)
    if exact is None:
        net[0].weight.data = torch.tensor([[[1.0, -1.0]]])  # type: ignore[index]
        x, exact = x.unsqueeze(1), 2 * math.cos(math.pi / 12)
    value = lower(net, x, pairs=16, steps=40).value
    assert exact * (1 - 1e-3) <= value <= exact * (1 + 1e-6)  # matrices orthogonal to float32


def square(x: Tensor) -> Tensor:
    return x.square()


class Square(nn.Module):
    """Steeper the farther from zero: twice the largest coordinate."""

    def forward(self, x: Tensor) -> Tensor:
        return square(x)


@pytest.mark.parametrize("p", [1, 2, math.inf])
@pytest.mark.parametrize("box", [None, (0.0, 1.0)])
def test_ball_has_a_constant_of_its_own_and_holds_the_witness(p: float, box: tuple[float, float] | None) -> None:
    centre, radius = torch.tensor([0.5, 0.2, 0.9, 0.4]), 0.3
    bound = lower(Square(), data(4), p_in=p, p_out=p, ball=(centre, radius), box=box, pairs=8, steps=20)
    exact = 2 * (0.9 + radius if box is None else 1.0)
    assert 0.99 * exact <= bound.value <= exact
    assert bound.witness is not None
    pair = torch.stack(bound.witness).double()
    assert float(torch.linalg.vector_norm(pair - centre.double(), p, dim=1).max()) <= radius
    if box is not None:
        assert float(pair.min()) >= 0
        assert float(pair.max()) <= 1
    assert bound.domain == ("ball" if box is None else "box and ball")
    assert bound.value < lower(Square(), data(4), p_in=p, p_out=p, pairs=8, steps=20).value


def test_small_ball_far_from_zero_is_kept_to_the_last_place() -> None:
    centre = torch.full((50,), 3.0)
    bound = lower(Square(), torch.rand(10, 50), ball=(centre, 0.01), pairs=8, steps=10)
    assert bound.witness is not None
    away = torch.stack(bound.witness).double() - centre.double()
    assert float(torch.linalg.vector_norm(away, 2, dim=1).max()) <= 0.01
    assert 2 * 2.999 <= bound.value <= 2 * 3.01


@pytest.mark.parametrize("name", ["lstm", "gru", "transformer", "attention", "batch norm", "images", "dropout"])
def test_models_of_every_kind_have_a_proven_bound_above_what_data_show(name: str) -> None:
    net = ZOO[name].make()
    x = torch.randn(20, *ZOO[name].shape, generator=torch.Generator().manual_seed(1))
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    state = torch.get_rng_state()
    bound = lower(net, x, pairs=8, steps=10)
    assert bound.proven
    assert bound.value >= float(jacobian_norms(net, x).max()) * (1 - 1e-6)
    assert bound.witness is not None
    u, v = (point.unsqueeze(0) for point in bound.witness)
    assert float(quotients(net, u, v)) == pytest.approx(bound.value, rel=1e-7)
    assert all(module.training for module in net.modules())
    assert all(torch.equal(before[key], tensor) for key, tensor in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


class Once(torch.autograd.Function):
    """sin, with a backward that cannot be differentiated, as of cuDNN's recurrent layers."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        result: Tensor = gradient * x.cos()
        return result


def test_no_layer_needs_a_double_backward() -> None:
    def function(x: Tensor) -> Tensor:
        result: Tensor = 3 * Once.apply(x)  # type: ignore[no-untyped-call]
        return result

    assert float(lower(function, data(3) + 1, pairs=8, steps=30)) == pytest.approx(3.0, rel=1e-4)


def test_relu_network_is_climbed_beyond_what_random_points_show() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 4))
    points = torch.randn(4000, 8) * torch.tensor([0.3, 1.0, 3.0, 10.0]).repeat(1000).unsqueeze(1)
    bound = lower(net, data(8), pairs=16, steps=60)
    assert bound.value > 1.05 * float(jacobian_norms(net, points).max())
    assert bound.method == "Jacobian ascent"


def test_kinks_that_no_smoothing_knows_are_climbed_too() -> None:
    torch.manual_seed(0)
    first, second, last = nn.Linear(8, 30), nn.Linear(30, 30), nn.Linear(30, 3)

    def function(x: Tensor) -> Tensor:
        x = first(x)
        x = second(x * (x > 0))
        result: Tensor = last(torch.where(x > 0, x, 0.1 * x))
        return result

    points = torch.randn(1000, 8) * torch.tensor([0.3, 1.0, 3.0, 10.0]).repeat(250).unsqueeze(1)
    with torch.no_grad():
        at_random = float(jacobian_norms(function, points).max())
    assert float(lower(function, data(8), pairs=16, steps=40)) > at_random


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_witness_has_the_type_of_the_inputs(dtype: torch.dtype) -> None:
    net = nn.Linear(7, 4).to(dtype)
    bound = lower(net, data().to(dtype), pairs=8, steps=20)
    exact = float(torch.linalg.matrix_norm(net.weight.detach().double(), 2))
    assert bound.witness is not None
    assert {point.dtype for point in bound.witness} == {dtype}
    assert 0.9 * exact <= bound.value <= exact
    assert dtype == torch.bfloat16 or bound.value >= exact * (1 - 1e-6)


def test_any_time_is_enough_for_an_answer_and_more_finds_no_less(monkeypatch: pytest.MonkeyPatch) -> None:
    # A clock that goes on by a hundredth of a second whenever it is looked at.
    looks = itertools.count()
    monkeypatch.setattr(climb, "time", SimpleNamespace(monotonic=lambda: next(looks) / 100))
    monkeypatch.setattr(module_of_lower, "time", climb.time)  # type: ignore[attr-defined]
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(7, 20), nn.ReLU(), nn.Linear(20, 3))
    hasty, usual = lower(net, data(), seconds=1e-6), lower(net, data(), pairs=8, steps=10)
    longer = lower(net, data(), pairs=8, steps=10, seconds=10.0)
    assert 0 < hasty.value <= longer.value
    assert longer.value >= usual.value * (1 - 1e-3)


@pytest.mark.parametrize("bias", [1e4, 1e8, 1e12])
def test_proven_bound_is_not_above_the_constant_where_digits_are_lost_inside(bias: float) -> None:
    net = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1)).double()
    for layer, offset in zip(net, (bias, -bias), strict=True):
        layer.weight.data, layer.bias.data = torch.ones(1, 1).double(), torch.tensor([offset]).double()
    for seed in range(3):
        bound = lower(net, torch.rand(20, 1).double(), pairs=8, steps=5, seed=seed)
        assert bound.proven
        assert bound.value <= 1.0


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.dropout(x, 0.5, True),
        lambda x: x + 1e-3 * torch.rand_like(x),
        lambda x: x - x.mean(0),
        lambda x: x * x.sum().item(),
        lambda x: x.flip(0),
    ],
)
def test_what_is_no_function_of_one_sample_has_no_constant(function: Any) -> None:
    with pytest.raises(ValueError, match="at the steepest pair it gave other outputs one by one than in one batch"):
        lower(function, data(), pairs=8, steps=10)


def test_a_function_that_is_flat_has_the_constant_zero() -> None:
    x = data()
    assert lower(lambda x: x * 0, x, ball=(x[0], 1.0), pairs=8, steps=10).value == 0.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_has_bounds_too(dtype: torch.dtype) -> None:
    layer, x = nn.Linear(7, 4), data()
    layer.weight.data = linear(3)
    exact = float(torch.linalg.matrix_norm(layer.to(dtype).weight.data.double(), 2))
    for box in (None, (0.0, 1.0)):
        bound = lower(layer, x.to(dtype), box=box, pairs=8, steps=20)
        assert 0.9 * exact < bound.value <= exact
    assert lower(lambda x: 3 * x, x.to(dtype), pairs=8, steps=10).value == pytest.approx(3, rel=0.05)


def test_gradients_that_are_one_number_seen_many_times_are_climbed() -> None:
    assert lower(lambda x: x.sum(1, keepdim=True), data(), pairs=8, steps=10).value == pytest.approx(7**0.5, rel=1e-4)
    assert float(jacobian_norms(lambda x: x.mean(1), data())[0]) == pytest.approx(7**-0.5)
