"""What fit() checks before it trains, and of the first minibatch: one sentence each."""

from __future__ import annotations

import inspect
import math
import os
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from cheaplip.checks import whole_number
from cheaplip.control import Discrepancy

# No figure of a training comes near it.
LARGEST = 1e300


def check_model(model: Any, loader: Any) -> None:
    """Raise unless there is a model with trainable parameters, and a loader that can be iterated over."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module; got {type(model).__name__}")
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError("the model has no trainable parameter")
    if not hasattr(loader, "__iter__"):
        raise TypeError(f"loader must give minibatches (x, y) when iterated; got {type(loader).__name__}")


def check_plan(
    epochs: Any, lower_every: Any, accumulate: Any, control_per: Any, scheduler_per: Any, scheduler: Any
) -> None:
    """Raise unless it is clear what is done when."""
    for name, count in (("epochs", epochs), ("lower_every", lower_every), ("accumulate", accumulate)):
        whole_number(count, name)
    for name, when in (("control_per", control_per), ("scheduler_per", scheduler_per)):
        if when not in ("batch", "epoch"):
            raise ValueError(f'{name} must be "batch" or "epoch"; got {when!r}')
    if scheduler is None:
        return
    if isinstance(scheduler, type) or not callable(getattr(scheduler, "step", None)):
        raise TypeError(f"scheduler must be a learning rate scheduler, with step(); got {_named(scheduler)}")
    if isinstance(scheduler, ReduceLROnPlateau) and scheduler_per == "batch":
        raise ValueError('ReduceLROnPlateau looks at the loss of an epoch: use scheduler_per="epoch"')


def check_optimizer(optimizer: Any, model: nn.Module) -> None:
    """Raise unless the optimizer can train this model."""
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer must be a torch.optim.Optimizer; got {_named(optimizer)}")
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        name = type(optimizer).__name__
        raise ValueError(f"{name} evaluates the loss several times per step, which fit does not do: use SGD or Adam")
    driven = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not any(id(p) in driven for p in model.parameters()):
        raise ValueError("the optimizer drives no parameter of the model: make it from this model's parameters()")


def check_penalties(penalties: list[Any], controls: list[Any], loss: Any) -> None:
    """Raise unless penalties can be called, and every control drives one of them or the loss."""
    for penalty in penalties:
        if isinstance(penalty, type) or not callable(penalty):
            raise TypeError(f"penalty must be a penalty such as LipschitzPenalty, or a list; got {_named(penalty)}")
    for control in controls:
        if not isinstance(control, Discrepancy):
            raise TypeError(f"control must be a Discrepancy, or a list of them; got {_named(control)}")
        if not any(control.penalty is driven for driven in (*penalties, loss)):
            raise ValueError("a control drives a penalty that is not trained with: pass the same object as penalty")
        if control.measure == "value" and not isinstance(getattr(control.penalty, "value", None), torch.Tensor):
            raise TypeError(
                'a control with measure="value" needs a penalty whose value is a tensor; '
                f"{_named(control.penalty)} has none"
            )


def check_calls(loss: Any, **others: Any) -> None:
    """Raise unless the loss can be called, and all others can or are None."""
    if isinstance(loss, type):
        raise TypeError(f"loss must be a function of outputs and labels; got {_named(loss)}: make one of it first")
    for name, call in {"loss": loss, **others}.items():
        if not callable(call) and (call is not None or name == "loss"):
            raise TypeError(f"{name} must be a function{'' if name == 'loss' else ' or None'}; got {_named(call)}")


def check_surroundings(seed: Any, checkpoint: Any, resume: Any, fabric: Any, progress: Any) -> None:
    """Raise unless seed, checkpoint folder, fabric and switches are usable."""
    if whole_number(seed, "seed", low=0) >= 2**64:
        raise ValueError(f"seed must be below 2**64; got {seed}")
    if not isinstance(resume, bool):
        raise TypeError(f"resume must be True or False; got {_named(resume)}")
    if not (progress is None or isinstance(progress, bool)):
        raise TypeError(f"progress must be True, False or None; got {_named(progress)}")
    if not (checkpoint is None or isinstance(checkpoint, (str, os.PathLike))):
        raise TypeError(f"checkpoint must be the path of a folder, or None; got {_named(checkpoint)}")
    if resume and checkpoint is None:
        raise ValueError("resume=True needs the folder to go on from: pass checkpoint=")
    if fabric is None:
        return
    if not all(hasattr(fabric, name) for name in ("setup", "to_device", "backward", "world_size")):
        raise TypeError(f"fabric must be a lightning_fabric.Fabric, or None; got {_named(fabric)}")


def check_batch(batch: Any) -> None:
    """Raise unless a minibatch is a pair of tensors of one length."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        size = f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
        raise ValueError(f"the loader must give pairs (x, y); got a {type(batch).__name__}{size}")
    x, y = batch
    if not isinstance(x, Tensor) or not isinstance(y, Tensor):
        raise TypeError(f"the loader must give pairs of tensors (x, y); got {_named(x)} and {_named(y)}")
    if x.is_meta or y.is_meta:
        raise ValueError("x and y of a minibatch must hold numbers; got a tensor on the device meta, which has none")
    if not x.dim() or not y.dim() or len(x) != len(y):
        raise ValueError(
            f"x and y of a minibatch must have as many rows; got shapes {tuple(x.shape)} and {tuple(y.shape)}"
        )


