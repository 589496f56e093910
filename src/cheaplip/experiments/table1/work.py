"""One run of the table: trained, attacked, and kept in its run folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cheaplip import runs
from cheaplip.experiments.table1.plan import attacks_of
from cheaplip.settings import TrainSettings


def finished(settings: TrainSettings, limit: int, images: int) -> bool:
    """Tell whether nothing is left to do for a run.

    Args:
        settings: of the run.
        limit: how many test images are attacked.
        images: how many there are.

    Raises:
        ValueError: if the folder holds a run with other settings.
    """
    folder = runs.folder_of(settings)
    if not runs.finished(folder):
        return False
    runs.train(settings, progress=False)  # it compares the settings, and trains nothing
    return not any(missing(runs.read_result(folder), limit, images))


def train_and_attack(settings: TrainSettings, limit: int, images: int) -> None:
    """Train and attack a network; what its folder holds already is not done again.

    Args:
        settings: of the run.
        limit: how many test images are attacked; noise is cheap and falls on all.
        images: how many there are.
    """
    folder = runs.train(settings, progress=False)
    for name, radii in missing(runs.read_result(folder), limit, images):
        runs.evaluate_run(
            folder,
            [name],
            eps=radii,
            limit=None if name == "noise" else limit,
            seed=settings.seed,
            data_dir=settings.data_dir,
            device=settings.device,
            progress=False,
        )


def missing(result: dict[str, Any], limit: int, images: int) -> Iterator[tuple[str, list[float] | None]]:
    """Yield the attacks, and their radii, of which a result says nothing, or says it of other images.

    Example:
        >>> entry = {"attack": "pgd", "eps": 1.0, "images": 100, "accuracy": 0.5}
        >>> list(missing({"data": "mnist", "robust": [entry]}, limit=100, images=1000))
        [('noise', None), ('pgd-paper', [2.0]), ('pgd', [1.5, 2.0])]
    """
    entries = result.get("robust", [])
    wanted = {True: images, False: min(limit, images)}
    known = {(entry["attack"], entry.get("eps")) for entry in entries if entry["images"] == wanted[_is_noise(entry)]}
    for name, radii in attacks_of(result["data"]).items():
        if radii is None:
            if (name, None) not in known:
                yield name, None
        elif rest := [eps for eps in radii if (name, eps) not in known]:
            yield name, rest


def _is_noise(entry: dict[str, Any]) -> bool:
    return bool(entry["attack"] == "noise")
