"""Upper bounds: never below what the network does anywhere, exact where it is linear, silent about nothing."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import cheaplip as cl
from cheaplip.lipschitz.network import linear as layers
from cheaplip.models import build

NORMS = [1, 2, math.inf]
ACTIVATIONS: list[Callable[[], nn.Module]] = [
    *(nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Tanh, nn.Sigmoid, nn.Softsign, nn.LogSigmoid, nn.SELU, nn.SiLU, nn.Softplus),
    *(nn.GELU, nn.Identity, nn.Dropout),
    lambda: nn.GELU("tanh"),
    lambda: nn.LeakyReLU(-3.0),
    lambda: nn.ELU(2.5),
    lambda: nn.PReLU(init=1.5),
    lambda: nn.Softplus(4.0, 30.0),
    lambda: nn.Softmax(dim=1),
]


def steepest(net: nn.Module, shape: tuple[int, ...], p: float) -> float:
    """Return the largest norm of the Jacobian at many points, near and far, in float64."""
    net = net.double().eval()
    draw = torch.Generator().manual_seed(0)
    radii = torch.logspace(-3, 3, 40, dtype=torch.float64).view(-1, *[1] * len(shape))
    points = (radii * torch.randn(40, *shape, generator=draw, dtype=torch.float64)).requires_grad_()
    outputs = net(points).flatten(1).unbind(1)
    rows = [torch.autograd.grad(output.sum(), points, retain_graph=True)[0].flatten(1) for output in outputs]
    return float(torch.linalg.matrix_norm(torch.stack(rows, 1), p).max())


def dense(seed: int, scale: float) -> tuple[nn.Module, tuple[int, ...]]:
    draw = torch.Generator().manual_seed(seed)

    def integer(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=draw))

    widths = [integer(1, 7) for _ in range(integer(2, 5))]
    inner: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in itertools.pairwise(widths):
        layer = nn.Linear(inputs, outputs)
        # Rows that differ by orders of magnitude.
        size = scale * 10 ** (2 * torch.rand(outputs, 1, generator=draw) - 1)
        layer.weight.data = size * torch.randn(outputs, inputs, generator=draw)
        inner.append(nn.Sequential(layer, ACTIVATIONS[integer(0, len(ACTIVATIONS))]()))
    return nn.Sequential(*inner), (widths[0],)


def convolution(seed: int, scale: float) -> tuple[nn.Module, tuple[int, ...]]:
    draw = torch.Generator().manual_seed(seed)

    def pick(*values: int) -> int:
        return values[int(torch.randint(len(values), (), generator=draw))]

    groups = pick(1, 1, 2)
    layer = nn.Conv2d(
        2,
        2 * pick(1, 2),
        (pick(1, 2, 3), pick(1, 2, 3)),
        stride=(pick(1, 2, 3), pick(1, 2)),
        padding=(pick(1, 2, 4), pick(1, 2)),
        dilation=(pick(1, 2), 1),
        groups=groups,
    )
    layer.weight.data = scale * torch.randn(layer.weight.shape, generator=draw)
    kernel, dilation = ((1, 1), (2, 1), (3, 1), (2, 2))[pick(0, 1, 2, 3)]
    pool = nn.MaxPool2d(kernel, stride=pick(1, 2), dilation=dilation, ceil_mode=True)
    norm = nn.BatchNorm2d(layer.out_channels)
    norm.running_var = 10 ** torch.randn(layer.out_channels, generator=draw)
    norm.weight.data = torch.randn(layer.out_channels, generator=draw)
    return nn.Sequential(layer, norm, nn.SiLU(), pool, nn.Flatten()), (2, 11, 10)


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("kind", [dense, convolution])
@settings(max_examples=6)
@given(seed=st.integers(0, 10_000), exponent=st.integers(-4, 4))
def test_bound_is_above_the_jacobian_everywhere(
    kind: Callable[[int, float], tuple[nn.Module, tuple[int, ...]]], p: float, seed: int, exponent: int
) -> None:
    net, shape = kind(seed, 10.0**exponent)
    net.eval()
    bound = cl.lipschitz.upper(net, torch.zeros(1, *shape), p=p)
    assert bound.proven
    assert bound.value * (1 + 1e-12) >= steepest(net, shape, p)


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), fine=st.booleans())
def test_convolution_is_bounded_from_above_and_exactly_where_it_is_small(seed: int, fine: bool) -> None:
    layer, shape = convolution(seed, 1.0)[0][0], (2, 11, 10)  # type: ignore[index]
    columns = torch.eye(math.prod(shape), dtype=torch.float64).view(-1, *shape)
    images = (layer.double()(columns) - layer(torch.zeros_like(columns))).detach()
    exact = float(torch.linalg.matrix_norm(images.flatten(1), 2))
    with pytest.MonkeyPatch.context() as patch:
        if fine:
            assert cl.lipschitz.upper(layer, torch.zeros(1, *shape)).value == pytest.approx(exact, rel=1e-9)
        patch.setattr(layers, "DENSE", 0)
        assert exact <= cl.lipschitz.upper(layer, torch.zeros(1, *shape)).value <= 2 * exact
    for p, dim in ((1, 1), (math.inf, 0)):
        sums = float(images.flatten(1).abs().sum(dim).max())
        assert cl.lipschitz.upper(layer, torch.zeros(1, *shape), p=p).value == pytest.approx(sums, rel=1e-9)


@pytest.mark.parametrize("size", [1e-42, 1e-30, 1.0, 1e30])
@pytest.mark.parametrize("p", NORMS)
def test_linear_map_has_its_operator_norm(p: float, size: float) -> None:
    net = nn.Linear(30, 20)
    net.weight.data = size * torch.randn(20, 30, generator=torch.Generator().manual_seed(1))
    exact = float(torch.linalg.matrix_norm(net.weight.data.double() / size, p)) * size
    bound = cl.lipschitz.upper(net, torch.zeros(1, 30), p=p)
    assert exact <= bound.value <= exact * (1 + 1e-9)
    assert (bound.method, bound.domain, bound.witness) == ("layer product", "all", None)


def test_interval_holds_its_pair() -> None:
    net = build("mlp:784-64-64-10", shape=(1, 28, 28), classes=10)
    interval = cl.lipschitz.bounds(net, torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0)))
    u, v = (point.double().unsqueeze(0) for point in interval.pair)
    with torch.no_grad():
        images = net.double()(torch.cat([u, v]))
    quotient = float((images[0] - images[1]).norm() / (u - v).norm())
    assert 0 < interval.lower == pytest.approx(quotient, rel=1e-6)
    assert interval.lower < interval.upper < 10 * interval.lower
    assert "LipSDP-Neuron" in interval.method


def test_convolutional_network_is_bounded_above_what_a_search_finds() -> None:
    net, x = build("cnn", shape=(1, 8, 8), classes=10), torch.rand(4, 1, 8, 8)
    found = cl.lipschitz.lower(net, x, pairs=4, steps=10).value
    assert 0 < found < cl.lipschitz.upper(net, x, seconds=3).value < 100 * found


def test_seed_decides_the_search() -> None:
    net, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), torch.rand(5, 3)
    first, again, other = (cl.lipschitz.bounds(net, x, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert torch.equal(first.pair[0], again.pair[0])
    assert not torch.equal(first.pair[0], other.pair[0])


def test_rounding_beside_a_large_bias_does_not_turn_the_interval_around() -> None:
    net = nn.Linear(2, 1)
    net.weight.data, net.bias.data = torch.tensor([[1e-6, 0.0]]), torch.tensor([1e7])
    interval = cl.lipschitz.bounds(net, torch.rand(5, 2))
    assert interval.lower <= interval.upper == pytest.approx(1e-6, rel=1e-7)


def test_network_is_read_as_in_eval_mode_and_left_as_it_was() -> None:
    net = nn.Sequential(parametrizations.spectral_norm(nn.Linear(4, 4)), nn.BatchNorm1d(4), nn.Dropout(0.5)).train()
    net[1].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    in_train = cl.lipschitz.upper(net, torch.zeros(1, 4)).value
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert [layer.training for layer in net] == [True, False, True]
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert in_train == cl.lipschitz.upper(net.eval(), torch.zeros(1, 4)).value


def test_batch_norm_in_training_mode_claims_nothing() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    with pytest.raises(ValueError, match=r"module '1' \(BatchNorm1d\) is in training mode.*call model.eval\(\)"):
        cl.lipschitz.upper(net, torch.zeros(1, 4))


def test_parametrized_weight_is_what_counts() -> None:
    layer = parametrizations.weight_norm(nn.Linear(3, 3))
    layer.parametrizations.weight.original0.data.fill_(7.0)
    exact = float(torch.linalg.matrix_norm(copy.deepcopy(layer).double().weight.detach(), 2))
    assert cl.lipschitz.upper(layer, torch.zeros(1, 3)).value == pytest.approx(exact, rel=1e-9)


def test_layer_called_twice_counts_twice() -> None:
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.data = 3 * torch.eye(2)
    assert cl.lipschitz.upper(nn.Sequential(layer, layer), torch.zeros(1, 2)).value == pytest.approx(9)


def test_product_beyond_the_range_of_floats_stays_a_bound() -> None:
    large, small, zero = (nn.Linear(1, 1, bias=False, dtype=torch.float64) for _ in range(3))
    for layer, value in ((large, 1e200), (small, 1e-200), (zero, 0.0)):
        layer.weight.data.fill_(value)
    x = torch.zeros(1, 1)
    assert cl.lipschitz.upper(nn.Sequential(large, large), x).value == math.inf
    assert 0 < cl.lipschitz.upper(nn.Sequential(small, small), x).value < 1e-300
    assert cl.lipschitz.upper(nn.Sequential(large, large, zero), x).value == 0


class Own(nn.Linear):
    """A subclass may do anything."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * x


