"""train(): all that the command ``cheaplip train`` does."""

from __future__ import annotations

import os
import shlex
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cheaplip.data import Data, load
from cheaplip.files import alone
from cheaplip.modes import flushed
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
from cheaplip.runs.outcome import result_of
from cheaplip.runs.parts import Parts, assemble, device_of, full_name, full_rate, shows
from cheaplip.runs.processes import dissolve, first, launched
from cheaplip.settings import TrainSettings, settings_of
from cheaplip.training import History, checkpoint, fit

if TYPE_CHECKING:
    from lightning_fabric import Fabric

# Where a run and its data lie may change between a run and its resumption.
FREE = ("out", "resume", "data_dir")


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
    fabric = launched(settings)
    try:
        return _train(folder, settings, fabric, progress)
    finally:
        if fabric is not None:
            dissolve()


def _train(folder: Path, settings: TrainSettings, fabric: Fabric | None, progress: bool | None) -> Path:
    """Train in this process; of several the first writes the folder."""
    device = device_of(settings.device) if fabric is None else fabric.device
    data = load(settings.data, data_dir=settings.data_dir, seed=settings.seed)
    _check_same_data(folder, data)
    name, asked = full_name(settings, data), settings
    settings = replace(settings, model=name, learning_rate=full_rate(settings, name))
    parts = assemble(settings, data, device)
    config, new = Config(settings, data.shape, data.classes, versions()), not folder.exists()
    with alone(folder) if first(fabric) else nullcontext():
        if first(fabric):
            check_folder(folder, asked)  # again, as another command may have been here since
        found = attacked(folder)
        history = _fitted(folder, config, parts, fabric, progress, new)
        if first(fabric):
            save_weights(folder, parts.model)  # first, as it does not make the folder anew if that is gone
            history.save(folder / METRICS)
            write_result(folder, result_of(settings, data, parts, history, shows(progress)) | found)
    return folder


def _check_same_data(folder: Path, data: Data) -> None:
    """Raise if a run was begun with data of another form."""
    if not (folder / CONFIG).exists():
        return
    begun = read_config(folder)
    if (begun.shape, begun.classes) != (data.shape, data.classes):
        raise ValueError(
            f"{folder} was begun with inputs of shape {begun.shape} and classes = {begun.classes}; {data.name} now has "
            f"{data.shape} and {data.classes}: put the data back, or start anew in another folder"
        )


def _fitted(
    folder: Path, config: Config, parts: Parts, fabric: Fabric | None, progress: bool | None, new: bool
) -> History:
    """Train; a run that ends before its first checkpoint leaves nothing that bars the next one."""
    settings, begun = config.settings, (folder / CONFIG).exists()
    try:
        if not begun and first(fabric):  # a resumed run keeps what it was begun with
            write_config(folder, config)
        with flushed():
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
                fabric=fabric,
                progress=progress if first(fabric) else False,
            )
    except BaseException:
        if not begun and first(fabric) and not (folder / checkpoint.FILE).exists():
            with suppress(OSError):  # a disk that became read-only, or is gone, is told by what stopped the run
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
