"""The files of a run folder: what is in them, how they are written and how they are read.

Reading runs no code: the settings are plain YAML, the results JSON and the weights safetensors. A model or data set
``pkg.mod:factory`` is the exception: building it calls your own function.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar, final

import torch
from torch import nn

from cheaplip.files import whole
from cheaplip.models import build
from cheaplip.runs.results import parse_result
from cheaplip.settings import TrainSettings, from_mapping
from cheaplip.training import checkpoint

CONFIG, WEIGHTS, RESULT = "config.yaml", "model.safetensors", "result.json"
METRICS = checkpoint.METRICS
KEYS = (
    *("data", "model", "penalty", "target", "seed", "epochs", "steps", "kept", "accuracy", "loss", "robust", "doubts"),
    *("lipschitz", "weight", "weights", "seconds"),
)
# Where a run lies, and how it is called, is no part of what it is.
NOT_OF_THE_RUN = ("out", "resume")
Read = TypeVar("Read")


@final
@dataclass(frozen=True)
class Config:
    """What ``config.yaml`` holds.

    Args:
        settings: all settings; the model is named in full.
        shape: of one input.
        classes: how many the data has; None for regression.
        versions: of cheaplip, torch and python, by name.
    """

    settings: TrainSettings
    shape: tuple[int, ...]
    classes: int | None
    versions: dict[str, str]


def versions() -> dict[str, str]:
    """Return the versions of cheaplip, torch and Python."""
    from importlib.metadata import version

    return {"cheaplip": version("cheaplip"), "torch": str(torch.__version__), "python": platform.python_version()}


def finished(folder: Path) -> bool:
    """Tell whether a folder holds all that a finished run leaves; a checkpoint is of no more use to it."""
    return all((folder / name).is_file() for name in (CONFIG, METRICS, WEIGHTS, RESULT))


def epochs_done(folder: str | Path) -> int:
    """Count the epochs that a run has finished, while it trains or afterwards; 0 where there is none.

    Example:
        >>> epochs_done("runs/none")
        0
    """
    try:
        return max(0, (Path(folder) / METRICS).read_text(encoding="utf-8").count("\n") - 1)
    except OSError:
        return 0


def digest(file: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def occupied(folder: Path) -> list[str]:
    """Return the files of a run that a folder holds."""
    return [name for name in (CONFIG, checkpoint.FILE, METRICS, WEIGHTS, RESULT) if (folder / name).exists()]


def write_config(folder: Path, config: Config) -> None:
    """Write ``config.yaml``."""
    import yaml

    values = {key: value for key, value in asdict(config.settings).items() if key not in NOT_OF_THE_RUN}
    values["input"] = {"shape": list(config.shape), "classes": config.classes}
    values["versions"] = config.versions
    with whole(folder / CONFIG) as temporary:
        temporary.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def read_config(folder: Path) -> Config:
    """Read ``config.yaml``.

    Raises:
        FileNotFoundError: if the folder is missing or holds no run.
        ValueError: if the file is damaged, or has an unknown key or a value out of range.
    """
    import yaml

    if not folder.is_dir():
        raise FileNotFoundError(f"expected a run folder, found no folder {folder}: make one with `cheaplip train`")
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(
            f"{folder} is no run folder: expected {CONFIG} in it; name a folder that `cheaplip train` made"
        )

    def parse(content: bytes) -> Config:
        values = yaml.safe_load(content)
        if not isinstance(values, dict) or not all(isinstance(values.get(k), dict) for k in ("input", "versions")):
            raise ValueError("it lacks settings of a run")
        about, written_by = values.pop("input"), values.pop("versions")
        shape, classes = tuple(about["shape"]), about["classes"]
        numbers = (*shape, *([] if classes is None else [classes]))
        if not shape or not all(type(n) is int and n > 0 for n in numbers):
            raise ValueError("input must have a shape, and classes or null, of whole numbers above 0")
        return Config(from_mapping(TrainSettings, values), shape, classes, written_by)

    return _read(folder / CONFIG, parse, yaml.YAMLError, RecursionError, OverflowError)


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """Write ``result.json``, its keys in their order, what is beside them in the end."""
    result = {key: result[key] for key in (*(k for k in KEYS if k in result), *(k for k in result if k not in KEYS))}
    with whole(folder / RESULT, make=False) as temporary:
        temporary.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_result(run: str | Path) -> dict[str, Any]:
    """Return the results of a run, as they are in ``result.json``.

    Args:
        run: the run folder.

    Raises:
        FileNotFoundError: if the run is missing or not finished.
        ValueError: if the file is damaged.
    """
    return _read(Path(run) / RESULT, parse_result, RecursionError)


def attacked(folder: Path) -> dict[str, Any]:
    """Return what attacks have found of a run whose files are written anew: a checkpoint gives the same weights."""
    if not (folder / RESULT).exists() or not (folder / checkpoint.FILE).exists():
        return {}
    return {key: value for key, value in read_result(folder).items() if key in ("robust", "doubts")}


def save_weights(folder: Path, model: nn.Module) -> None:
    """Write ``model.safetensors``: the same weights give the same bytes.

    Raises:
        ValueError: if the model's state holds anything but tensors.
    """
    save = _safetensors().save
    state = {}
    for name, value in model.state_dict().items():
        if not isinstance(value, torch.Tensor):
            raise ValueError(f"the state of the model must hold tensors alone; {name!r} is a {type(value).__name__}")
        # Copies, since tensors that share memory are refused.
        state[name] = value.detach().cpu().contiguous().clone()
    with whole(folder / WEIGHTS, make=False) as temporary:
        temporary.write_bytes(save(state))


def load(path: str | Path) -> nn.Module:
    """Load the selected weights of a run folder, as a module in eval mode, on the CPU.

    Args:
        path: the run folder.

    Raises:
        FileNotFoundError: if the folder, or a file in it, is missing.
        ValueError: if a file is damaged, or the weights do not fit the model.
        ImportError: if a package is missing; it names the extra to install.

    Example:
        >>> load("runs/none")
        Traceback (most recent call last):
        FileNotFoundError: expected a run folder, found no folder runs/none: make one with `cheaplip train`
    """
    folder = Path(path)
    config = read_config(folder)
    settings, free = config.settings, config.classes is None
    model = build(str(settings.model), shape=config.shape, classes=config.classes, seed=settings.seed, free=free)
    parse = _safetensors().load
    state = _read(folder / WEIGHTS, parse, Exception)  # what safetensors raises has no public name in old versions
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{folder / WEIGHTS} does not fit the model {config.settings.model} of {CONFIG}: {reason}; train anew"
        ) from error
    return model.eval()


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError('the weights of a run need safetensors: pip install "cheaplip[cli]"') from error
    return safetensors.torch


def _read(path: Path, parse: Callable[[bytes], Read], *more: type[Exception]) -> Read:
    """Return the parsed content of a file, or raise in one sentence."""
    errors: tuple[type[Exception], ...] = (ValueError, TypeError, KeyError, AttributeError, *more)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(
            f"expected the file {path}, found none: finish the run with `cheaplip train --resume`, or train anew"
        ) from None
    except OSError as error:
        raise ValueError(f"cannot read {path} ({error.strerror or error}): expected a file of a run") from error
    try:
        return parse(content)
    except errors as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"cannot use {path}: {reason}; restore the file, or train anew") from error