def hooked() -> nn.Module:
    layer = nn.Linear(4, 4)
    layer.register_forward_hook(lambda module, args, output: 3 * output)
    return layer


def replaced() -> nn.Module:
    layer = nn.Linear(4, 4)
    layer.forward = lambda x: 3 * x  # type: ignore[assignment, method-assign]
    return layer


def with_weight(value: float) -> nn.Module:
    layer = nn.Linear(4, 4)
    layer.weight.data[1, 2] = value
    return layer


def pruned() -> nn.Module:
    return prune.random_unstructured(nn.Linear(4, 4), "weight", 0.5)  # type: ignore[no-untyped-call, no-any-return]


@pytest.mark.parametrize(
    ("make", "kind", "reason"),
    [
        (lambda: nn.Bilinear(4, 4, 4), TypeError, "not understood.*register"),
        (lambda: nn.LSTM(4, 4), TypeError, "not understood.*register"),
        (hooked, TypeError, "hooks"),
        (pruned, TypeError, "hooks"),
        (replaced, TypeError, "its own forward"),
        (lambda: with_weight(math.nan), ValueError, "finite"),
        (lambda: with_weight(math.inf), ValueError, "finite"),
        (lambda: nn.Linear(4, 4, dtype=torch.complex64), ValueError, "real"),
        (lambda: nn.Linear(5, 4), ValueError, "cannot be multiplied"),
        (lambda: nn.BatchNorm1d(4, track_running_stats=False).eval(), ValueError, "running statistics"),
        (lambda: nn.LeakyReLU(math.nan), ValueError, "finite"),
        (lambda: nn.Softplus(1.0, 1.0), ValueError, "threshold"),
        (lambda: nn.Softmax(dim=0), ValueError, "dim"),
        (lambda: nn.Sequential(nn.Unflatten(1, (4, 1)), nn.Flatten(0)), ValueError, "mixes samples"),
        (lambda: nn.Conv2d(2, 2, 1), ValueError, "3D"),
        (lambda: nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.MaxPool2d(2, return_indices=True)), ValueError,
         "one tensor"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_named(make: Callable[[], nn.Module], kind: type[Exception], reason: str) -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), make()))
    with pytest.raises(kind, match=reason) as raised:
        cl.lipschitz.upper(net, torch.zeros(1, 4))
    last = list(net.named_modules())
    inner = next(name for name, layer in reversed(last) if name.startswith("1.1") and "parametriz" not in name)
    assert repr(inner) in str(raised.value)


def test_arguments_are_checked() -> None:
    net = nn.Linear(4, 4)
    with pytest.raises(ValueError, match="a callable"):
        cl.lipschitz.upper(net, torch.zeros(1, 4), p=lambda x: x.flatten(1).norm(dim=1))
    with pytest.raises(ValueError, match="p must be 1, 2"):
        cl.lipschitz.upper(net, torch.zeros(1, 4), p=3)
    with pytest.raises(ValueError, match="shape"):
        cl.lipschitz.upper(net, torch.zeros(4))
    with pytest.raises(TypeError, match="tensor"):
        cl.lipschitz.upper(net, (1, 4))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"lower\(\.\.\.\) takes any"):
        cl.lipschitz.upper(lambda x: x, torch.zeros(1, 4))
