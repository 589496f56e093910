"""Rules of layers: every one that is understood, against its matrix, its derivatives and Jacobians at many points."""

from __future__ import annotations

import copy
import re
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import matrix_of, operator_norm
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from architectures import Drawn, Draws, linear, settle
from steepest import NORMS, as_smooth, steepest

import cheaplip as cl
from cheaplip.lipschitz.network import convolution, reading
from cheaplip.lipschitz.network import linear as linear_rules
from cheaplip.lipschitz.network.registry import RULES

Shape = tuple[int, ...]
SIGNAL, IMAGE, VOLUME = (4, 6), (4, 4, 6), (2, 3, 4, 3)

ACTIVATIONS: list[nn.Module] = [
    *(nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(-3.0), nn.LeakyReLU(2.0), nn.PReLU(init=-0.7), nn.RReLU(-1.0, 0.5)),
    *(nn.Hardtanh(-0.3, 4.0), nn.Softshrink(0.7), nn.Hardsigmoid(), nn.Sigmoid(), nn.Tanh(), nn.Tanhshrink()),
    *(nn.Softsign(), nn.LogSigmoid(), nn.SiLU(), nn.Mish(), nn.Hardswish(), nn.GELU(), nn.GELU("tanh"), nn.SELU()),
    *(nn.ELU(), nn.ELU(2.5), nn.ELU(-1.5), nn.ELU(0.0), nn.CELU(0.2), nn.CELU(5.0), nn.Softplus()),
    *(nn.Softplus(3.0, 25.0), nn.Softplus(0.1)),
]  # fmt: skip
OTHERS: list[tuple[nn.Module, Shape]] = [
    (nn.PReLU(4, init=0.3), SIGNAL),
    *((nn.LayerNorm(4, 0.1), (4,)), (nn.LayerNorm((6,), 0.1), SIGNAL), (nn.GroupNorm(2, 4, 0.01), (4,))),
    *((nn.GroupNorm(2, 4, 0.1), SIGNAL), (nn.InstanceNorm1d(4, 0.1, affine=True), SIGNAL), (nn.RMSNorm(4, 0.1), (4,))),
    *((nn.InstanceNorm2d(4, 0.1), IMAGE), (nn.InstanceNorm3d(2, 0.1), VOLUME), (nn.Softmax2d(), IMAGE)),
    *((nn.Softmax(1), (5,)), (nn.Softmax(-1), SIGNAL), (nn.LogSoftmax(1), (5,)), (nn.LogSoftmax(-1), (3, 2))),
    *((nn.MaxPool1d(3, 1, 1), SIGNAL), (nn.MaxPool1d(2, 3, dilation=2), SIGNAL), (nn.MaxPool2d((2, 3), 1), IMAGE)),
    *((nn.MaxPool2d(3, (1, 2), 1, (2, 1), ceil_mode=True), IMAGE), (nn.MaxPool3d(2, 1), VOLUME)),
    *((nn.MaxPool2d(2), (4, 6)), (nn.AdaptiveMaxPool1d(4), SIGNAL), (nn.AdaptiveMaxPool2d((3, None)), IMAGE)),
    (nn.AdaptiveMaxPool3d((2, 3, 2)), VOLUME),
]
LINEAR: list[tuple[nn.Module, Shape]] = [
    *((nn.Linear(4, 3), (4,)), (nn.Linear(6, 3, bias=False), SIGNAL), (nn.Identity(), (4,))),
    *((nn.Conv1d(4, 2, 3, 2, 1), SIGNAL), (nn.Conv2d(4, 2, 3, padding="same", groups=2), IMAGE)),
    *((nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), IMAGE), (nn.Conv3d(2, 2, 2, dilation=2), VOLUME)),
    *((nn.ConvTranspose1d(4, 2, 3, 2, 1, 1), SIGNAL), (nn.ConvTranspose2d(4, 2, 2, dilation=2, groups=2), IMAGE)),
    *((nn.ConvTranspose3d(2, 1, 2, 2), VOLUME), (nn.BatchNorm1d(4), (4,)), (nn.BatchNorm1d(4), SIGNAL)),
    *((nn.BatchNorm2d(4, affine=False), IMAGE), (nn.BatchNorm3d(2), VOLUME), (nn.AvgPool1d(3, 2, 1), SIGNAL)),
    *((nn.AvgPool2d(3, 1, 1, count_include_pad=False), IMAGE), (nn.AvgPool2d(2, divisor_override=3), (4, 6))),
    *((nn.AvgPool3d(2, ceil_mode=True), VOLUME), (nn.AdaptiveAvgPool1d(4), SIGNAL), (nn.AdaptiveAvgPool2d(3), IMAGE)),
    *((nn.AdaptiveAvgPool3d((None, 2, 2)), VOLUME), (nn.Flatten(), IMAGE), (nn.Unflatten(1, (2, 2)), (4, 3))),
    *((nn.Dropout(), (4,)), (nn.Dropout1d(), SIGNAL), (nn.Dropout2d(), IMAGE), (nn.Dropout3d(), VOLUME)),
    *((nn.AlphaDropout(), (4,)), (nn.FeatureAlphaDropout(), SIGNAL), (nn.PixelShuffle(2), IMAGE)),
    *((nn.PixelUnshuffle(2), IMAGE), (nn.ChannelShuffle(2), IMAGE), (nn.UpsamplingNearest2d(scale_factor=2), IMAGE)),
    *((nn.ZeroPad1d(1), SIGNAL), (nn.ZeroPad2d((1, 0, -1, 2)), IMAGE), (nn.ZeroPad3d(1), VOLUME)),
    *((nn.ConstantPad1d(1, 0.1), SIGNAL), (nn.ConstantPad2d(1, -3.0), IMAGE), (nn.ConstantPad3d(1, 2.0), VOLUME)),
    *((nn.ReflectionPad1d(2), SIGNAL), (nn.ReflectionPad2d(1), IMAGE), (nn.ReflectionPad3d(1), VOLUME)),
    *((nn.ReplicationPad1d(2), SIGNAL), (nn.ReplicationPad2d(1), IMAGE), (nn.ReplicationPad3d(1), VOLUME)),
    *((nn.CircularPad1d(2), SIGNAL), (nn.CircularPad2d(1), IMAGE), (nn.CircularPad3d(1), VOLUME)),
]  # fmt: skip


