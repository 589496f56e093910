"""From the names and settings of penalties to the penalties of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from cheaplip.data import Data
from cheaplip.penalties import (
    AdversarialLipschitzPenalty,
    JacobianPenalty,
    LayerProductPenalty,
    LipschitzPenalty,
    TradesPenalty,
    UpperBoundPenalty,
    WeightPenalty,
)
from cheaplip.settings import LipschitzSettings, TrainSettings


def penalty_of(name: str, settings: TrainSettings, data: Data, model: nn.Module, device: torch.device) -> Any:
    """Return the penalty of that name, on the device.

    Raises:
        ValueError: for settings that do not fit the data.
        TypeError: for a model that the penalty does not understand.

    Example:
        >>> from cheaplip.data import load
        >>> settings = TrainSettings(data="digits", weight=0.5)
        >>> penalty = penalty_of("jacobian", settings, load("digits", seed=0), nn.Linear(64, 10), torch.device("cpu"))
        >>> penalty.projections, penalty.weight.item()
        (1, 0.5)
    """
    return _MAKERS[name](settings, data, model, device).to(device)


def _lipschitz(settings: TrainSettings, data: Data, model: nn.Module, device: torch.device) -> LipschitzPenalty:
    if not len(data.lipschitz):
        raise ValueError("the Lipschitz penalty needs samples in the data's lipschitz split; it is empty")
    arguments = pair_arguments(settings.lipschitz, data)
    x = data.lipschitz.x.to(device)
    return LipschitzPenalty.from_data(x, weight=settings.weight, seed=settings.seed, **arguments)


def pair_arguments(settings: LipschitzSettings, data: Data) -> dict[str, Any]:
    """Return the arguments of :meth:`cheaplip.LipschitzPenalty.from_data`."""
    arguments = asdict(settings)
    temperature = arguments.pop("temperature")
    if settings.reduce == "softmax":
        arguments["reduce"] = ("softmax", temperature)
    return arguments | {"box": data.box if settings.box else None}


def _weight(settings: TrainSettings, data: Data, model: nn.Module, device: torch.device) -> WeightPenalty:
    return WeightPenalty(weight=settings.weight)


def _layers(settings: TrainSettings, data: Data, model: nn.Module, device: torch.device) -> LayerProductPenalty:
    return LayerProductPenalty(model, data.train.x[:1].to(device), weight=settings.weight, seed=settings.seed)


def _bound(settings: TrainSettings, data: Data, model: nn.Module, device: torch.device) -> UpperBoundPenalty:
    return UpperBoundPenalty(model, weight=settings.weight)


def _jacobian(settings: TrainSettings, data: Data, model: nn.Module, device: torch.device) -> JacobianPenalty:
    return JacobianPenalty(weight=settings.weight, **asdict(settings.jacobian))


def _alp(settings: TrainSettings, data: Data, model: nn.Module, device: torch.device) -> AdversarialLipschitzPenalty:
    return AdversarialLipschitzPenalty(weight=settings.weight, **asdict(settings.alp))


def _trades(settings: TrainSettings, data: Data, model: nn.Module, device: torch.device) -> TradesPenalty:
    if data.classes is None:
        raise ValueError(
            f"penalty trades needs data with classes; {data.name} is a regression: take another, such as jacobian"
        )
    return TradesPenalty(weight=settings.weight, box=data.box, **asdict(settings.trades))


_MAKERS: dict[str, Callable[[TrainSettings, Data, nn.Module, torch.device], Any]] = {
    "lipschitz": _lipschitz,
    "weight": _weight,
    "layers": _layers,
    "bound": _bound,
    "jacobian": _jacobian,
    "alp": _alp,
    "trades": _trades,
}
