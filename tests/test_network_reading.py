"""Reading a forward: functions and methods in every form, joins with closed forms, and the list in the docs."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from oracles import changes, matrix_of, operator_norm, picture, rand, randn, seeded
from torch import Tensor, fx, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from architectures import Drawn
from pieces import FUNCTIONS
from steepest import NORMS, steepest

import cheaplip as cl
from cheaplip.lipschitz.network import reading

Shape = tuple[int, ...]
Function = Callable[[Tensor], Tensor]
SQUARE = randn(4, 4)
MEAN, VARIANCE = randn(4), rand(4, seed=1) + 0.1

# One call each, of values of shape (4,), (4, 6), (4, 4, 6) or (2, 2, 2, 2).
CALLS: dict[str, tuple[Function, Shape]] = {
    **{name: (getattr(F, name), (4,)) for name in ("relu", "relu6", "hardtanh", "hardsigmoid", "hardswish", "selu")},
    **{name: (getattr(F, name), (4,)) for name in ("silu", "mish", "softsign", "logsigmoid", "tanhshrink", "celu")},
    **{name: (getattr(torch, name), (4,)) for name in ("sigmoid", "tanh", "abs", "absolute", "neg", "negative")},
    **{name: (getattr(torch, name), (4,)) for name in ("clone", "detach")},
    "leaky_relu": (lambda x: F.leaky_relu(x, -2.0), (4,)),
    "softshrink": (lambda x: F.softshrink(x, lambd=0.2), (4,)),
    "elu": (lambda x: F.elu(x, alpha=-1.5), (4,)),
    "gelu": (lambda x: F.gelu(x, approximate="tanh"), (4,)),
    "softplus": (lambda x: F.softplus(x, 3.0, 25.0), (4,)),
    "log_sigmoid": (F.logsigmoid, (4,)),
    "max_pool1d": (lambda x: F.max_pool1d(x, 3, stride=1, padding=1), (4, 6)),
    "max_pool2d": (lambda x: F.max_pool2d(x, [2, 3], 1), (4, 4, 6)),
    "max_pool3d": (lambda x: torch.max_pool3d(x, 2), (2, 2, 2, 2)),
    "avg_pool1d": (lambda x: F.avg_pool1d(x, 3, 2, 1), (4, 6)),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 2, 1, divisor_override=3), (4, 4, 6)),
    "avg_pool3d": (lambda x: F.avg_pool3d(x, 2), (2, 2, 2, 2)),
    "adaptive_avg_pool1d": (lambda x: F.adaptive_avg_pool1d(x, 4), (4, 6)),
    "adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x, (3, None)), (4, 4, 6)),
    "adaptive_avg_pool3d": (lambda x: F.adaptive_avg_pool3d(x, 1), (2, 2, 2, 2)),
    "sum": (lambda x: x.sum((1, -1)), (4, 6)),
    "mean": (lambda x: torch.mean(x, dim=[2], keepdim=True), (4, 6)),
    "cumsum": (lambda x: x.cumsum(-1), (4,)),
    "linear": (lambda x: F.linear(x, SQUARE[:3], bias=MEAN[:3]), (4,)),
    "matmul": (lambda x: x @ SQUARE, (4,)),
    "mm": (lambda x: x.mm(SQUARE), (4,)),
    "conv1d": (lambda x: F.conv1d(x, SQUARE[:, :, None], MEAN, stride=2), (4, 6)),
    "conv2d": (lambda x: F.conv2d(x, weight=SQUARE.view(4, 2, 2, 1), padding=(1, 0), groups=2), (4, 4, 6)),
    "conv3d": (lambda x: torch.conv3d(x, SQUARE.view(1, 2, 2, 2, 2), None, 1, 1, 1), (2, 2, 2, 2)),
    "batch_norm": (lambda x: F.batch_norm(x, MEAN, VARIANCE, bias=MEAN, eps=0.1), (4, 6)),
    "layer_norm": (lambda x: F.layer_norm(x, [6], eps=0.2), (4, 6)),
    "softmax": (lambda x: x.softmax(-1), (4,)),
    "log_softmax": (lambda x: F.log_softmax(x, dim=1), (4,)),
    "clamp": (lambda x: x.clamp(-0.2, 0.5), (4,)),
    "clip": (lambda x: torch.clip(x, max=0.5), (4,)),
    "clamp_min": (lambda x: x.clamp_min(0.2), (4,)),
    "clamp_max": (lambda x: x.clamp_max_(0.2), (4,)),
    "mul": (lambda x: torch.mul(MEAN, x), (4,)),
    "multiply": (lambda x: x.multiply(-3), (4,)),
    "imul": (lambda x: x.mul_(MEAN[:, None]), (4, 6)),
    "truediv": (lambda x: x / VARIANCE, (4,)),
    "div": (lambda x: torch.div(x, 0.3), (4,)),
    "divide": (lambda x: x.divide(-3), (4,)),
    "itruediv": (lambda x: x.div_(0.3), (4,)),
    "add": (lambda x: x.add(MEAN, alpha=2), (4,)),
    "iadd": (lambda x: x.add_(0.1), (4,)),
    "sub": (lambda x: 3 - x, (4,)),
    "isub": (lambda x: x.sub_(MEAN), (4,)),
    "subtract": (lambda x: torch.subtract(x, 3), (4,)),
    "cat": (lambda x: torch.cat([x, torch.ones_like(x)], dim=1), (4,)),
    "concat": (lambda x: torch.concat((x,), -1), (4,)),
    "concatenate": (lambda x: torch.concatenate([x], dim=1), (4,)),
    "stack": (lambda x: torch.stack([x, torch.zeros_like(x)], 1), (4,)),
    "hstack": (lambda x: torch.hstack([x]), (4,)),
    "vstack": (lambda x: torch.vstack([x]), (4,)),
    "dstack": (lambda x: torch.dstack([x]), (4, 6)),
    "chunk": (lambda x: x.chunk(2, 1)[1], (4,)),
    "split": (lambda x: torch.split(x, [1, 3], dim=1)[1], (4,)),
    "tensor_split": (lambda x: x.tensor_split(3, dim=1)[0], (4,)),
    "unbind": (lambda x: x.unbind(-1)[2], (4, 6)),
    "getitem": (lambda x: x[:, [0, 2, 2], None], (4, 6)),
    "narrow": (lambda x: x.narrow(1, 1, 2), (4, 6)),
    "select": (lambda x: x.select(1, -1), (4, 6)),
    "index_select": (lambda x: x.index_select(2, torch.tensor([1, 1, 5])), (4, 6)),
    "flatten": (lambda x: x.flatten(1), (4, 6)),
    "unflatten": (lambda x: torch.unflatten(x, 1, (2, 2)), (4, 6)),
    "reshape": (lambda x: x.reshape(x.shape[0], -1), (4, 6)),
    "reshape_as": (lambda x: x.reshape_as(torch.zeros_like(x)), (4, 6)),
    "view": (lambda x: x.view(x.size(0), 6, 4), (4, 6)),
    "view_as": (lambda x: x.view_as(x.new_zeros(x.shape)), (4, 6)),
    "permute": (lambda x: x.permute(0, 2, 1), (4, 6)),
    "transpose": (lambda x: torch.transpose(x, 1, 2), (4, 6)),
    "swapaxes": (lambda x: x.swapaxes(1, 2), (4, 6)),
    "swapdims": (lambda x: x.swapdims(-1, 1), (4, 6)),
    "movedim": (lambda x: x.movedim(1, -1), (4, 6)),
    "moveaxis": (lambda x: torch.moveaxis(x, 2, 1), (4, 6)),
    "adjoint": (lambda x: x.adjoint(), (4, 6)),
    "squeeze": (lambda x: x.squeeze(1), (1, 4)),
    "unsqueeze": (lambda x: x.unsqueeze(-1), (4,)),
    "contiguous": (lambda x: x.contiguous(), (4,)),
    "expand": (lambda x: x.expand(-1, 3, 6), (1, 6)),
    "expand_as": (lambda x: x.expand_as(torch.zeros(x.shape)), (4, 6)),
    "broadcast_to": (lambda x: x.broadcast_to(x.shape[0], 3, 6), (1, 6)),
    "repeat": (lambda x: x.repeat(1, 2, 3), (4, 6)),
    "repeat_interleave": (lambda x: x.repeat_interleave(2, dim=1), (4,)),
    "tile": (lambda x: x.tile(1, 3), (4,)),
    "flip": (lambda x: x.flip([1, 2]), (4, 6)),
    "roll": (lambda x: x.roll(2, 1), (4, 6)),
    "pad": (lambda x: F.pad(x, (2, 1), mode="reflect"), (4, 6)),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), (4, 4, 6)),
    "pixel_unshuffle": (lambda x: F.pixel_unshuffle(x, 2), (4, 4, 6)),
    "channel_shuffle": (lambda x: F.channel_shuffle(x, 2), (4, 4, 6)),
    "interpolate": (lambda x: F.interpolate(x, scale_factor=1.5, mode="bilinear", align_corners=True), (4, 4, 6)),
    "dropout": (lambda x: F.dropout(x, 0.5, False), (4,)),
    "dropout1d": (lambda x: F.dropout1d(x, training=False), (4, 6)),
    "dropout2d": (lambda x: F.dropout2d(x, 0.5, training=False), (4, 4, 6)),
    "dropout3d": (lambda x: F.dropout3d(x, 0.5, False), (2, 2, 2, 2)),
    "alpha_dropout": (lambda x: F.alpha_dropout(x, training=False), (4,)),
    "feature_alpha_dropout": (lambda x: F.feature_alpha_dropout(x, training=False), (4, 6)),
}  # fmt: skip


LAYER = seeded(nn.Linear(4, 4, bias=False).double())
C1, C2, CMAX = (operator_norm(LAYER.weight, p) for p in NORMS)  # type: ignore[arg-type]


class Calls(nn.Module):
    """Calls a function in float64."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function, self.layer = function, LAYER

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x * 1.0)  # some work in place


