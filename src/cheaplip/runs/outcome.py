"""What ``result.json`` holds when training ends: accuracy, and the interval of the Lipschitz constant."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import torch

from cheaplip.data import Data, Split
from cheaplip.evaluation import evaluate
from cheaplip.lipschitz import lower, upper
from cheaplip.modes import evaluating
from cheaplip.runs.parts import Parts, starts
from cheaplip.settings import TrainSettings
from cheaplip.training import History

BATCH = 1000  # samples at a time when the loss is measured


def result_of(settings: TrainSettings, data: Data, parts: Parts, history: History, shown: bool) -> dict[str, Any]:
    """Return what ``result.json`` holds after training; a key is absent where there is nothing to say."""
    result: dict[str, Any] = {"data": settings.data, "model": settings.model, "penalty": settings.penalty}
    if parts.controls:
        result["target"] = settings.target
    result |= {"seed": settings.seed, "epochs": len(history), "steps": int(history[-1]["steps"]), "kept": history.kept}
    key, quality = ("loss", _loss) if data.classes is None else ("accuracy", _accuracy)
    result[key] = {"train": quality(parts, data.train, shown), "clean": quality(parts, data.test, shown)}
    p_in, p_out = settings.lipschitz.p_in, settings.lipschitz.p_out
    with saying("searching for the steepest pair", shown):
        bound = lower(parts.model, starts(data, parts.model), p_in=p_in, p_out=p_out, seed=settings.seed)
    result["lipschitz"] = {"lower": bound.value, "method": bound.method, "domain": bound.domain}
    result["lipschitz"] |= {"p_in": str(p_in), "p_out": str(p_out)}
    if p_in == p_out:
        # The quick proof, the same on every machine; `cheaplip bounds` takes its time for a better one.
        method = "eclipse" if p_in == 2 else "product"
        # A model that no proof covers has no upper bound; `cheaplip bounds` says why.
        with suppress(TypeError, ValueError), evaluating(parts.model):
            above = upper(parts.model, data.train.x[:1], p=p_in, method=method)
            if math.isfinite(above.value):
                result["lipschitz"] |= {"upper": above.value, "upper_method": above.method}
    kept = history[history.kept - 1]
    weights = [kept["weight" if k == 1 else f"weight_{k}"] for k in range(1, len(parts.penalties) + 1)]
    if weights:
        result["weight"] = weights[0]
    if len(weights) > 1:
        result["weights"] = dict(zip(settings.penalties, weights, strict=True))
    result["seconds"] = {"train": sum(history.column("seconds"))}
    return result


def saying(text: str, shown: bool) -> AbstractContextManager[Any]:
    """Say what takes its time; for a large network it is more than seconds."""
    if not shown:
        return nullcontext()
    from rich.console import Console

    return Console(stderr=True).status(text)


def _accuracy(parts: Parts, split: Split, shown: bool) -> float:
    return evaluate(parts.model, split, progress=shown)["clean"].accuracy


def _loss(parts: Parts, split: Split, shown: bool) -> float:
    device, total = next(parts.model.parameters()).device, 0.0
    with torch.no_grad():
        for start in range(0, len(split), BATCH):
            x, y = split.x[start : start + BATCH].to(device), split.y[start : start + BATCH].to(device)
            total += len(x) * float(parts.loss(parts.model(x), y))
    return total / len(split)
