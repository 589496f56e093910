"""Lower bounds: never above the true constant, close to it where it is known, and shown by a witness."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cheaplip.lipschitz import lower


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