def product(net: nn.Module, shape: Shape, p: float) -> float:
    return cl.lipschitz.upper(net, torch.zeros(1, *shape), p=p, method="product").value


def settled(layer: nn.Module) -> nn.Module:
    layer = copy.deepcopy(layer).double().eval()
    settle(Draws(3), layer, wild=False)
    return layer


def test_every_layer_that_is_understood_is_tested_here() -> None:
    tested = {type(layer) for layer in ACTIVATIONS} | {type(layer) for layer, _ in [*OTHERS, *LINEAR]}
    assert tested == {kind for kind in RULES if kind.__module__.startswith("torch.nn.")}


@pytest.mark.parametrize(("layer", "shape"), [*((layer, (3,)) for layer in ACTIVATIONS), *OTHERS], ids=str)
def test_layer_is_never_steeper_than_its_constant(layer: nn.Module, shape: Shape) -> None:
    net = nn.Sequential(settled(layer))
    found = steepest(Drawn("one", 0, shape, net))
    for p in NORMS:
        constant = product(net, shape, p)
        assert 0 < found[p] <= constant * (1 + 1e-9)
        assert constant <= 1.3 * found[p] or layer not in ACTIVATIONS


@pytest.mark.parametrize(("layer", "shape"), LINEAR, ids=str)
def test_linear_layer_has_the_norm_of_its_matrix(layer: nn.Module, shape: Shape) -> None:
    net = settled(layer)
    matrix = matrix_of(net, shape)
    for p in NORMS:
        constant, exact = product(net, shape, p), operator_norm(matrix, p)
        assert constant >= exact * (1 - 1e-14)
        # Weights that meet after a border was copied may cancel, which is known for p = 2 alone.
        assert constant == pytest.approx(exact, rel=1e-9) or (
            p != 2 and getattr(net, "padding_mode", "zeros") != "zeros"
        )


@settings(max_examples=30)
@given(seed=st.integers(0, 100_000), dimensions=st.integers(1, 4), taps=st.booleans())
def test_linear_layer_too_large_for_a_matrix_is_bounded_from_above(seed: int, dimensions: int, taps: bool) -> None:
    draw = Draws(seed)
    shape = tuple(draw.whole(2, {1: 9, 2: 7, 3: 5, 4: 3}[dimensions]) for _ in range(dimensions))
    layer = linear(draw, shape).double().eval()
    settle(draw, layer, wild=False)
    try:
        matrix = matrix_of(layer, shape)
    except RuntimeError:
        return  # it does not take this shape
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear_rules, "DENSE", 0)
        patch.setattr(convolution, "DENSE", 0)
        patch.setattr(convolution, "SYMBOL", 0 if taps else 2**26)
        for p in NORMS:
            try:
                constant = product(layer, shape, p)
            except (TypeError, ValueError):
                assert not matrix.numel() or "mixes samples" in str(sys.exc_info()[1])
                continue
            assert constant >= operator_norm(matrix, p) * (1 - 1e-12)


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=str)
def test_slopes_between_bounds_hold_every_slope_there(layer: nn.Module) -> None:
    layer = layer.double().eval()
    near, far = torch.linspace(-12, 12, 24001), torch.logspace(-9, 3, 200)
    x = torch.cat([near, far, -far, torch.tensor([0.0, 0.7, 3.0, 25 / 3])]).double().sort().values.requires_grad_()
    (slopes,) = torch.autograd.grad(as_smooth(nn.Sequential(layer))(x).sum(), x)
    x = x.detach()
    draw = torch.Generator().manual_seed(0)
    first = torch.randint(len(x), (400,), generator=draw)
    last = (first + torch.randint(3000, (400,), generator=draw)).clamp_max(len(x) - 1)
    rule = RULES[type(layer)](layer, (400,)).elementwise
    assert rule is not None
    low, high = rule.slopes(x[first], x[last])
    for k in range(400):
        inside = slopes[first[k] : last[k] + 1]
        assert low[k] - 1e-12 <= inside.min() <= inside.max() <= high[k] + 1e-12
        if last[k] - first[k] > 100:  # on a long interval the bounds are close
            assert inside.min() - low[k] <= 1e-3 + 5e-3 * abs(low[k])
            assert high[k] - inside.max() <= 1e-3 + 5e-3 * abs(high[k])


def test_docs_list_what_is_understood() -> None:
    page = Path(__file__).resolve().parent.parent / "docs" / "bounds_layers.md"
    modules, functions = page.read_text("utf-8").split("## Functions")

    def listed(part: str) -> list[str]:
        rows = [line.split("|")[1] for line in part.splitlines() if line.startswith("| `")]
        return sorted(name for row in rows for name in re.findall(r"`(\w+)`", row))

    known = {kind.__name__ for kind in RULES if kind.__module__.startswith("torch.nn.")}
    assert listed(modules) == sorted(known)
    assert listed(functions) == sorted(reading.NAMES)
