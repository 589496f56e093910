"""How long a search may be by default: counted on the model, not timed, so that every machine finds the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, final

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from cheaplip.modes import Model
from cheaplip.pairs.steepness import apply

# How many pairs climb, and how many moves they make, in a network of up to FULL multiplications a sample. In a larger
# one there are fewer, so that their product falls as the network grows; measured on several networks, this is how a
# given number of evaluations finds most.
PAIRS, STEPS, FULL = 64, 100, 10**6
SHARES = (0.6, 0.4)
LEAST = 4
# What it takes to make and keep a number, in multiplications of a matrix product.
ELEMENT = 16


@final
class Elements(TorchFunctionMode):
    """Within it, the numbers are counted that functions of torch return.

    Example:
        >>> with Elements() as elements:
        ...     _ = torch.relu(torch.ones(3)) + 1
        >>> elements.count
        9
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the function, and count what it returns."""
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(part, Tensor) and part.is_floating_point():
                self.count += part.numel()
        return result


def work(function: Model, x: Tensor) -> int:
    """Count what a sample costs, in multiplications: those of matrix products and convolutions, and some for the rest.

    Args:
        function: any function of a batch.
        x: inputs ``(n, *input)``; the first two are run.

    Example:
        >>> work(torch.nn.Linear(1000, 100), torch.zeros(2, 1000))
        101600
    """
    few = x[:2]
    flops = FlopCounterMode(display=False)
    with torch.no_grad(), flops, Elements() as elements:
        apply(function, few)
    return int(flops.get_total_flops() // 2 + ELEMENT * elements.count) // len(few)


def effort(function: Model, x: Tensor) -> tuple[int, int]:
    """Return how many pairs climb by default, and how many moves they make.

    Args:
        function: any function of a batch.
        x: inputs ``(n, *input)``.

    Example:
        >>> effort(torch.nn.Linear(100, 10), torch.zeros(2, 100))
        (64, 100)
        >>> effort(torch.nn.Linear(10000, 1000), torch.zeros(2, 10000))
        (16, 40)
    """
    part = min(1.0, FULL / max(1, work(function, x)))
    pairs, steps = (round(full * part**share) for full, share in zip((PAIRS, STEPS), SHARES, strict=True))
    return max(LEAST, pairs), max(LEAST, steps)
