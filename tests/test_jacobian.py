"""The Jacobian's norm at points, quotients of given pairs, and the smoothed surrogate that climbs go by."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from zoo import ZOO

from cheaplip.lipschitz.jacobian import jacobian_norms, operator_norm
from cheaplip.lipschitz.smooth import Smoothing
from cheaplip.lipschitz.witness import quotients

NORMS = list(itertools.product((1, 2, math.inf), repeat=2))


def signs(count: int) -> Tensor:
    return torch.tensor(list(itertools.product((1.0, -1.0), repeat=count)), dtype=torch.float64)


def norm_by_enumeration(matrix: Tensor, p_in: float, p_out: float) -> float:
    """The operator norm from its definition: the extreme points of one of the two unit balls, or singular values."""
    if p_in == p_out == 2:
        return float(torch.linalg.matrix_norm(matrix, 2))
    if p_in == 1:
        return float(torch.linalg.vector_norm(matrix, p_out, dim=0).max())
    if p_in == math.inf:
        return float(torch.linalg.vector_norm(signs(matrix.shape[1]) @ matrix.T, p_out, dim=1).max())
    ends = torch.eye(len(matrix), dtype=matrix.dtype) if p_out == math.inf else signs(len(matrix))
    return float(torch.linalg.vector_norm(ends @ matrix, 2, dim=1).max())


def matrices(count: int = 6, rows: int = 4, columns: int = 6) -> Tensor:
    return torch.randn(count, rows, columns, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


@pytest.mark.parametrize(("p_in", "p_out"), NORMS)
def test_operator_norm_is_the_largest_over_the_unit_ball_and_its_direction_attains_it(
    p_in: float, p_out: float
) -> None:
    for matrix in matrices():
        norm, direction = operator_norm(matrix.unsqueeze(0), p_in, p_out)
        exact = norm_by_enumeration(matrix, p_in, p_out)
        if (p_in, p_out) == (math.inf, 2):  # NP-hard, and not enumerated
            assert 0.95 * exact <= float(norm) <= exact * (1 + 1e-12)
        else:
            assert float(norm) == pytest.approx(exact, rel=1e-12)
        attained = torch.linalg.vector_norm(matrix @ direction[0], p_out)
        assert float(attained / torch.linalg.vector_norm(direction[0], p_in)) == pytest.approx(float(norm), rel=1e-9)


@pytest.mark.parametrize(("p_in", "p_out"), NORMS)
def test_norm_of_a_linear_map_is_the_same_at_every_point(p_in: float, p_out: float) -> None:
    net = nn.Linear(6, 4)
    net.weight.data = matrices()[0].float()
    exact = norm_by_enumeration(net.weight.data.double(), p_in, p_out)
    found = jacobian_norms(net, torch.randn(3, 6), p_in=p_in, p_out=p_out)
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx([exact] * 3, rel=0.05 if (p_in, p_out) == (math.inf, 2) else 1e-9)


def test_many_outputs_need_no_jacobian() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 30), nn.Tanh(), nn.Linear(30, 90))
    x = torch.randn(4, 5)
    wide = nn.Sequential(nn.Linear(5, 30), nn.Tanh(), nn.Linear(30, 90)).double()
    wide.load_state_dict(net.state_dict())
    exact = [written_out(wide, point) for point in x.double()]
    assert jacobian_norms(net, x).tolist() == pytest.approx(exact, rel=1e-4)


def written_out(net: nn.Module, point: Tensor) -> float:
    jacobian: Tensor = torch.autograd.functional.jacobian(  # type: ignore[no-untyped-call]
        lambda x: net(x.unsqueeze(0)).flatten(), point
    )
    return float(torch.linalg.matrix_norm(jacobian.flatten(1), 2))


@pytest.mark.parametrize("name", ["lstm", "gru", "attention", "transformer", "batch norm", "images", "weight norm"])
def test_layers_of_every_kind_have_their_norm_in_eval_mode_and_stay_as_they_were(name: str) -> None:
    net = ZOO[name].make()
    x = torch.randn(3, *ZOO[name].shape, generator=torch.Generator().manual_seed(1))
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    state = torch.get_rng_state()
    found = jacobian_norms(net, x).tolist()
    assert all(module.training for module in net.modules())
    assert all(torch.equal(before[key], tensor) for key, tensor in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    net.double().eval()
    assert found == pytest.approx([written_out(net, point) for point in x.double()], rel=1e-6)


def test_callable_norms_are_taken() -> None:
    def weighted(x: Tensor) -> Tensor:
        size: Tensor = torch.linalg.vector_norm((x * torch.tensor([1.0, 2.0])).flatten(1), dim=1)
        return size

    # Steepest along the second axis: there 8 out for 2 in, along the first 3 for 1.
    found = jacobian_norms(lambda x: x * torch.tensor([3.0, 8.0]), torch.zeros(1, 2), p_in=weighted)
    assert float(found) == pytest.approx(4.0, rel=1e-2)


def test_quotients_are_those_of_the_pairs() -> None:
    u, v = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [-1.0]])
    assert quotients(lambda x: x**2, u, v).tolist() == [1.0, 2.0]
    net = nn.Linear(2, 3)
    pair = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 1.0]])
    expected = net.weight.detach().double().sum(1).abs()
    assert float(quotients(net, *pair, p_in=1, p_out=math.inf)) == pytest.approx(float(expected.max()) / 2, rel=1e-12)


@pytest.mark.parametrize(
    ("u", "v", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 3), "must differ"),
        (torch.zeros(2, 3), torch.ones(3, 3), "the same shape"),
        (torch.full((1, 3), math.nan), torch.ones(1, 3), "finite"),
        (torch.zeros(1, 4), torch.ones(1, 4), "the model failed"),
    ],
)
def test_pairs_that_say_nothing_are_refused(u: Tensor, v: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quotients(nn.Linear(3, 2), u, v)


def test_outputs_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN or infinite"):
        quotients(lambda x: x / 0, torch.ones(1, 2), torch.zeros(1, 2))


def test_output_that_does_not_depend_on_the_input_is_refused() -> None:
    with pytest.raises(ValueError, match="does not depend on its input"):
        jacobian_norms(lambda x: x.detach() * 2, torch.ones(1, 2))


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "inplace": nn.ReLU(inplace=True),
    "method": lambda z: z.clone().relu_(),
    "leaky": nn.LeakyReLU(0.3),
    "prelu": nn.PReLU(1),
    "abs": torch.abs,
    "clamp": lambda z: z.clamp(min=0),
    "maximum": lambda z: torch.maximum(z, -z / 2),
    "minimum": lambda z: torch.minimum(torch.zeros(1), z),
    "hardtanh": nn.Hardtanh(),
    "relu6": nn.ReLU6(),
    "gelu": nn.GELU(),
    "silu": nn.SiLU(),
    "elu": nn.ELU(0.5),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_surrogate_is_close_to_the_activation_and_turns_gradually(name: str) -> None:
    activation, z = ACTIVATIONS[name], torch.linspace(-8, 8, 401).unsqueeze(1)
    expected = activation(z.clone()).detach()
    smoothed = Smoothing(activation)
    assert torch.equal(smoothed(z.clone()), expected)
    slopes = {}
    for width in (0.05, 0.5):
        smoothed.width = width
        out = smoothed(z.clone()).detach()
        scale = width * float(z.square().mean().sqrt())
        assert float((out - expected).abs().max()) <= 2 * max(1.0, scale)
        slopes[width] = float(out.diff(n=2, dim=0).abs().max())
    assert slopes[0.5] < slopes[0.05] or name in ("gelu", "silu", "elu")
    assert torch.equal(activation(z.clone()).detach(), expected)


def test_clamps_that_only_keep_apart_from_zero_are_left_alone() -> None:
    smoothed = Smoothing(lambda x: x.clamp_min(1e-6) + x.clamp(0, 1) + x.clamp(max=2))
    x = torch.randn(4, 3)
    expected = smoothed(x)
    smoothed.width = 1.0
    assert torch.equal(smoothed(x), expected)
