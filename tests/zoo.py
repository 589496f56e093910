"""Small models of every kind that behaves differently in train mode, or looks as if it might."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations


class Branches(nn.Module):
    """A user's layer that looks at its own flag."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * x if self.training else x


class FunctionalDropout(nn.Module):
    """Dropout without a module of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5, training=self.training)


class AsksAProperty(nn.Module):
    """The flag is read in a property."""

    @property
    def noisy(self) -> bool:
        return self.training

    def forward(self, x: Tensor) -> Tensor:
        return 3 * x if self.noisy else x


class AsksInside(nn.Module):
    """The flag is read in a function within the method."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([(lambda row: 3 * row if self.training else row)(row) for row in torch.split(x, 1)])


class AsksAHelper(nn.Module):
    """The flag is read in a function outside of the class."""

    def forward(self, x: Tensor) -> Tensor:
        return tripled_in_training(self, x)


def tripled_in_training(layer: nn.Module, x: Tensor) -> Tensor:
    return 3 * x if layer.training else x


class Counts(nn.Module):
    """A statistic of its own, updated by a decorated method."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    @torch.no_grad()
    def _look(self, x: Tensor) -> None:
        if self.training:
            self.seen += len(x)

    def forward(self, x: Tensor) -> Tensor:
        self._look(x)
        return x


class Foreign(nn.Module):
    """A layer of another package whose name begins with torch, such as torchvision's StochasticDepth."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * x if self.training else x


Foreign.__module__ = "torchvision.ops.stochastic_depth"


class Attention(nn.Module):
    """Self-attention with dropout on its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(4, 2, dropout=0.5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.inner(x, x, x, need_weights=False)[0]
        return output.flatten(1)


class OwnRecurrent(nn.LSTM):
    """A recurrent layer of one's own, without the dropout of torch's."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        return super().forward(F.dropout(input, 0.5, training=self.training), hx)


class Recurrent(nn.Module):
    """A recurrent network whose last output counts."""

    def __init__(self, inner: nn.LSTM | nn.GRU) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.inner(x)[0]
        return output[:, -1]


def hooked() -> nn.Module:
    """Return a layer with a user's hook that looks at the flag."""
    layer = nn.Linear(4, 6)
    layer.register_forward_hook(lambda module, args, output: 3 * output if module.training else output)
    return layer


def spectral(kind: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """Return a layer whose power iteration moves at every call in train mode; it starts far from its limit."""
    layer = kind(nn.Linear(4, 6))
    with torch.no_grad():
        for buffer in layer.buffers():
            buffer.copy_(F.normalize(torch.arange(1.0, buffer.numel() + 1).view_as(buffer), dim=0))
    return layer


def dense(*middle: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), *middle, nn.Tanh(), nn.Linear(6, 3))


def compiled() -> nn.Module:
    net: nn.Module = torch.compile(dense(nn.BatchNorm1d(6), nn.Dropout(0.5)), backend="eager")  # type: ignore[assignment]
    return net


@dataclass(frozen=True)
class Animal:
    """How to build a model, the shape of one input, and whether train mode changes its outputs or its buffers."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = (4,)
    differs: bool = True

    def make(self, seed: int = 0) -> nn.Module:
        """Return the model in train mode, with weights from a seed; the global generator stays as it is."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self.build().train()


ZOO: dict[str, Animal] = {
    "plain": Animal(dense, differs=False),
    "one number in": Animal(lambda: nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 2)), (1,), False),
    "batch norm": Animal(lambda: dense(nn.BatchNorm1d(6))),
    "cumulative batch norm": Animal(lambda: dense(nn.BatchNorm1d(6, momentum=None))),
    "batch norm without statistics": Animal(lambda: dense(nn.BatchNorm1d(6, track_running_stats=False))),
    "images": Animal(
        lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Dropout2d(0.5), nn.Flatten()), (2, 5, 5)
    ),
    "volumes": Animal(
        lambda: nn.Sequential(nn.Conv3d(2, 3, 2), nn.BatchNorm3d(3), nn.Dropout3d(0.5), nn.Flatten()), (2, 3, 3, 3)
    ),
    "dropout": Animal(lambda: dense(nn.Dropout(0.5))),
    "alpha dropout": Animal(lambda: dense(nn.AlphaDropout(0.5))),
    "dropout at zero": Animal(lambda: dense(nn.Dropout(0.0)), differs=False),
    "random slopes": Animal(lambda: dense(nn.RReLU())),
    "instance norm": Animal(
        lambda: nn.Sequential(nn.Conv1d(2, 3, 2), nn.InstanceNorm1d(3, affine=True), nn.Flatten()), (2, 6), False
    ),
    "instance norm with statistics": Animal(
        lambda: nn.Sequential(nn.Conv1d(2, 3, 2), nn.InstanceNorm1d(3, track_running_stats=True), nn.Flatten()), (2, 6)
    ),
    "group norm": Animal(lambda: dense(nn.GroupNorm(2, 6), nn.LayerNorm(6)), differs=False),
    "lstm": Animal(lambda: Recurrent(nn.LSTM(4, 5, num_layers=2, dropout=0.5, batch_first=True)), (3, 4)),
    "gru": Animal(lambda: Recurrent(nn.GRU(4, 5, num_layers=2, dropout=0.5, batch_first=True)), (3, 4)),
    "lstm without dropout": Animal(lambda: Recurrent(nn.LSTM(4, 5, batch_first=True)), (3, 4), False),
    "own lstm": Animal(lambda: Recurrent(OwnRecurrent(4, 5, batch_first=True)), (3, 4)),
    "attention": Animal(Attention, (3, 4)),
    "transformer": Animal(
        lambda: nn.Sequential(nn.TransformerEncoderLayer(4, 2, 8, dropout=0.5, batch_first=True), nn.Flatten()), (3, 4)
    ),
    "own branch": Animal(lambda: dense(Branches())),
    "functional dropout": Animal(lambda: dense(FunctionalDropout())),
    "branch in a property": Animal(lambda: dense(AsksAProperty())),
    "branch in a nested function": Animal(lambda: dense(AsksInside())),
    "branch in a helper": Animal(lambda: dense(AsksAHelper())),
    "own statistics": Animal(lambda: dense(Counts())),
    "layer of torchvision": Animal(lambda: dense(Foreign())),
    "forward hook": Animal(lambda: nn.Sequential(hooked(), nn.Linear(6, 3))),
    "nested": Animal(lambda: nn.Sequential(dense(nn.Sequential(nn.Tanh(), nn.Sequential(nn.Dropout(0.5)))))),
    "weight norm": Animal(lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 6)), nn.Dropout(0.5))),
    "orthogonal": Animal(lambda: nn.Sequential(parametrizations.orthogonal(nn.Linear(4, 4)), nn.BatchNorm1d(4))),
    "orthogonal alone": Animal(lambda: nn.Sequential(parametrizations.orthogonal(nn.Linear(4, 4))), differs=False),
    "spectral norm": Animal(lambda: nn.Sequential(spectral(parametrizations.spectral_norm), nn.Linear(6, 3))),
    "spectral norm by a hook": Animal(lambda: nn.Sequential(spectral(nn.utils.spectral_norm), nn.Linear(6, 3))),
    "compiled": Animal(compiled),
}  # fmt: skip