def check_loss(value: Any) -> None:
    """Raise unless a loss is one number that can be differentiated."""
    if not isinstance(value, Tensor):
        raise TypeError(f"loss must return a tensor with one entry; got {_named(value)}")
    if value.numel() != 1:
        raise ValueError(f'loss must return one number; got shape {tuple(value.shape)}: use reduction="mean"')
    if not value.requires_grad:
        raise ValueError("loss must be differentiable in the model's parameters; got a tensor without a gradient")


def checked_score(score: Any, epoch: int, name: str = "select") -> float:
    """Return what ``select``, or another measure of that name, gave as a float.

    Raises:
        ValueError: if it is no number, or not finite.
    """
    try:
        value = float(score)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name} must return one number; got {_named(score)} in epoch {epoch}") from None
    if not math.isfinite(value):
        raise ValueError(f"{name} must return a finite score; got {value} in epoch {epoch}")
    return value


def holds_a_training(state: dict[str, Any]) -> bool:
    """Tell whether what no part of the training checks for itself is of the kind that a checkpoint is made of."""
    rows, best = state["rows"], state["best"]
    right = isinstance(rows, list) and isinstance(state["settings"], dict) and isinstance(state["measured"], bool)
    if not right or not isinstance(best, dict) or best.keys() != {"state", "score", "epoch", "eligible"}:
        return False
    if not all(isinstance(value, (int, float, str)) for value in state["settings"].values()):
        return False
    # Each row tells the weights of all penalties that have one.
    with_weight = (name for name, part in state.items() if isinstance(part, dict) and "weight" in part)
    penalties = [int(name[8:]) for name in with_weight if name.startswith("penalty_")]
    columns = {"epoch", "steps", "loss", "seconds"} | {f"weight_{k + 1}" if k else "weight" for k in penalties}
    whole_numbers = [best["epoch"]]
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or not columns <= row.keys():
            return False
        if not all(isinstance(name, str) and isinstance(value, (int, float)) for name, value in row.items()):
            return False
        # A sum of larger ones may be infinite; NaN stands where there is nothing to tell.
        if row["epoch"] != number or any(abs(value) > LARGEST for value in row.values()):
            return False
        whole_numbers.append(row["steps"])
    kept = best["state"] is None or isinstance(best["state"], dict)
    number_like = isinstance(best["score"], (int, float)) and isinstance(best["eligible"], bool)
    return kept and number_like and all(isinstance(n, int) and 0 <= n < 2**63 for n in whole_numbers)


def _named(value: Any) -> str:
    """Return what to call an argument in a sentence: short values by themselves, others by their type."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return repr(value) if isinstance(value, (str, int, float)) else type(value).__name__
