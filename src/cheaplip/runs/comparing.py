"""compare(): runs side by side, with a test of every difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, final

from cheaplip.evaluation.pairing import Difference, clearly_best, mcnemar
from cheaplip.runs.folder import read_config, read_result
from cheaplip.runs.samples import Samples, read_samples, shortest


@final
class Compared(NamedTuple):
    """One quantity of several runs.

    Attributes:
        name: ``clean``, or an attack with its radius.
        accuracy: of each run; None where it was not measured.
        against: of each run but the first, how it differs from the first; None where that cannot be told.
        best: which run is better than each other one by more than chance; None if none is.
        images: how many images were compared; 0 where nothing could be.
    """

    name: str
    accuracy: tuple[float | None, ...]
    against: tuple[Difference | None, ...]
    best: int | None
    images: int


@final
@dataclass(frozen=True)
class Comparison:
    """Several runs side by side.

    Args:
        runs: their folders.
        rows: a quantity each.
        lipschitz: of each run the lower and the upper bound, None where it is not known.
        remarks: what does not compare.
    """

    runs: tuple[Path, ...]
    rows: tuple[Compared, ...]
    lipschitz: tuple[tuple[float | None, float | None], ...]
    remarks: tuple[str, ...]


def compare(runs: Sequence[str | Path]) -> Comparison:
    """Compare runs image by image, by what ``cheaplip evaluate`` left in their ``robust.npz``.

    Args:
        runs: two run folders or more; the others are compared with the first.

    Raises:
        FileNotFoundError: if one is missing.
        ValueError: for fewer than two, the same one twice, different data, or a damaged file.

    Example:
        >>> compare(["runs/one"])
        Traceback (most recent call last):
        ValueError: a comparison needs two run folders or more; got 1
    """
    folders = tuple(Path(run) for run in runs)
    if len(folders) < 2:
        raise ValueError(f"a comparison needs two run folders or more; got {len(folders)}")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ValueError(f"each run may be named once; got {', '.join(map(str, folders))}")
    data = {str(read_config(folder).settings.data) for folder in folders}
    if len(data) > 1:
        raise ValueError(f"runs of different data do not compare; got {', '.join(sorted(data))}")
    results = [read_result(folder) for folder in folders]
    samples = [read_samples(folder) for folder in folders]
    names = list(dict.fromkeys(name for kept in samples for name in _readings(kept)))
    names.sort(key=lambda name: name != "clean")
    rows = tuple(_row(name, samples) for name in names)
    bounds = tuple(_bounds(result) for result in results)
    remarks = [
        f"{folder} has no results image by image: run `cheaplip evaluate {folder}`"
        for folder, kept in zip(folders, samples, strict=True)
        if not kept
    ]
    return Comparison(folders, rows, bounds, tuple(remarks))


def _bounds(result: dict[str, Any]) -> tuple[float | None, float | None]:
    known = result.get("lipschitz", {})
    return known.get("lower"), known.get("upper")


def _readings(kept: dict[str, Samples]) -> list[str]:
    """Return what is read off a run: attacks, and distances at the radii of the attacks in their norm."""
    named = []
    for name, found in kept.items():
        if found.distance is None:
            named.append(name)
        else:
            radii = {other.eps for other in kept.values() if other.eps is not None and other.norm == found.norm}
            named += [f"{name}@{shortest(eps)}" for eps in sorted(radii)]
    return named


def _robust(name: str, kept: dict[str, Samples]) -> Any:
    if name in kept:
        return kept[name].robust
    attack, _, eps = name.partition("@")
    found = kept.get(attack)
    if found is None or found.distance is None:
        return None
    # A proof holds at its radius, an adversarial image breaks at its distance.
    return found.distance >= float(eps) if attack == "certified" else found.distance > float(eps)


def _row(name: str, samples: Sequence[dict[str, Samples]]) -> Compared:
    columns = [_robust(name, kept) for kept in samples]
    there = [column for column in columns if column is not None]
    images = min(len(column) for column in there)
    cut = [None if column is None else column[:images] for column in columns]
    accuracy = tuple(None if column is None else float(column.double().mean()) for column in cut)
    first = cut[0]
    against = tuple(None if first is None or other is None else mcnemar(other, first) for other in cut[1:])
    best = clearly_best([column[:images] for column in there]) if len(there) == len(columns) else None
    return Compared(name, accuracy, against, best, images)
