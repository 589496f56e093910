"""train(): all that the command ``cheaplip train`` does."""

from __future__ import annotations

import math
import os
import shlex
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cheaplip.data import Data, Split, load
from cheaplip.evaluation import evaluate
from cheaplip.lipschitz import lower, upper
from cheaplip.modes import evaluating
from cheaplip.runs.folder import (
    CONFIG,
    METRICS,
    Config,
    attacked,
    finished,
    occupied,
    read_config,
    save_weights,
    versions,
    write_config,
    write_result,
)
from cheaplip.runs.parts import Parts, assemble, device_of, full_name, full_rate, shows, starts
from cheaplip.settings import TrainSettings, settings_of
from cheaplip.training import History, checkpoint, fit

# Where a run and its data lie may change between a run and its resumption.
FREE = ("out", "resume", "data_dir")
BATCH = 1000  # samples at a time when the loss is measured


def train(settings: TrainSettings, *, progress: bool | None = None) -> Path:
    """Train a network and leave a run folder: settings, history, selected weights, results and a checkpoint.

    Args:
        settings: all settings of the run; see :class:`cheaplip.settings.TrainSettings`.
        progress: show bars; by default if standard error is a terminal.

    Returns:
        The run folder. A run that is finished already is left as it is.

    Raises:
        ValueError: for settings that do not fit the data or each other, a folder that holds a run (without
            ``resume``) or another one (with it), or one that cannot be written to.
        FileNotFoundError: if data is missing.
        ImportError: if a package is missing; it names the extra to install.

    Reference: Bungert et al. 2021, Algorithm 2.

    Example:
        >>> train(TrainSettings(out=f"{__file__}/run"))
        Traceback (most recent call last):
        ValueError: cannot write into ...: choose another folder
    """
    folder = folder_of(settings)
    settings = check_folder(folder, settings)
    if finished(folder):
        return folder
    device = device_of(settings.device)
    data = load(settings.data, data_dir=settings.data_dir, seed=settings.seed)
    name = full_name(settings, data)
    settings = replace(settings, model=name, learning_rate=full_rate(settings, name))
    parts = assemble(settings, data, device)
    found = attacked(folder)
    history = _fitted(folder, Config(settings, data.shape, data.classes, versions()), parts, progress)
    history.save(folder / METRICS)
    save_weights(folder, parts.model)
    write_result(folder, _result(settings, data, parts, history, shows(progress)) | found)
    return folder


def _fitted(folder: Path, config: Config, parts: Parts, progress: bool | None) -> History:
    """Train; a run that ends before its first checkpoint leaves nothing that bars the next one."""
    settings, new, begun = config.settings, not folder.exists(), (folder / CONFIG).exists()
    if not begun:  # a resumed run keeps what it was begun with
        write_config(folder, config)
    try:
        return fit(
            parts.model,
            parts.loader,
            loss=parts.loss,
            optimizer=parts.optimizer,
            epochs=settings.epochs,
            penalty=parts.penalties,
            control=parts.controls,
            control_per=settings.control.per,
            scheduler=parts.scheduler,
            scheduler_per="batch",
            adversary=parts.adversary,
            select=parts.select,
            accuracy=parts.accuracy,
            lower=parts.lower,
            lower_every=settings.lower_every,
            seed=settings.seed,
            checkpoint=folder,
            resume=True,
            progress=progress,
        )
    except BaseException:
        if not begun and not (folder / checkpoint.FILE).exists():
            (folder / CONFIG).unlink(missing_ok=True)
            if new and not any(folder.iterdir()):
                folder.rmdir()
        raise


def folder_of(settings: TrainSettings) -> Path:
    """Return the run folder of settings: ``out``, or ``runs/DATA-PENALTY-SEED``.

    Example:
        >>> folder_of(TrainSettings(data="mnist", adversary="pgd", seed=3)).name
        'mnist-lipschitz-pgd-3'
    """
    if settings.out is not None:
        return Path(settings.out).expanduser()
    adversary = [] if settings.adversary == "none" else [settings.adversary]
    name = "-".join([settings.data, settings.penalty, *adversary, str(settings.seed)])
    return Path("runs") / "".join(c if c.isalnum() or c in "-+._" else "." for c in name)


def check_folder(folder: Path, settings: TrainSettings) -> TrainSettings:
    """Raise unless the run may be written into the folder; return its settings."""
    there = occupied(folder)
    if there and not settings.resume:
        raise ValueError(
            f"{folder} already holds a run ({', '.join(there)}): go on with it by --resume (resume=True), "
            "or choose another folder by --out"
        )
    check_writable(folder)
    if not there:
        return settings
    begun = read_config(folder)
    if settings.model is None:
        settings = replace(settings, model=begun.settings.model)
    if settings.learning_rate is None:
        settings = replace(settings, learning_rate=begun.settings.learning_rate)
    for setting in settings_of(TrainSettings):
        old, new = _look_up(begun.settings, setting.name), _look_up(settings, setting.name)
        if setting.name not in FREE and old != new:
            raise ValueError(
                f"{folder} holds a run with {setting.name} = {_text(old)}, got {_text(new)}: resume it with "
                f"`{_resuming(folder)}`, or choose another folder by --out"
            )
    wrote, now = begun.versions.get("cheaplip"), versions()["cheaplip"]
    if wrote != now and not finished(folder):
        raise ValueError(
            f"{folder} was begun by cheaplip {wrote}, this is {now}: resume with that version, or start anew"
        )
    return settings


def _resuming(folder: Path) -> str:
    words = ("cheaplip", "train", "--config", str(folder / CONFIG), "--out", str(folder), "--resume")
    return shlex.join(words)


def check_writable(folder: Path) -> None:
    """Raise ValueError unless a folder can be written to, or made; nothing is left behind, as bad input is to do."""
    nearest = folder
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        why = "is not writable" if nearest.is_dir() else "is no folder"
        raise ValueError(f"cannot write into {folder}, as {nearest} {why}: choose another folder")


def _look_up(settings: TrainSettings, name: str) -> Any:
    value: Any = settings
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _text(value: Any) -> str:
    return "null" if value is None else str(value)


def _result(settings: TrainSettings, data: Data, parts: Parts, history: History, shown: bool) -> dict[str, Any]:
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
