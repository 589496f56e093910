"""State that has no ``state_dict`` of its own: λ of simple penalties, generators of loaders, settings."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

# Counters and figures, which training changes.
_CHANGING = {"calls", "draws", "moves", "training", "value", "weight"}

Settings = dict[str, "float | str"]


@final
@dataclass(frozen=True)
class Weight:
    """λ of a penalty whose own state lacks it."""

    penalty: Any

    def state_dict(self) -> dict[str, float]:
        """Return λ."""
        return {"weight": float(self.penalty.weight)}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Set λ, as a tensor where it is one."""
        now, weight = self.penalty.weight, float(state["weight"])
        self.penalty.weight = torch.full_like(now, weight) if isinstance(now, Tensor) else weight


@final
@dataclass(frozen=True)
class Draws:
    """The state of a generator, from which a loader draws its order."""

    generator: torch.Generator

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state."""
        return {"state": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Set the state."""
        self.generator.set_state(state["state"])


def states_of_penalties(penalties: list[Any]) -> dict[str, Any]:
    """Return all of the penalties that has a state, by name; λ of one without a state is among it."""
    parts: dict[str, Any] = {}
    for number, penalty in enumerate(penalties):
        stateful = hasattr(penalty, "state_dict")
        if stateful:
            parts[f"penalty_{number}"] = penalty
        if hasattr(penalty, "weight") and not (stateful and "weight" in penalty.state_dict()):
            parts[f"weight_{number}"] = Weight(penalty)
    return parts


def states_of_loader(loader: Any) -> dict[str, Draws]:
    """Return the generators of a loader and its samplers, by name."""
    found: dict[int, torch.Generator] = {}
    sampler = getattr(loader, "sampler", None)
    batches = getattr(loader, "batch_sampler", None)
    for owner in (loader, sampler, batches, getattr(batches, "sampler", None)):
        generator = getattr(owner, "generator", None)
        if isinstance(generator, torch.Generator):
            found[id(generator)] = generator
    return {f"loader_{number}": Draws(generator) for number, generator in enumerate(found.values())}


def settings_of(owner: Any, name: str) -> Settings:
    """Return the plain attributes of an object and its submodules: numbers as such, all others as words.

    Example:
        >>> settings_of(nn.Dropout(0.5), "layer")
        {'layer': 'Dropout', 'layer.p': 0.5, 'layer.inplace': 'False'}
    """
    settings: Settings = {name: getattr(owner, "__qualname__", type(owner).__qualname__)}
    hidden = vars(nn.Module()).keys() if isinstance(owner, nn.Module) else set()
    for attribute, value in getattr(owner, "__dict__", {}).items():
        if attribute in _CHANGING or attribute in hidden or attribute.startswith("__"):
            continue
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            settings[f"{name}.{attribute}"] = value
        elif (words := _words(value)) is not None:
            settings[f"{name}.{attribute}"] = words
    for child, module in owner._modules.items() if isinstance(owner, nn.Module) else ():
        if module is not None:
            settings |= settings_of(module, f"{name}.{child}")
    return settings


def _words(value: Any) -> str | None:
    """Return a plain value in words, a callable by its name, and None for all else."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    if isinstance(value, (tuple, list)):
        entries = [_words(entry) for entry in value]
        return None if None in entries else f"({', '.join(map(str, entries))})"
    if callable(value) and not isinstance(value, nn.Module):
        return str(getattr(value, "__qualname__", type(value).__qualname__))
    return None


def differing(first: Settings, second: Settings) -> Iterator[str]:
    """Give the names of settings that both have and that differ by more than a device's rounding."""
    for name in first:
        if name in second and not _same(first[name], second[name]):
            yield name


def _same(first: float | str, second: float | str) -> bool:
    if isinstance(first, str) or isinstance(second, str) or first == second:
        return first == second
    if max(abs(first), abs(second)) > sys.float_info.max:
        return False  # a whole number beyond any float
    return math.isclose(first, second, rel_tol=1e-5) or (math.isnan(first) and math.isnan(second))
