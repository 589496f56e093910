"""A gallery of models, each with what is known about its Lipschitz constant, or the reason why no upper bound exists.

python examples/gallery.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import cheaplip as cl


class Block(nn.Module):
    """Two convolutions with BatchNorm, and a way around them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(x + f(x))."""
        return torch.relu(x + self.second(torch.relu(self.first(x))))


class Last(nn.Module):
    """The last output of a recurrent layer, through a linear one."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.LSTM(4, 16, batch_first=True), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return three numbers for a sequence."""
        outputs, _ = self.inner(x)
        result: Tensor = self.outer(outputs[:, -1])
        return result


def transformer() -> nn.Module:
    """Return a transformer's layer on eight tokens."""
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    return nn.Sequential(nn.Linear(4, 16), layer, nn.Flatten(), nn.Linear(128, 3))


def residual() -> nn.Module:
    """Return a small residual network."""
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), Block(4), Block(4), *head)


def convolutional() -> nn.Module:
    """Return a small convolutional network."""
    start = (nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    return nn.Sequential(*start, nn.Flatten(), nn.Linear(96, 32), nn.ReLU(), nn.Linear(32, 10))


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(20, 5), (20,)),
    "MLP 64-32-32-10, ReLU": (
        lambda: nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)),
        (64,),
    ),
    "MLP 64-32-32-10, GELU": (
        lambda: nn.Sequential(nn.Linear(64, 32), nn.GELU(), nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 10)),
        (64,),
    ),
    "CNN, 8 x 8 images": (convolutional, (1, 8, 8)),
    "ResNet with BatchNorm, 8 x 8 images": (residual, (1, 8, 8)),
    "LSTM, 12 steps": (Last, (12, 4)),
    "transformer's layer, 8 tokens": (transformer, (8, 4)),
}


def row_of(name: str, steps: int) -> str:
    """Return a row of the table: the interval, or the lower bound and why there is no upper one."""
    make, shape = MODELS[name]
    torch.manual_seed(0)
    model = make().eval()
    x = torch.rand(50, *shape)
    begun = time.perf_counter()
    lower = cl.lipschitz.lower(model, x, pairs=16, steps=steps)
    try:
        bound = cl.lipschitz.upper(model, x, seconds=60)
    except TypeError as error:
        return f"| {name} | {lower.value:.4g} | none: {str(error).partition(': put')[0]} | | | |"
    seconds = time.perf_counter() - begun
    ratio = bound.value / lower.value
    return f"| {name} | {lower.value:.4g} | {bound.value:.4g} | {bound.method} | {ratio:.2f} | {seconds:.1f} |"


def main() -> None:
    """Print the gallery as a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60, help="of the search for the lower bound")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    options = parser.parse_args()
    print("| model | lower | upper | method | ratio | seconds |\n|---|---|---|---|---|---|")
    for name in options.models:
        print(row_of(name, options.steps), flush=True)


if __name__ == "__main__":
    main()
