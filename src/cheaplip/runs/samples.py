"""``robust.npz``: what became of every single image, so that nothing is attacked twice and curves are drawn at once."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from cheaplip.evaluation.attacking import AnyAttack, Outcome, threat_of
from cheaplip.evaluation.results import Result
from cheaplip.files import whole

FILE, FORMAT = "robust.npz", 1


@final
@dataclass(eq=False)
class Samples:
    """What became of the first images of a test set under an attack, batch by batch.

    Args:
        attack: its name.
        about: what it depends on: the attack with all its parameters, seed, weights, data.
        norm: 1, 2, inf, or None.
        eps: the radius, or None.
        robust: for each image whether it stayed right, booleans ``(n,)``.
        distance: for each image the smallest change found, or proven to be too small; or None.
        batches: of each batch the number of images, of questions (-1 for no closed box), and the seconds.
    """

    attack: str
    about: str
    norm: float | None
    eps: float | None
    robust: Tensor = field(repr=False)
    distance: Tensor | None = field(default=None, repr=False)
    batches: list[tuple[int, int, float]] = field(default_factory=list, repr=False)

    def batch(self, number: int, images: int) -> Outcome | None:
        """Return a batch, if it is here and has so many images."""
        if number >= len(self.batches) or self.batches[number][0] != images:
            return None
        first = sum(entry[0] for entry in self.batches[:number])
        mine = slice(first, first + images)
        _, queries, seconds = self.batches[number]
        distance = None if self.distance is None else self.distance[mine]
        return Outcome(self.robust[mine], distance, None if queries < 0 else queries, seconds)

    def cut(self, number: int) -> None:
        """Forget this batch and those behind it."""
        keep = sum(entry[0] for entry in self.batches[:number])
        self.batches, self.robust = self.batches[:number], self.robust[:keep]
        self.distance = None if self.distance is None else self.distance[:keep]

    def add(self, outcome: Outcome) -> None:
        """Append a batch."""
        self.robust = torch.cat([self.robust, outcome.robust])
        if outcome.distance is not None:
            before = outcome.distance[:0] if self.distance is None else self.distance
            self.distance = torch.cat([before, outcome.distance])
        queries = -1 if outcome.queries is None else outcome.queries
        self.batches.append((len(outcome.robust), queries, outcome.seconds))


@final
class Store:
    """Keeps outcomes in a run's ``robust.npz``; an attack whose parameters, seed, weights or data changed runs anew.

    Args:
        folder: of the run.
        about: what all outcomes depend on beside the attack: seed, weights, data.

    Raises:
        ValueError: if the file is damaged.
    """

    def __init__(self, folder: Path, about: str) -> None:
        self.file, self.about = folder / FILE, about
        self.samples = read_samples(folder)

    def get(self, key: str, attack: AnyAttack, number: int, images: int) -> Outcome | None:
        """Return the outcome of a batch, if it is there."""
        found = self.samples.get(_name(key, attack))
        return None if found is None or found.about != self._about(attack) else found.batch(number, images)

    def put(self, key: str, attack: AnyAttack, number: int, outcome: Outcome) -> None:
        """Keep an outcome, in place of all that is there of this batch and of later ones, and write the file."""
        name, threat = _name(key, attack), threat_of(attack)
        found = self.samples.get(name)
        if found is None or found.about != self._about(attack):
            none = torch.zeros(0, dtype=torch.bool)
            found = Samples(key.partition("@")[0], self._about(attack), threat.norm, threat.eps, none)
        found.cut(number)
        if len(found.batches) == number:
            found.add(outcome)
            self.samples[name] = found
            self.write()

    def finish(self, results: Mapping[str, Result]) -> None:
        """Keep what no attack found: the clean images, and what is proven."""
        for result in results.values():
            if result.name in ("clean", "certified"):
                self.samples[result.name] = Samples(
                    result.name,
                    self.about,
                    result.norm,
                    None,
                    result.robust if result.distance is None else result.distance > 0,
                    result.distance,
                    [(result.images, -1, result.seconds)],
                )
        self.write()

    def write(self) -> None:
        """Write the file, whole."""
        arrays: dict[str, Any] = {}
        entries = []
        for number, found in enumerate(self.samples.values()):
            arrays[f"robust_{number}"] = found.robust.numpy()
            if found.distance is not None:
                arrays[f"distance_{number}"] = found.distance.numpy()
            norm = None if found.norm is None else f"{found.norm:g}"
            entries.append([found.attack, found.about, norm, found.eps, found.batches])
        names = list(self.samples)
        about = json.dumps({"format": FORMAT, "names": names, "entries": entries})
        with whole(self.file, make=False) as temporary, temporary.open("wb") as stream:
            np.savez(stream, allow_pickle=False, about=np.array(about), **arrays)

    def _about(self, attack: AnyAttack) -> str:
        held = [value for value in getattr(attack, "__dict__", {}).values() if isinstance(value, Tensor)]
        return f"{attack!r}; {f'tensors {tensor_digest(*held)}; ' if held else ''}{self.about}"


def _name(key: str, attack: AnyAttack) -> str:
    eps = threat_of(attack).eps
    name = key.partition("@")[0]
    return name if eps is None else f"{name}@{shortest(eps)}"


def tensor_digest(*tensors: Tensor) -> str:
    """Return a SHA-256 of the values of tensors.

    Example:
        >>> tensor_digest(torch.zeros(2))[:8], tensor_digest(torch.ones(2))[:8]
        ('af5570f5', '80b8fd6d')
    """
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).data)
    return found.hexdigest()


def shortest(eps: float) -> str:
    """Return a radius as short as it can be written without becoming another one.

    Example:
        >>> shortest(1.0), shortest(0.1 + 0.2)
        ('1', '0.30000000000000004')
    """
    short = f"{eps:g}"
    return short if float(short) == eps else repr(eps)


def read_samples(folder: str | Path) -> dict[str, Samples]:
    """Read what became of every image of a run under each attack; nothing where none was kept.

    Args:
        folder: of the run.

    Returns:
        By name and radius, as ``pgd@1.5``; ``clean`` and, where it was proven, ``certified`` among them.

    Raises:
        ValueError: if the file is damaged.

    Example:
        >>> read_samples("runs/none")
        {}
    """
    file = Path(folder) / FILE
    if not file.is_file():
        return {}
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            about = json.loads(str(arrays["about"]))
            found = {name: torch.from_numpy(arrays[name]) for name in arrays.files if name != "about"}
        return _parsed(about, found)
    except Exception as error:  # whatever zip, numpy or json make of a damaged file
        raise ValueError(
            f"{file} is damaged ({type(error).__name__}): delete it, and evaluate the run again"
        ) from error


def _parsed(about: dict[str, Any], arrays: dict[str, Tensor]) -> dict[str, Samples]:
    if about["format"] != FORMAT:
        raise ValueError("another format")
    samples = {}
    for number, (name, entry) in enumerate(zip(about["names"], about["entries"], strict=True)):
        attack, depends, norm, eps, batches = entry
        robust, distance = arrays[f"robust_{number}"], arrays.get(f"distance_{number}")
        sizes = [(int(images), int(queries), float(seconds)) for images, queries, seconds in batches]
        fits = robust.dtype == torch.bool and robust.dim() == 1 and len(robust) == sum(size[0] for size in sizes)
        far = distance is None or (distance.is_floating_point() and distance.shape == robust.shape)
        radius = None if eps is None else float(eps)
        if not fits or not far or (radius is not None and not 0 < radius < math.inf):
            raise ValueError("numbers that do not fit")
        power = None if norm is None else float(norm)
        samples[str(name)] = Samples(str(attack), str(depends), power, radius, robust, distance, sizes)
    return samples
