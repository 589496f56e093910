"""Random networks of everything that upper bounds understand: layers, functions, joins, of wild shapes and scales."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import torch
from pieces import FUNCTIONS, Applied, Joined
from torch import Tensor, nn

Shape: TypeAlias = "tuple[int, ...]"
T = TypeVar("T")

# Numbers that a value inside a network may have at most.
LARGEST = 96
# Where a network of each family begins: how many dimensions one input has.
FAMILIES = {"dense": 1, "signals": 2, "images": 3, "volumes": 4, "joined": 1, "functions": 2, "linear": 2}


@dataclass(frozen=True)
class Drawn:
    """A network in eval mode and float64, the shape of one input, and where it came from."""

    family: str
    seed: int
    shape: Shape
    net: nn.Module


class Draws:
    """Random choices from one generator."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def whole(self, low: int, high: int) -> int:
        """Return a whole number from ``low`` to ``high``."""
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def real(self, low: float, high: float) -> float:
        """Return a number between two."""
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def pick(self, choices: Sequence[T]) -> T:
        """Return one of several."""
        return choices[self.whole(0, len(choices) - 1)]

    def chance(self, share: float) -> bool:
        """Return True so often."""
        return self.real(0, 1) < share

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Return normal numbers."""
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)


def activation(draw: Draws, shape: Shape) -> nn.Module:
    """Return an activation with random slopes."""
    size = draw.real(0.1, 3)
    makers: list[Callable[[], nn.Module]] = [
        *(nn.ReLU, nn.ReLU, nn.ReLU6, nn.Tanh, nn.Sigmoid, nn.SiLU, nn.Mish, nn.GELU, nn.SELU, nn.Softsign),
        *(nn.LogSigmoid, nn.Tanhshrink, nn.Hardswish, nn.Hardsigmoid, nn.RReLU, nn.Identity, nn.Dropout),
        lambda: nn.GELU("tanh"),
        lambda: nn.ReLU(inplace=True),
        lambda: nn.LeakyReLU(draw.real(-2, 2)),
        lambda: nn.ELU(draw.real(-2, 3)),
        lambda: nn.CELU(size),
        lambda: nn.Softplus(size, draw.real(20, 30)),
        lambda: nn.Softshrink(size),
        lambda: nn.Hardtanh(-size, size * draw.real(0, 3)),
        lambda: nn.PReLU(draw.pick([1, shape[0]]), init=draw.real(-2, 2)),
        lambda: nn.Softmax(dim=draw.pick([1, -1])),
        lambda: nn.LogSoftmax(dim=draw.pick([1, -1])),
    ]
    return draw.pick(makers)()


def vectors(draw: Draws, shape: Shape) -> nn.Module:
    """Return a layer for samples of any dimensions that looks at their last or first one."""
    last, eps = shape[-1], 10 ** draw.real(-5, 0)
    makers: list[Callable[[], nn.Module]] = [
        *[lambda: nn.Linear(last, draw.whole(1, 9), bias=draw.chance(0.7))] * 4,
        lambda: nn.LayerNorm(last, eps),
        lambda: nn.LayerNorm(shape, eps, elementwise_affine=False),
        lambda: nn.RMSNorm(last, eps),
        lambda: nn.GroupNorm(draw.pick([k for k in range(1, shape[0] + 1) if shape[0] % k == 0]), shape[0], eps),
        nn.Flatten,
        lambda: nn.Unflatten(1, (1, shape[0])),
    ]
    return draw.pick(makers)()


def spatial(draw: Draws, shape: Shape) -> nn.Module:
    """Return a convolution, pooling, normalisation or padding of 1, 2 or 3 dimensions."""
    channels, d = shape[0], len(shape) - 1

    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw.whole(low, high) for _ in range(d))

    def of(name: str) -> Any:
        return getattr(nn, f"{name}{d}d")

    groups = draw.pick([k for k in range(1, channels + 1) if channels % k == 0])
    outputs = groups * draw.whole(1, 2)
    kernel, stride = each(1, 3), each(1, 3)
    half = tuple(k // 2 for k in kernel)
    mode = draw.pick(["zeros", "zeros", "zeros", "circular", "reflect", "replicate"])
    border = each(0, 2) if mode == "zeros" else each(0, 1)
    makers: list[Callable[[], nn.Module]] = [
        *[
            lambda: of("Conv")(
                channels, outputs, kernel, stride, border, dilation=each(1, 2), groups=groups, padding_mode=mode
            )
        ]
        * 3,
        lambda: of("Conv")(channels, outputs, draw.pick([1, 3]), padding="same", dilation=each(1, 2), groups=groups),
        lambda: of("ConvTranspose")(channels, outputs, kernel, stride, half, groups=groups, dilation=each(1, 2)),
        lambda: of("AvgPool")(kernel, stride, half, ceil_mode=draw.chance(0.5), count_include_pad=draw.chance(0.5)),
        lambda: of("MaxPool")(kernel, stride, half, dilation=each(1, 2), ceil_mode=draw.chance(0.5)),
        lambda: of("AdaptiveAvgPool")(each(1, 4)),
        lambda: of("AdaptiveMaxPool")(each(1, 4)),
        lambda: of("BatchNorm")(channels),
        lambda: of("InstanceNorm")(channels, 10 ** draw.real(-5, 0), affine=draw.chance(0.5)),
        lambda: of("ZeroPad")(each(0, 1) + each(-1, 1)),
        lambda: of("ConstantPad")(each(0, 1) + each(0, 1), draw.real(-2, 2)),
        lambda: of("ReflectionPad")(1),
        lambda: of("ReplicationPad")(each(0, 2) + each(0, 1)),
        lambda: of("CircularPad")(1),
        nn.Flatten,
        lambda: nn.UpsamplingNearest2d(scale_factor=2),
        lambda: nn.PixelShuffle(2),
        lambda: nn.PixelUnshuffle(2),
        lambda: nn.ChannelShuffle(groups),
        *[nn.Softmax2d] * (d == 2),
    ]
    return draw.pick(makers)()


def function(draw: Draws, shape: Shape) -> nn.Module:
    """Return a module that calls a function."""
    return Applied(*draw.pick(list(FUNCTIONS.items())))


def joined(draw: Draws, shape: Shape) -> nn.Module:
    """Return a module that joins branches."""
    inner = chain(draw, shape, [activation, vectors], draw.whole(1, 3))
    for layer in inner.modules():
        if isinstance(layer, nn.ReLU):
            layer.inplace = False  # the branch's input is used again
    return Joined(draw.pick(list(Joined.FORMS)), inner, draw.real(-2, 2))


def linear(draw: Draws, shape: Shape) -> nn.Module:
    """Return a linear layer of any kind."""
    while True:
        layer = draw.pick([vectors, spatial] if 2 <= len(shape) <= 4 else [vectors])(draw, shape)
        if not isinstance(layer, (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.Softmax2d)) and not any(
            word in type(layer).__name__ for word in ("Max", "Instance", "ConstantPad")
        ):
            return layer


def outputs_of(layer: nn.Module, shape: Shape) -> Shape | None:
    """Return the shape of what a layer gives; None where it does not take such inputs, or gives too much."""
    try:
        with torch.no_grad():
            values = [layer(torch.rand(n, *shape, dtype=torch.float64)) for n in (2, 4)]
    except (RuntimeError, ValueError, IndexError, NotImplementedError):
        return None
    after = tuple(values[0].shape[1:])
    good = tuple(tuple(value.shape) for value in values) == ((2, *after), (4, *after)) and len(after) > 0
    # A window of MaxPool that lies in the padding alone gives minus infinity.
    finite = all(not bool(torch.isinf(value).any()) for value in values)
    return after if good and finite and 0 < math.prod(after) <= LARGEST else None


def settle(draw: Draws, layer: nn.Module, wild: bool) -> None:
    """Give a layer random weights and statistics, of a random size."""
    size = 10 ** draw.real(-1, 1)
    if wild:
        size *= 10 ** (draw.pick([-1, 1]) * draw.real(3, 40))
    with torch.no_grad():
        for value in layer.parameters():
            if not isinstance(layer, nn.PReLU):
                rows = 10 ** draw.normal((len(value), *[1] * (value.dim() - 1))) if draw.chance(0.2) else 1.0
                value.copy_(size * rows * draw.normal(value.shape) / math.sqrt(max(1, value[0].numel())))
        for name, buffer in layer.named_buffers():
            if name == "running_var":
                buffer.copy_(10 ** draw.normal(buffer.shape))
            elif name == "running_mean":
                buffer.copy_(draw.normal(buffer.shape))


def chain(draw: Draws, shape: Shape, makers: Sequence[Callable[[Draws, Shape], nn.Module]], count: int) -> nn.Module:
    """Return layers in a row."""
    layers: list[nn.Module] = []
    wild = draw.chance(0.15)
    for _ in range(10 * count):
        kinds = [maker for maker in makers if maker is not spatial or 2 <= len(shape) <= 4]
        layer = draw.pick(kinds or [vectors])(draw, shape).double().eval()
        if not isinstance(layer, Joined):
            settle(draw, layer, wild and draw.chance(0.5))
        after = outputs_of(layer, shape)
        if after is not None:
            layers.append(layer)
            shape = after
        if len(layers) == count:
            break
    return nn.Sequential(*layers)


MAKERS: dict[str, list[Callable[[Draws, Shape], nn.Module]]] = {
    "dense": [vectors, activation],
    **{family: [spatial, spatial, spatial, activation, vectors] for family in ("signals", "images", "volumes")},
    "joined": [joined, joined, activation, vectors],
    "functions": [function, function, vectors, spatial],
    "linear": [linear],
}


def draw_network(family: str, seed: int) -> Drawn:
    """Return a random network of a family.

    Args:
        family: one of ``FAMILIES``.
        seed: decides everything; the same seed gives the same bits.
    """
    with torch.random.fork_rng(devices=[]):  # layers draw their first weights from the global generator
        torch.manual_seed(seed)
        draw = Draws(seed)
        sides = {1: (1, 9), 2: (1, 7), 3: (1, 5), 4: (1, 4)}[FAMILIES[family]]
        shape = tuple(draw.whole(*sides) for _ in range(FAMILIES[family]))
        shape = (*shape[:1], *(max(side, 2) for side in shape[1:]))
        net = chain(draw, shape, MAKERS[family], draw.whole(1, 6))
        if not len(net):  # type: ignore[arg-type]
            net.append(nn.Identity())  # type: ignore[operator]
    return Drawn(family, seed, shape, net.double().eval())