def bound(function: Function | nn.Module, shape: Shape, p: float = 2, **arguments: Any) -> float:
    net = function if isinstance(function, nn.Module) else Calls(function)
    return cl.lipschitz.upper(net.eval(), torch.zeros(1, *shape), p=p, **arguments).value


def test_every_function_that_is_understood_is_tested_here() -> None:
    assert set(CALLS) == reading.NAMES


@pytest.mark.parametrize("name", CALLS)
def test_function_is_bounded_by_the_norm_of_its_matrix_or_above_its_jacobian(name: str) -> None:
    function, shape = CALLS[name]
    net, x, y = Calls(function), randn(2, *shape), -randn(2, *shape, seed=1)
    linear = torch.allclose(net(x + y) - net(y), net(x) - net(x - x))
    found = {} if linear else steepest(Drawn("one", 0, shape, nn.Sequential(net)), climbs=1)
    for p in NORMS:
        constant = bound(net, shape, p)
        exact = operator_norm(matrix_of(net, shape), p) if linear else found[p]
        assert exact * (1 - 1e-7) <= constant  # torch's derivative of hardsigmoid is rounded to float32
        assert constant <= exact * (1 + 1e-9) if linear else constant <= 2 * exact or name == "layer_norm"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_as_users_write_it_is_read(name: str) -> None:
    net = Calls(FUNCTIONS[name])
    shape = next(shape for shape in ((3, 4), (1, 4), (3, 4, 2)) if _takes(net, shape))
    found = steepest(Drawn("one", 0, shape, nn.Sequential(net)), climbs=1)
    for p in NORMS:
        assert found[p] * (1 - 1e-9) <= bound(net, shape, p, method="product")


