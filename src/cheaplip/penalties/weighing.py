"""How a Lipschitz constant enters a loss: what penalties check alike, and λ · Lip^power."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from cheaplip.checks import number


def check_weight(weight: float) -> float:
    """Return a penalty's weight as a float, or raise: it must be a finite number of at least 0."""
    return number(weight, "weight (λ)", low=0)


def assign(penalty: nn.Module, name: str, value: Any) -> None:
    """Set an attribute of a penalty, as its ``__setattr__``: λ may be set by a number, which becomes a tensor."""
    weight = penalty.__dict__.get("_buffers", {}).get("weight") if name == "weight" else None
    if weight is not None:
        if not isinstance(value, Tensor):
            value = weight.new_tensor(check_weight(value))
        elif value.shape != weight.shape:
            raise ValueError(f"weight (λ) must be one number; got a tensor of shape {tuple(value.shape)}")
        elif value.is_cpu:  # a look at a GPU's tensor would make it wait
            check_weight(value.item())
    nn.Module.__setattr__(penalty, name, value)


def check_power(power: int) -> int:
    """Return the power, or raise: it must be 1 or 2."""
    if not isinstance(power, int) or power not in (1, 2):
        raise ValueError(f"power must be 1 or 2; got {power!r}")
    return power


def check_cap(cap: float | None) -> float | None:
    """Return the cap of an argument, None where nothing reaches it; raise ``ValueError`` unless it is above 0."""
    if cap is not None and not (isinstance(cap, (int, float)) and cap > 0):
        raise ValueError(f"cap must be above 0, or None for no cap; got {cap!r}")
    return None if cap == math.inf else cap


def weighted(value: Tensor, weight: Tensor, power: int, cap: float | None) -> Tensor:
    """Return λ · Lip^power; above the cap value and gradient are scaled down together."""
    if cap is not None:
        value = value * (cap / value.detach().clamp_min(cap))
    return weight * (value if power == 1 else value.square())
