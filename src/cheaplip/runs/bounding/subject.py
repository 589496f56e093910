"""Whose Lipschitz constant is asked for: the network of a run, or one that a user's factory makes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor, nn

from cheaplip.data import Data
from cheaplip.data import load as load_data
from cheaplip.models import build, check_fits
from cheaplip.runs.folder import load, read_config
from cheaplip.settings import BoundsSettings

# The box of inputs where nothing says another, and how many random points a search without data starts from.
UNIT, POINTS = (0.0, 1.0), 256


@final
@dataclass(frozen=True, eq=False)
class Subject:
    """A network, and what is asked about it.

    Args:
        name: how people call it.
        model: in eval mode.
        shape: of one input.
        p: the norm of inputs and outputs.
        seed: of searches.
        out: the folder of what is written.
        run: the run folder; None for a factory.
    """

    name: str
    model: nn.Module
    shape: tuple[int, ...]
    p: float
    seed: int
    out: Path
    run: Path | None

    def like_inputs(self, x: Tensor) -> Tensor:
        """Return points in the type and on the device of the model's inputs."""
        return x.to(next((t for t in self.model.parameters() if t.is_floating_point()), torch.zeros(())))


def subject_of(
    target: str, settings: BoundsSettings, shape: tuple[int, ...] | None = None
) -> tuple[Subject, Data | None]:
    """Return the network of a run folder or a factory, and the data that were named.

    Args:
        target: the run folder, or ``pkg.mod:factory``.
        settings: what is asked.
        shape: of one input, where the settings need not say it.

    Raises:
        FileNotFoundError: if there is no such run, or no such data.
        ValueError: if the shape of the input is not known, or does not fit.
    """
    if ":" in target and not Path(target).is_dir():
        return _made(target, settings, shape)
    folder = Path(target).expanduser()
    config = read_config(folder)
    if settings.input_shape not in (None, config.shape):
        raise ValueError(
            f"the run in {folder} takes inputs of shape {config.shape}; got {settings.shape}: leave it out"
        )
    model = load(folder)
    data = None if settings.data is None else _data(settings, config.settings.seed)
    if data is not None:
        check_fits(model, data.shape, None, free=True)
    pairs = config.settings.lipschitz
    p = settings.p or (pairs.p_in if pairs.p_in == pairs.p_out else 2)
    seed = config.settings.seed if settings.seed is None else settings.seed
    out = folder if settings.out is None else Path(settings.out).expanduser()
    name = f"{folder.resolve().name} ({config.settings.model})"
    return Subject(name, model, config.shape, float(p), seed, out, folder), data


def _made(target: str, settings: BoundsSettings, shape: tuple[int, ...] | None) -> tuple[Subject, Data | None]:
    seed = settings.seed or 0
    data = None if settings.data is None else _data(settings, seed)
    known = settings.input_shape or (None if data is None else data.shape) or shape
    if known is None:
        raise ValueError(f"the shape of one input of {target} must be known: give --shape 1,28,28, or --data NAME")
    if data is not None and known != data.shape:
        raise ValueError(f"--shape {settings.shape} is not that of {data.name}, {data.shape}: leave one of them out")
    model = build(target, shape=known, classes=None if data is None else data.classes, seed=seed, free=True).eval()
    name = "".join(c if c.isalnum() or c in "-+._" else "." for c in target)
    out = Path("runs") / f"bounds-{name}" if settings.out is None else Path(settings.out).expanduser()
    return Subject(target, model, known, float(settings.p or 2), seed, out, None), data


def _data(settings: BoundsSettings, seed: int) -> Data:
    return load_data(str(settings.data), data_dir=settings.data_dir, seed=seed)


def points_of(subject: Subject, settings: BoundsSettings, data: Data | None) -> tuple[Tensor, tuple[float, float]]:
    """Return where searches start, and the box of inputs.

    Args:
        subject: the network.
        settings: what is asked.
        data: that were named; None for those of the run, or for random points.

    Raises:
        FileNotFoundError: if the run's data is missing.
        ValueError: if a box is asked for that nothing tells.
    """
    if data is None and subject.run is not None:
        run = read_config(subject.run).settings
        data = load_data(run.data, data_dir=settings.data_dir or run.data_dir, seed=run.seed)
    box = settings.limits or (UNIT if data is None else data.box)
    if box is None and settings.domain == "box" and data is not None:
        raise ValueError(f"{data.name} has no box: give one by --box LOW,HIGH, or leave --domain box out")
    low, high = box or UNIT
    if data is None:
        generator = torch.Generator().manual_seed(subject.seed)
        x = low + (high - low) * torch.rand(POINTS, *subject.shape, generator=generator)
    else:
        x = (data.lipschitz if len(data.lipschitz) else data.train).x
    return subject.like_inputs(x), (low, high)
