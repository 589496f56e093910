"""Sound or loud: forwards that look harmless, and what each has to be told."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from oracles import randn
from torch import Tensor, fx, nn
from torch.nn import functional as F

import cheaplip as cl

Function = Callable[[Tensor], Any]
ONE = torch.ones(4)
NOT_FINITE = torch.tensor([1.0, math.nan, 1.0, 1.0])
SQUARE = randn(4, 4, dtype=torch.float32)
COMPILED: nn.Module = torch.compile(nn.Linear(4, 4), backend="eager")  # type: ignore[assignment]


class Calls(nn.Module):
    """Calls a function on a value that nothing else holds."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x * 1.0)


def refused(net: nn.Module, shape: tuple[int, ...] = (4,), p: float = 2, **arguments: Any) -> str:
    with pytest.raises((TypeError, ValueError)) as raised:
        cl.lipschitz.upper(net.eval(), torch.zeros(1, *shape), p=p, **arguments)
    assert "\n" not in str(raised.value)
    return str(raised.value)


NO_PRODUCT = "product or quotient, which is not Lipschitz"
UNKNOWN: dict[str, Function] = {
    **{name: getattr(torch, name) for name in ("exp", "log", "sqrt", "sin", "sign", "floor", "square", "reciprocal")},
    "round": lambda x: x.round(),
    "sort": lambda x: x.sort(1)[0],
    "topk": lambda x: x.topk(2, 1)[0],
    "max": lambda x: x.max(1)[0],
    "amax": lambda x: x.amax(1),
    "norm": lambda x: x.norm(dim=1),
    "normalize": F.normalize,
    "pow": lambda x: x**2,
    "prod": lambda x: x.prod(1),
    "where": lambda x: torch.where(torch.ones(4, dtype=torch.bool), x, 2 * x),
    "gt": lambda x: x > 0,
    "argmax": lambda x: x.argmax(1),
    "masked_fill": lambda x: x.masked_fill(torch.ones(4, dtype=torch.bool), 0.0),
    "gather": lambda x: x.gather(1, torch.zeros(3, 1, dtype=torch.long)),
    "lerp": lambda x: torch.lerp(x, 2 * x, 0.3),
    "hardshrink": F.hardshrink,
    "group_norm": lambda x: F.group_norm(x, 2),
    "instance_norm": lambda x: F.instance_norm(x[:, None]),
    "floordiv": lambda x: x // 2,
    "remainder": lambda x: torch.remainder(x, 2),
    "to": lambda x: x.to(torch.int32),
    "half": lambda x: x.half(),
    "tolist": lambda x: x.tolist(),
    "stride": lambda x: x * x.stride(0),
    ".T": lambda x: x.T,
    ".data": lambda x: x.data,
    "rand_like": lambda x: x + torch.rand_like(x),
    "einsum": lambda x: torch.einsum("bi,ij->bj", x, SQUARE),
    # Of the same name as something that is understood.
    "batch_norm": lambda x: torch.batch_norm(x, None, None, SQUARE[0], SQUARE[1] ** 2, False, 0.1, 1e-5, False),
    "elu": lambda x: torch._C._nn.elu(x, 1.0, 100.0),
    "elu ": lambda x: F.elu_(x, 1.0, 100.0),  # type: ignore[call-arg]
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_function_that_is_not_understood_is_named(name: str) -> None:
    message = refused(Calls(UNKNOWN[name]))
    assert f"({name.strip()})" in message
    assert "is not understood" in message
    assert "register" in message


@torch.fx.wrap
def relu(x: Tensor) -> Tensor:
    return 100 * F.relu(x)


functools.update_wrapper(relu, F.relu)


@torch.fx.wrap
def apart(x: Tensor) -> dict[str, Tensor]:
    return {"sum": x.sum()}


@torch.fx.wrap
def added(x: Tensor) -> float:
    return float(x.sum())


def view_and_change(x: Tensor) -> Tensor:
    x.view(-1, 2, 2).relu_()
    return x


def part_and_change(x: Tensor) -> Tensor:
    parts = x.chunk(2, 1)
    parts[0].mul_(100)
    return parts[0]


def names_of_one(x: Tensor) -> Tensor:
    y = x
    y *= 3
    return x + y


def inside_out(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 50.0) if isinstance(x, Tensor) else F.relu(x)


def turned(x: Tensor) -> Tensor:
    before = x.unsqueeze(1).clone()
    x.unsqueeze_(1)
    return before - x


TRAPS: dict[str, tuple[Function, str]] = {
    "another relu": (lambda x: relu(x), "not understood"),
    "a number in a dictionary": (lambda x: x + apart(x)["sum"], "apart"),
    "a number": (lambda x: x * added(x), "added"),
    "a product": (lambda x: x * x, NO_PRODUCT),
    "a quotient": (lambda x: 1 / x, "second place"),
    "attention": (lambda x: F.scaled_dot_product_attention(x, x, x), NO_PRODUCT),
    "a batch product": (lambda x: torch.bmm(x[:, None], x[:, :, None]), NO_PRODUCT),
    "rounding": (lambda x: torch.div(x, 2, rounding_mode="floor"), "rounding"),
    "bounds that are values": (lambda x: x.clamp(min=-x), "combines values"),
    "bounds that are tensors": (lambda x: x.clamp(torch.zeros(4), torch.arange(4.0)), "must be numbers"),
    "bicubic": (lambda x: F.interpolate(x.view(-1, 1, 2, 2), scale_factor=3.0, mode="bicubic"), "negative factors"),
    "a negative average": (lambda x: F.avg_pool2d(x.view(-1, 1, 2, 2), 2, divisor_override=-1), "negative"),
    "dropout": (F.dropout, "always on"),
    "noise": (lambda x: x + torch.rand(4), "is random"),
    "complex numbers": (lambda x: x * 1j, "complex"),
    "numbers that are not finite": (lambda x: x + NOT_FINITE, "finite"),
    "factors that are not finite": (lambda x: x * NOT_FINITE, "finite"),
    "weights that are not finite": (lambda x: F.linear(x, NOT_FINITE.expand(2, 4)), "finite"),
    "a bias that is not finite": (lambda x: F.linear(x, SQUARE, NOT_FINITE), "finite"),
    "a border that is not finite": (lambda x: F.pad(x, (1, 1), value=math.inf), "finite"),
    "a slope that is not finite": (lambda x: F.elu(x, math.inf), "finite"),
    # Samples
    "the mean of all": (lambda x: x - x.mean(0), "mixes samples"),
    "the sum of all before": (lambda x: x.cumsum(0), "mixes samples"),
    "the first": (lambda x: x[:1].expand(x.shape[0], -1), "mixes samples"),
    "the other way round": (lambda x: x.flip(0), "mixes samples"),
    "turned": (lambda x: x.view(4, -1).relu().t(), "mixes samples"),
    "beside each other": (lambda x: torch.cat([x, x], 0), "mixes samples"),
    "softmax of all": (lambda x: F.softmax(x, 0), "dim must be"),
    "statistics of all": (lambda x: F.layer_norm(x, x.shape), "how many samples"),
    "statistics of the batch": (
        lambda x: F.batch_norm(x, torch.zeros(4), torch.ones(4), training=True),
        "other samples",
    ),
    "one for each": (lambda x: x * torch.arange(3.0)[:, None], "every sample"),
    "so many as it was read with": (lambda x: x.view(3, -1), "numbers of samples only"),
    "their number": (lambda x: x / x.shape[0], "how many samples"),
    "whether there are many": (lambda x: x * (x.size(0) > 100), "how many samples"),
    "how many numbers": (lambda x: x / x.numel(), "how many samples"),
    "as many ones": (lambda x: x * torch.ones_like(x).sum(), "how many samples"),
    "rolled by their number": (lambda x: x.roll(x.shape[0], 1), "how many samples"),
    # Memory
    "a view that is changed": (view_and_change, "uses afterwards"),
    "a part that is changed": (part_and_change, "uses afterwards"),
    "two names of one": (names_of_one, "not those of the layers"),
    "a shape that is changed": (turned, "uses afterwards"),
    "a constant that is changed": (
        lambda x: F.linear(x, (SQUARE * 1).mul_(torch.ones(())) @ x.new_ones(4, 4).mul_(2)),
        "",
    ),
    # Python
    "a type that is asked for": (inside_out, "asks whether it is traced"),
    "a type that is asked for, with an and": (
        lambda x: x if isinstance(x, fx.Proxy) or x.abs().max() < 1e4 else 100 * x,
        "asks whether it is traced",
    ),
    "a sum in another dtype": (lambda x: x.mean(1, keepdim=True, dtype=torch.bfloat16), "leave out dtype"),
    "a look at the bits": (lambda x: x.view(torch.float64), "something else"),
    "a number that is asked for": (lambda x: x if x.sum() > 0 else -x, "does not look at numbers"),
    "two values": (lambda x: (x, x), "one floating tensor"),
    "nothing": (lambda x: None, "one floating tensor"),
    "a constant": (lambda x: torch.zeros_like(x), "does not depend"),
}


@pytest.mark.parametrize("name", TRAPS)
def test_trap_is_loud(name: str) -> None:
    function, reason = TRAPS[name]
    assert reason in refused(Calls(function))


MODULES: dict[str, tuple[nn.Module, tuple[int, ...], str]] = {
    "negative divisor": (nn.AvgPool2d(2, divisor_override=-1), (1, 4, 4), "negative"),
    "softmax without channels": (nn.Softmax2d(), (4, 4), "3 dimensions"),
    "normalisation without channels": (nn.InstanceNorm2d(3), (4, 6), "3 dimensions"),
    "normalisation of all samples": (nn.LayerNorm((3, 4)), (4,), "last dimensions"),
    "another eps for every dtype": (nn.RMSNorm(4), (4,), "eps"),
    "no eps": (nn.LayerNorm(4, eps=0.0), (4,), "eps"),
    "no slope": (nn.ELU(math.nan), (4,), "finite"),
    "endless slope": (nn.ELU(math.inf), (4,), "finite"),
    "endless rate": (nn.CELU(1e-310), (4,), "finite"),
    "a jump": (nn.Softplus(1.0, math.nan), (4,), "jumps"),
    "a window in the padding": (nn.MaxPool1d(2, 1, 1, dilation=2), (1, 1), "padding"),
    "running statistics": (nn.InstanceNorm1d(4, track_running_stats=True), (4, 6), "running statistics"),
    "attention": (nn.MultiheadAttention(4, 2), (3, 4), "not understood"),
    "compiled inside": (nn.Sequential(COMPILED), (4,), "own forward"),
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_module_that_is_no_layer_is_loud(name: str, p: float) -> None:
    module, shape, reason = MODULES[name]
    assert reason in refused(nn.Sequential(module), shape, p)


class Disguised(nn.Linear):
    """Looks like a layer whose weight is computed."""

    def __init__(self) -> None:
        super().__init__(4, 2)
        self.parametrizations = nn.ModuleDict({"weight": nn.Identity()})

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 100 * F.relu(x[..., :1] - 1e4)


def test_forward_that_is_not_torchs_own_is_loud(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "another forward than torch's" in refused(nn.Sequential(Disguised()))
    monkeypatch.setattr(nn.Tanh, "forward", lambda self, x: torch.tanh(x) + 100 * F.relu(x - 1e4))
    assert "module '1' (Tanh) has another forward than torch's" in refused(nn.Sequential(nn.Linear(4, 4), nn.Tanh()))


def test_registered_constant_that_samples_refute_is_loud() -> None:
    class Steep(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sin(3 * x)

    for constant, reason in ((2.9, "steeper than the constant"), (None, "finite number"), (math.nan, "finite number")):
        cl.lipschitz.register(Steep)(lambda layer, shape, p, c=constant: c)  # type: ignore[misc]
        assert reason in refused(nn.Sequential(Steep()))
    cl.lipschitz.register(Steep)(lambda layer, shape, p: 3.0)
    net = nn.Sequential(Steep(), nn.Sigmoid())
    for domain in ("all", "box"):  # what it gives is not known, so that slopes are those over all space
        assert cl.lipschitz.upper(net, torch.zeros(1, 4), domain=domain).value == pytest.approx(0.75)


def test_layer_whose_forward_was_replaced_is_loud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: 50 * F.relu(x))
    assert "ReLU" in refused(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