def _takes(net: nn.Module, shape: Shape) -> bool:
    try:
        net(rand(2, *shape))
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize(
    ("join", "expected"),
    [
        (lambda x: x + LAYER(x).relu(), (1 + C1, 1 + C2, 1 + CMAX)),
        (lambda x: torch.sub(x, F.relu(LAYER(x)), alpha=-3), (1 + 3 * C1, 1 + 3 * C2, 1 + 3 * CMAX)),
        (lambda x: torch.add(input=x, other=x, alpha=5), (6, 6, 6)),
        (lambda x: torch.cat([x, LAYER(x).relu()], 1), (1 + C1, math.hypot(1, C2), max(1, CMAX))),
        (lambda x: torch.stack([x.abs(), 2 * x, x], -1), (4, math.sqrt(6), 2)),
        (lambda x: x.unsqueeze(1) + x.new_zeros(x.shape[0], 5, 4), (5, math.sqrt(5), 1)),
        (lambda x: x.relu() + x.mean(1, keepdim=True), (2, 2, 2)),
        (lambda x: LAYER(LAYER(x).relu()), (C1**2, C2**2, CMAX**2)),
        (lambda x: x * torch.tensor([True, False, True, True]) / 2, (0.5, 0.5, 0.5)),
        (lambda x: 1.0 + x.relu() + x.abs(), (2, 2, 2)),
    ],
)  # fmt: skip
def test_product_of_joined_branches_has_its_closed_form(join: Function, expected: tuple[float, ...]) -> None:
    for p, value in zip(NORMS, expected, strict=True):
        assert bound(join, (4,), p, method="product") == pytest.approx(value, rel=1e-9)


class Remembers(nn.Module):
    """Keeps what it saw, counts, and takes more arguments than one."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleList([nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)])
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor, mask: Tensor | None = None, scale: float = 2.0, *more: Any) -> Tensor:
        for layer in self.inner:
            x = layer(x)
        self.features, self.seen = x, self.seen + 1
        return x * scale if mask is None else x * mask


def test_reading_leaves_a_model_as_it_was() -> None:
    net = seeded(Remembers().double()).eval()
    before, held = picture(net), set(vars(net))
    assert bound(net, (4,)) == pytest.approx(2 * bound(nn.Sequential(*next(net.children()).children()), (4,)), rel=1e-3)
    assert changes(before, picture(net)) == []
    assert set(vars(net)) == held


def test_model_that_was_traced_or_cast_is_read() -> None:
    net = seeded(nn.Sequential(nn.Linear(4, 5), nn.LeakyReLU(0.1), nn.Linear(5, 3))).eval()
    value = bound(net, (4,))
    assert bound(fx.symbolic_trace(net), (4,)) == value
    for dtype in (torch.float32, torch.bfloat16):
        cast = net.to(dtype)
        assert cl.lipschitz.upper(cast, torch.zeros(1, 4)).value == pytest.approx(value, rel=0.02)
    with torch.inference_mode():
        assert cl.lipschitz.upper(nn.Conv1d(4, 2, 3), torch.zeros(1, 4, 6), p=1).proven


def test_sample_may_shrink_to_a_number_or_to_nothing() -> None:
    assert bound(lambda x: F.leaky_relu(x.sum(1) * -3, 3.0).unsqueeze(1), (4,)) == pytest.approx(18)
    assert bound(lambda x: x[:, :0].relu(), (4,)) == 0
