"""From settings to what a training loop needs: model, optimizer, penalties, controls, adversary."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from cheaplip.attacks import PGD, one_step
from cheaplip.control import Discrepancy
from cheaplip.data import BatchLoader, Data
from cheaplip.evaluation import evaluate
from cheaplip.lipschitz import lower
from cheaplip.models import build
from cheaplip.runs.penalizing import penalty_of
from cheaplip.settings import TrainSettings

# The adversary of Madry et al. in training, and an attack strong enough to tell epochs apart.
TRAIN_STEPS, SELECT_STEPS, SELECT_IMAGES = 7, 20, 500


@final
@dataclass(frozen=True, eq=False)
class Parts:
    """What :func:`cheaplip.fit` is called with."""

    model: nn.Module
    loader: BatchLoader
    loss: Callable[[Tensor, Tensor], Tensor]
    optimizer: torch.optim.Optimizer
    scheduler: Any
    penalties: list[Any]
    controls: list[Discrepancy]
    adversary: Any
    select: Callable[[nn.Module], float] | None
    accuracy: Callable[[nn.Module], float] | None
    lower: Callable[[nn.Module], float]


def device_of(name: str) -> torch.device:
    """Return the device of a setting.

    Raises:
        ValueError: for cuda where there is none.
    """
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise ValueError("device cuda was asked for, but torch finds none here: use device auto or cpu")
    return torch.device("cuda" if found and name != "cpu" else "cpu")


def full_name(settings: TrainSettings, data: Data) -> str:
    """Return the model's name; without one in the settings, that of a small mlp that fits the data.

    Raises:
        ValueError: if no mlp does, since a sample has more than a row of values.
    """
    if settings.model is not None:
        return settings.model
    values = data.train.y.shape[1:]
    if len(values) > 1:
        raise ValueError(f"model must be given for data with values of shape {tuple(values)}, such as pkg.mod:factory")
    return f"mlp:{math.prod(data.shape)}-64-64-{values[0] if data.classes is None else data.classes}:relu"


def full_rate(settings: TrainSettings, model: str) -> float:
    """Return the learning rate; without one in the settings, that which served the model's activation best."""
    kind, *details = model.split(":")
    saturates = kind == "mlp" and (details[1] if len(details) > 1 else "sigmoid") in ("sigmoid", "tanh")
    return settings.learning_rate or (0.3 if saturates else 0.1)


def shows(progress: bool | None) -> bool:
    """Tell whether bars are shown: by default if standard error is a terminal."""
    return sys.stderr.isatty() if progress is None else progress


def assemble(settings: TrainSettings, data: Data, device: torch.device) -> Parts:
    """Make all parts of a run.

    Raises:
        ValueError: for settings that do not fit the data.
        TypeError: for a model that a penalty does not understand.
    """
    name, free = full_name(settings, data), data.classes is None
    model = build(name, shape=data.shape, classes=data.classes, seed=settings.seed, free=free).to(device)
    x, y = data.train.x.to(device), data.train.y.to(device)
    _check_outputs(model, x[:1], y[:1])
    loader = BatchLoader(x, y, settings.batch_size, seed=settings.seed)
    rate = full_rate(settings, full_name(settings, data))
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=settings.momentum)
    scheduler = None
    if settings.schedule == "cosine":
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs * len(loader))
    penalties = [penalty_of(name, settings, data, model, device) for name in settings.penalties]
    loss = nn.functional.mse_loss if data.classes is None else nn.functional.cross_entropy
    return Parts(
        model=model,
        loader=loader,
        loss=loss,
        optimizer=optimizer,
        scheduler=scheduler,
        penalties=penalties,
        controls=[] if settings.target is None else [_control(p, settings, data) for p in penalties],
        adversary=_adversary(settings, data),
        select=_selection(settings, data),
        accuracy=None if settings.select == "last" else _accuracy(data),
        lower=_watch(settings, data),
    )


def _check_outputs(model: nn.Module, x: Tensor, y: Tensor) -> None:
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            shape = model.eval()(x).shape
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"the model must take the data's {x.dtype} inputs; on one it raised: {reason}: leave out .double() or "
            ".half()"
        ) from error
    if not y.is_floating_point():
        return
    if shape != y.shape:
        raise ValueError(
            f"the model gives outputs of shape {tuple(shape[1:])}, but the data wants {tuple(y.shape[1:])} for each "
            "sample: change the model, or the data"
        )


def _control(penalty: Any, settings: TrainSettings, data: Data) -> Discrepancy:
    control = settings.control
    measure = "value" if control.measure == "value" else "loss" if data.classes is None else "accuracy"
    if measure == "loss" and settings.target == TrainSettings.target and not settings.resume:
        raise ValueError(
            f"target must be given for {data.name}, which has no classes; got the default, {settings.target:g}, which "
            "is an accuracy: give the loss to hold, or null for a λ that stays"
        )
    return Discrepancy(
        penalty,
        target=settings.target or 0.0,
        step=control.step,
        measure=measure,
        rule=control.rule,
        warmup=control.warmup,
        floor=control.floor,
    )


def _adversary(settings: TrainSettings, data: Data) -> PGD | None:
    if settings.adversary == "none":
        return None
    _needs_classes(data, f"adversary {settings.adversary}")
    if settings.adversary == "one-step":
        return one_step(settings.adversary_eps, box=data.box)
    return PGD(settings.adversary_eps, steps=TRAIN_STEPS, box=data.box, loss="cross-entropy", early_stop=False)


def _selection(settings: TrainSettings, data: Data) -> Callable[[nn.Module], float] | None:
    if settings.select == "last":
        return None
    _needs_classes(data, "select robust")
    if not len(data.selection):
        raise ValueError("select robust needs samples in the data's selection split, which is empty: use select last")
    attack = PGD(settings.select_eps, steps=SELECT_STEPS, box=data.box)

    def robustness(model: nn.Module) -> float:
        # Every epoch, to rank epochs: no doubts are asked for, which would attack again each time.
        found = evaluate(model, data.selection, {"pgd": attack}, seed=settings.seed, limit=SELECT_IMAGES, doubt=False)
        return found["pgd"].accuracy

    return robustness


def _accuracy(data: Data) -> Callable[[nn.Module], float]:
    # All of them: 10,000 were off by 0.7 points, which decides whether an epoch is within a point of the target.
    return lambda model: evaluate(model, data.train, doubt=False)["clean"].accuracy


def starts(data: Data, model: nn.Module) -> Tensor:
    """Return where searches for steep pairs start, on the model's device."""
    return (data.lipschitz if len(data.lipschitz) else data.train).x.to(next(model.parameters()).device)


def _watch(settings: TrainSettings, data: Data) -> Callable[[nn.Module], float]:
    """Return a search stronger than the penalty's, in the same box, at the cost of a few hundred training steps."""
    pairs = settings.lipschitz
    box = data.box if pairs.box else None

    def search(model: nn.Module) -> float:
        x, seed = starts(data, model), settings.seed
        return lower(model, x, p_in=pairs.p_in, p_out=pairs.p_out, box=box, pairs=16, steps=40, seed=seed).value

    return search


def _needs_classes(data: Data, what: str) -> None:
    if data.classes is None:
        raise ValueError(f"{what} needs data with classes; {data.name} is a regression")
