"""Functions and joins that random networks are made of, as users write them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _halves_apart(x: Tensor) -> Tensor:
    first, second = x.chunk(2, 1)
    return first - 0.5 * second


def _parts_turned(x: Tensor) -> Tensor:
    first, second = torch.split(x, [1, x.shape[1] - 1], dim=1)
    return torch.cat([second, first.relu(), second], 1)


def _in_place(x: Tensor) -> Tensor:
    y = x * 1.5
    y += 0.1
    return F.relu_(y.mul_(2))


def _spread(x: Tensor) -> Tensor:
    return x + x.mean(-1, keepdim=True)


def _with_zeros(x: Tensor) -> Tensor:
    return torch.cat([x, torch.zeros_like(x), x.new_ones(x.shape)], 1)


def _unbound(x: Tensor) -> Tensor:
    return torch.stack([part.tanh() for part in (x.unbind(1)[0], x.unbind(1)[-1])], dim=1)


# By what an error or a table calls them.
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "F.relu": F.relu,
    "torch.relu": torch.relu,
    "relu()": lambda x: x.relu(),
    "F.leaky_relu": lambda x: F.leaky_relu(x, negative_slope=-0.3),
    "F.elu": lambda x: F.elu(x, 1.5),
    "F.gelu": lambda x: F.gelu(x, approximate="tanh"),
    "F.silu": F.silu,
    "F.softplus": lambda x: F.softplus(x, 2.0, 25),
    "F.hardtanh": lambda x: F.hardtanh(x, -0.5, 2.0),
    "F.softshrink": lambda x: F.softshrink(x, 0.3),
    "F.logsigmoid": F.logsigmoid,
    "torch.tanh": torch.tanh,
    "sigmoid()": lambda x: x.sigmoid(),
    "abs": torch.abs,
    "clamp": lambda x: x.clamp(-0.3, 0.5),
    "clamp one side": lambda x: torch.clamp(x, min=0.1),
    "minus": lambda x: -x,
    "times": lambda x: 2.5 * x,
    "over": lambda x: x / -0.3,
    "plus": lambda x: x - 1.5,
    "less": lambda x: 1 - x,
    "flip": lambda x: x.flip(1),
    "roll": lambda x: torch.roll(x, 1, -1),
    "sum": lambda x: x.sum(1, keepdim=True),
    "mean": lambda x: x.mean(dim=-1, keepdim=True),
    "cumsum": lambda x: x.cumsum(1),
    "F.softmax": lambda x: F.softmax(x, dim=1),
    "log_softmax()": lambda x: x.log_softmax(-1),
    "F.layer_norm": lambda x: F.layer_norm(x, x.shape[1:]),
    "expand": lambda x: x.unsqueeze(1).expand(-1, 2, -1, -1),
    "repeat": lambda x: torch.repeat_interleave(x, 2, dim=1),
    "every other": lambda x: x[:, ::2],
    "last": lambda x: x[..., -1:],
    "transpose": lambda x: x.transpose(1, -1),
    "reshape": lambda x: x.reshape(x.shape[0], -1),
    "view": lambda x: x.contiguous().view(x.size(0), 1, -1),
    "pad": lambda x: F.pad(x, (1, 0)),
    "pool": lambda x: F.max_pool1d(x, 2, stride=1),
    "average": lambda x: F.avg_pool1d(x, 2, 1, ceil_mode=True),
    "interpolate": lambda x: F.interpolate(x, scale_factor=2, mode="linear"),
    "dropout": lambda x: F.dropout(x, 0.5, training=False),
    "halves apart": _halves_apart,
    "parts turned": _parts_turned,
    "in place": _in_place,
    "spread": _spread,
    "with zeros": _with_zeros,
    "unbound": _unbound,
}


class Applied(nn.Module):
    """Calls a function."""

    def __init__(self, name: str, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.name, self.function = name, function

    def extra_repr(self) -> str:
        """Name the function."""
        return self.name

    def forward(self, x: Tensor) -> Tensor:
        """Return what it gives."""
        return self.function(x)


class Joined(nn.Module):
    """Joins a branch with its input, where the shapes fit, or with itself.

    Args:
        form: how, one of ``FORMS``.
        inner: the branch.
        factor: of one of the terms.
    """

    FORMS: ClassVar[dict[str, Callable[[Tensor, Callable[[Tensor], Tensor], float], Any]]] = {
        "residual": lambda x, f, c: x + f(x),
        "scaled": lambda x, f, c: torch.add(x, f(x), alpha=c),
        "difference": lambda x, f, c: f(x) - c * x,
        "twice": lambda x, f, c: f(f(x)),
        "beside": lambda x, f, c: torch.cat([f(x), c * f(x)], 1),
        "beside the input": lambda x, f, c: torch.cat([x, f(x)], dim=1),
        "stacked": lambda x, f, c: torch.stack([f(x), f(c * x)], -1),
        "sum of shifts": lambda x, f, c: f(x) + f(x + c).mul(c),
        "itself": lambda x, f, c: f(x) - f(x),
        "far sum": lambda x, f, c: f(x).flatten(1).sum(1, keepdim=True) + x.flatten(1),
    }

    def __init__(self, form: str, inner: nn.Module, factor: float) -> None:
        super().__init__()
        self.form, self.inner, self.factor = form, inner, factor

    def extra_repr(self) -> str:
        """Name the form."""
        return self.form

    def forward(self, x: Tensor) -> Tensor:
        """Return both, joined."""
        result: Tensor = self.FORMS[self.form](x, self.inner, self.factor)
        return result
