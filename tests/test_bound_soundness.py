"""Upper bounds are never below what a search finds in the same domain, for random networks of all layers."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from architectures import FAMILIES, Drawn, draw_network
from bounds_soundness import ROUNDING, Found, measure, plant, table
from pieces import Applied
from steepest import NORMS, random_box, steepest

import cheaplip as cl
from cheaplip.lipschitz.certificate import Part

SEEDS = st.integers(0, 1_000_000)


def upper(net: nn.Module, shape: tuple[int, ...], **arguments: Any) -> float:
    return cl.lipschitz.upper(net, torch.zeros(1, *shape), **arguments).value


@settings(max_examples=100)
@given(family=st.sampled_from(list(FAMILIES)), seed=SEEDS, p=st.sampled_from(NORMS), inside=st.booleans())
def test_upper_bound_is_above_the_steepest_point(family: str, seed: int, p: float, inside: bool) -> None:
    drawn = draw_network(family, seed)
    box = random_box(drawn) if inside else None
    where = {"domain": "box", "box": box} if inside else {}
    method = "product" if p != 2 or math.prod(drawn.shape) > 24 else ("eclipse", "sdp", "product")[seed % 3]
    value = upper(drawn.net, drawn.shape, p=p, method=method, seconds=2, **where)
    assert value * (1 + ROUNDING) >= steepest(drawn, box, [p])[p]


@settings(max_examples=30)
@given(family=st.sampled_from(list(FAMILIES)), seed=SEEDS)
def test_what_is_not_understood_is_named_wherever_it_is_planted(family: str, seed: int) -> None:
    found = Found()
    plant(draw_network(family, seed), found)
    assert (found.planted, found.violations) == (1, [])


@settings(max_examples=10)
@given(seed=SEEDS)
def test_linear_network_is_bounded_by_what_is_found(seed: int) -> None:
    drawn = draw_network("linear", seed)
    found = steepest(drawn, climbs=0)
    for p in NORMS:
        # Of a norm whose matrix is written down the bound is exact; of absolute values of a part it may be larger.
        assert upper(drawn.net, drawn.shape, p=p) >= found[p] * (1 - ROUNDING)
    assert upper(drawn.net, drawn.shape) <= found[2.0] * (1 + 1e-6) or "padding_mode" in str(drawn.net)


def test_benchmark_counts_what_it_measures() -> None:
    found = Found()
    measure(draw_network("dense", 2), found)
    measure(Drawn("dense", 3, (4,), nn.Sequential(nn.Hardshrink())), found)
    assert (found.networks, found.refused) == (2, 2)
    assert len(found.violations) == 2
    assert "Hardshrink" in found.violations[0]
    assert min(min(ratios) for ratios in found.ratios.values()) >= 1 - ROUNDING
    assert table({"dense": found}).rows[0][:2] == ("dense", "2")


# Inside a box.


def linear(weight: float, bias: float) -> nn.Linear:
    layer = nn.Linear(1, 1, dtype=torch.float64)
    nn.init.constant_(layer.weight, weight)
    nn.init.constant_(layer.bias, bias)
    return layer


@pytest.mark.parametrize(
    ("middle", "expected"),
    [
        (nn.ReLU(), 0.0),
        (nn.LeakyReLU(0.25), 0.25),
        (nn.Hardtanh(-9.0, -4.0), 0.0),
        (nn.Sigmoid(), 0.25 - 0.0534),  # σ' at -1
        (nn.Softplus(), 0.2689),  # σ at -1
        (nn.GELU(), 0.1289),  # the least slope is at -√2
    ],
)
def test_units_count_with_the_slopes_that_they_have_in_the_box(middle: nn.Module, expected: float) -> None:
    net = nn.Sequential(linear(2.0, -3.0), middle).eval()  # which sees [-3, -1]
    for p in NORMS:
        assert upper(net, (1,), p=p, domain="box") == pytest.approx(2 * expected, abs=1e-4)
        assert upper(net, (1,), p=p, domain="box", box=(-10.0, 10.0)) >= 2 * expected


def test_constant_of_a_sum_is_known_to_all_its_digits_in_a_box() -> None:
    net = nn.Sequential(linear(1.0, 0.0), Applied("shift", lambda x: F.relu(x - 0.1)))
    # At 0.1 - 1e-12 the unit sleeps; at 0.1 + 1e-12 it does not. As float32, 0.1 would be 1.5e-9 larger.
    assert upper(net, (1,), domain="box", box=(0.0, 0.1 - 1e-12)) == 0
    assert upper(net, (1,), domain="box", box=(0.0, 0.1 + 1e-12)) == pytest.approx(1)


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e18, 1e200, 1.7e308])
@pytest.mark.parametrize("family", ["dense", "images", "joined"])
def test_box_of_any_size_is_bounded_by_no_more_than_all_space(family: str, size: float) -> None:
    for seed in range(3):
        drawn = draw_network(family, seed)
        inside = steepest(drawn, (-size, size), climbs=0)
        for p in NORMS:
            value = upper(drawn.net, drawn.shape, p=p, method="product", domain="box", box=(-size, size))
            assert inside[p] <= value * (1 + ROUNDING)
            assert value <= upper(drawn.net, drawn.shape, p=p, method="product") * (1 + 1e-9)


def test_sums_that_cancel_are_rounded_outward_in_a_box() -> None:
    # In float64 (x + 2^60) - (x / 2 + 2^60) has no digit of x left: that the unit always sleeps may not be claimed.
    far = 2.0**60
    net = nn.Sequential(linear(1.0, 0.0), Applied("far", lambda x: F.relu((x + far) - (0.5 * x + far) - 0.25)))
    assert upper(net, (1,), domain="box", box=(0.0, 1.0)) >= 0.5


def test_network_beyond_the_range_of_floats_is_still_bounded() -> None:
    layers = [nn.Linear(3, 3, dtype=torch.float64) for _ in range(4)]
    for layer in layers:
        nn.init.constant_(layer.weight, 1e120)
    net = nn.Sequential(*[nn.Sequential(layer, nn.Tanhshrink()) for layer in layers])
    for where in ({}, {"domain": "box"}):
        assert upper(net, (3,), **where) == math.inf
    both = Applied("sum", lambda x: layers[0](layers[1](x)).relu() + layers[2](layers[3](x)).relu())
    assert upper(nn.Sequential(both, *layers), (3,), p=1) == math.inf


# What the random networks found.


@pytest.mark.parametrize("method", ["eclipse", "sdp"])
@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.leaky_relu(F.pad(x, (1, 0))[:, :1], 0.5),  # the border alone
        lambda x: F.leaky_relu(x - x, -0.5),
        lambda x: torch.cat([F.leaky_relu(x - x, -0.5), F.leaky_relu(0.0 * x, -2.0)], 1),
    ],
)
def test_units_that_see_nothing_of_the_input_add_nothing(function: Any, method: str) -> None:
    net = nn.Sequential(Applied("nothing", function))
    bound = cl.lipschitz.upper(net, torch.zeros(1, 3), method=method)
    assert 0 <= bound.value <= 2 * (1 + 1e-12)
    assert bound.certificate is not None
    assert cl.lipschitz.check(bound.certificate, net).value == bound.value


def test_certificate_whose_parts_run_backwards_or_are_negative_proves_nothing() -> None:
    net = draw_network("dense", 5).net
    x = torch.zeros(1, *draw_network("dense", 5).shape)
    good = cl.lipschitz.upper(net, x, method="sdp").certificate
    assert good is not None
    last, none = good.parts[-1].end, torch.zeros(0, dtype=torch.float64)
    forged = (
        (dataclasses.replace(good.parts[0], value=-good.parts[0].value), *good.parts[1:]),
        (*good.parts, Part(last, 0, 1e-300, none), *good.parts),
        (*good.parts, Part(last, 0, 1e-300), *good.parts),
    )
    for parts in forged:
        with pytest.raises(ValueError, match="do not follow"):
            cl.lipschitz.check(dataclasses.replace(good, value=0.0, parts=parts), net)


def weights(*values: float) -> list[nn.Module]:
    """Return layers of one number each, without bias, in float64."""
    layers = []
    for value in values:
        layer = nn.Linear(1, 1, bias=False).double()
        layer.weight.data.fill_(value)
        layers.append(layer)
    return [*layers]


def normalised(weight: float, factor: float) -> nn.Module:
    """Return a convolution with a normalisation behind it."""
    convolution, norm = nn.Conv1d(1, 1, 1, bias=False), nn.BatchNorm1d(1)
    convolution.weight.data.fill_(weight)
    norm.weight.data.fill_(factor)
    return nn.Sequential(convolution, norm).double().eval()


# Products of weights that leave the range of float64 on the way, and what is left of them in the end.
VANISHING: dict[str, tuple[list[nn.Module], float]] = {
    "gone": (weights(*[1e-8] * 41, *[1e8] * 41), 1.0),
    "nearly gone": (weights(*[1e-7] * 46, *[1e7] * 46), 1.0),
    "before a unit": ([*weights(1e-170, 1e-170), nn.ReLU(), *weights(1e150, 1e150)], 1e-40),
    "behind a unit": ([*weights(1e150, 1e150), nn.ReLU(), *weights(1e-170, 1e-170)], 1e-40),
    "folded": ([normalised(1e-170, 1e-170), *weights(1e300)], 1e-40),
}


@pytest.mark.parametrize("name", VANISHING)
@pytest.mark.parametrize("method", ["auto", "eclipse", "product"])
@pytest.mark.parametrize("p", NORMS)
def test_bound_is_not_lost_where_products_of_weights_vanish(name: str, method: str, p: float) -> None:
    if method == "eclipse" and p != 2:
        return
    layers, exact = VANISHING[name]
    shape = (1, 1) if name == "folded" else (1,)
    assert upper(nn.Sequential(*layers), shape, method=method, p=p) > exact * (1 - 1e-4)
    ends: Any = nn.Sequential(*layers, nn.Linear(1, 2, bias=False).double())
    ends[-1].weight.data = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    if shape == (1,):
        x = torch.ones(1, 1, dtype=torch.float64)
        radius = cl.lipschitz.certify(ends, x, torch.tensor([0]), p=p).radius
        assert float(radius) <= 1.0 + 1e-9


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_that_are_computed_are_those_of_float64(dtype: torch.dtype) -> None:
    for seed in range(8):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 2, bias=False))).to(dtype)
        bounds = cl.lipschitz.bounds(net, torch.rand(8, 4).to(dtype), seconds=1)
        assert bounds.lower <= bounds.upper
        assert bounds.upper == pytest.approx(bounds.lower, rel=1e-5)


def test_certified_radius_allows_for_what_is_lost_inside() -> None:
    first, last = nn.Linear(2, 2).double(), nn.Linear(2, 2).double()
    first.weight.data, first.bias.data = (
        torch.diag(torch.tensor([1.0, 0.0])).double(),
        torch.tensor([1e15, 0.0]).double(),
    )
    last.weight.data, last.bias.data = torch.eye(2).double(), torch.tensor([-1e15, 0.0]).double()
    x = torch.tensor([[0.07, 0.0]], dtype=torch.float64)
    found = cl.lipschitz.certify(nn.Sequential(first, nn.ReLU(), last), x, torch.tensor([0]))
    assert float(found.radius) <= 0.07


class Scaled(nn.Module):
    """Its forward makes numbers of its parameters: a factor that float32 loses, or a normalised weight."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.large, self.one = nn.Parameter(torch.tensor(2.0**24)), nn.Parameter(torch.tensor(1.0))
        self.weight = nn.Parameter(torch.randn(2, 4, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "lost":
            return x * ((self.large + self.one) - self.large)
        return F.linear(x, self.weight / torch.linalg.matrix_norm(self.weight.double()).to(self.weight))


@pytest.mark.parametrize("how", ["lost", "normalised"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_numbers_made_of_parameters_are_those_of_float64(how: str, dtype: torch.dtype) -> None:
    net, x = Scaled(how).to(dtype), torch.rand(8, 4).to(dtype)
    bounds = cl.lipschitz.bounds(net, x, seconds=1)
    assert 0 < bounds.lower <= bounds.upper == pytest.approx(bounds.lower, rel=1e-5)
    radius = cl.lipschitz.certify(net, x[:1], net(x[:1]).argmax(1)).radius
    assert float(radius) < 1


class Normed(nn.Module):
    """A weight divided by its norm, by kernels of which torch has several."""

    def forward(self, weight: Tensor) -> Tensor:
        scaled: Tensor = weight / torch.linalg.matrix_norm(weight, 2)
        return scaled


class Cayley(nn.Module):
    """An orthogonal weight, by a parametrization that works in float32 alone."""

    def forward(self, weight: Tensor) -> Tensor:
        skew, one = weight - weight.T, torch.eye(len(weight), dtype=torch.float32)
        orthogonal: Tensor = torch.linalg.solve(one + skew, one - skew)
        return orthogonal


@pytest.mark.parametrize("kind", [Normed, Cayley])
def test_weights_that_are_computed_in_any_way_are_understood(kind: type[nn.Module]) -> None:
    for seed in range(6):
        torch.manual_seed(seed)
        layer = nn.Linear(32, 32, bias=False)
        nn.utils.parametrize.register_parametrization(layer, "weight", kind())
        assert upper(nn.Sequential(layer), (32,)) == pytest.approx(1.0, rel=1e-5)


def test_an_iteration_that_stops_for_a_whole_batch_is_measured() -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            z = x
            for _ in range(100):
                z, before = x + 0.5 * torch.sin(z), z
                if float((z - before).detach().norm()) < 1e-6:
                    break
            return z

    # z = x + sin(z) / 2, of slope 1 / (1 - cos(z) / 2), which is at most 2.
    assert 1 < cl.lipschitz.lower(Fixed(), torch.rand(16, 3), pairs=8, steps=20).value < 2.001
