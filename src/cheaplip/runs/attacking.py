"""evaluate_run(): attack the network of a run and add what was found to its results."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from cheaplip.attacks import Attack, suite
from cheaplip.data import Data
from cheaplip.data import load as load_data
from cheaplip.evaluation import Results, evaluate
from cheaplip.files import alone, changing
from cheaplip.models import check_fits
from cheaplip.runs.folder import RESULT, WEIGHTS, digest, load, read_config, read_result, versions, write_result
from cheaplip.runs.parts import device_of, shows
from cheaplip.runs.patching import patch_of
from cheaplip.runs.robustness import draw_attacked, draw_curves
from cheaplip.runs.samples import Store, tensor_digest

# Among the names of attacks: what is proven, what is trained first, and what is always there.
CERTIFIED, PATCH, CLEAN = "certified", "patch", "clean"
# Whose attacks change with their versions.
LIBRARIES = ("pyautoattack", "foolbox")
# Radii by norm.
USUAL = {2.0: 2.0, math.inf: 0.1, 1.0: 12.0}


def evaluate_run(
    run: str | Path,
    attacks: Sequence[str],
    *,
    eps: Sequence[float] | None = None,
    limit: int | None = None,
    seed: int = 0,
    data_dir: str | Path | None = None,
    device: str = "auto",
    progress: bool | None = None,
) -> dict[str, Any]:
    """Attack the selected weights of a run on its test set, and merge the results into ``result.json``.

    Under ``robust`` there is one entry for each attack, norm and radius: a new one replaces the old one. What became of
    every image is kept in ``robust.npz``, batch by batch: an evaluation that was stopped goes on when it is given
    again, and what is there already is not attacked twice. ``robustness.png`` shows all curves, ``attacked.png`` some
    images, ``patch.png`` a patch.

    Args:
        run: the run folder.
        attacks: names as in :func:`cheaplip.attacks.named`; ``certified`` for what is proven, in the 2-norm; ``patch``
            for a patch that is trained on the run's training images; ``clean``, which is always there.
        eps: radii in units of the input, for all attacks that have one; None for each attack's own.
        limit: how many images are attacked, the first of the test set; None for all.
        seed: of noise and random starts.
        data_dir: the data folder; None for that of the run.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        progress: show a bar; by default if standard error is a terminal.

    Returns:
        The results, as ``result.json`` then holds them.

    Raises:
        FileNotFoundError: if the run, or its data, is missing.
        ValueError: for an unknown attack or one that the data has no box for, a number out of range, a damaged file,
            or a run without classes.
        ImportError: if a package is missing; it names the extra to install.

    Example:
        >>> evaluate_run("runs/none", ["pgd"])
        Traceback (most recent call last):
        FileNotFoundError: expected a run folder, found no folder runs/none: make one with `cheaplip train`
    """
    folder = Path(run)
    model, data = _subject(folder, data_dir, device)
    shown = shows(progress)
    with alone(folder), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="APGD-T needs")  # the doubts say so, once
        chosen = _chosen(model, data, folder, attacks, eps, seed, shown)
        begun = time.perf_counter()
        store = Store(folder, _depends(folder, data, seed))
        found = evaluate(
            model,
            data.test,
            chosen,
            radii={name: radii_for(attack, eps) for name, attack in chosen.items()},
            seed=seed,
            limit=limit,
            certify=False if CERTIFIED not in attacks else True if eps is None else list(eps),
            progress=shown,
            cache=store,
        )
        store.finish(found)
        seconds = time.perf_counter() - begun
        draw_curves(folder, _joined(read_result(folder), found, seconds), store.samples)
        draw_attacked(folder, model, data, chosen, found, seed)
        # Read again, as `cheaplip bounds` may have added to it; written last: who finds results finds the pictures too.
        with changing(folder / RESULT):
            result = _joined(read_result(folder), found, seconds)
            write_result(folder, result)
    return result


def _subject(folder: Path, data_dir: str | Path | None, device: str) -> tuple[nn.Module, Data]:
    """Return the network of a run, on its device, and the data; raise for a run that is not whole, or a regression."""
    config, _ = read_config(folder), read_result(folder)
    if config.classes is None:
        raise ValueError(f"attacks need data with classes; the run in {folder} is a regression")
    settings = config.settings
    model = load(folder).to(device_of(device))
    data = load_data(settings.data, data_dir=data_dir or settings.data_dir, seed=settings.seed)
    check_fits(model, data.shape, data.classes)
    return model, data


def _chosen(
    model: nn.Module,
    data: Data,
    folder: Path,
    names: Sequence[str],
    eps: Sequence[float] | None,
    seed: int,
    progress: bool,
) -> dict[str, Attack]:
    """Return the attacks of these names; a patch is trained first."""
    chosen = chosen_for(data, [name for name in names if name not in (CERTIFIED, PATCH, CLEAN)], eps)
    if PATCH in names:
        chosen[PATCH] = patch_of(model, data, folder, seed=seed, progress=progress)
    return chosen


def _depends(folder: Path, data: Data, seed: int) -> str:
    """Return in words what every outcome depends on, beside the attack."""
    about = [f"seed {seed}", f"data {data.name} {tensor_digest(data.test.x, data.test.y)}"]
    about += [f"weights {digest(folder / WEIGHTS)}", f"cheaplip {versions()['cheaplip']}"]
    return "; ".join(about + [f"{name} {version(name)}" for name in LIBRARIES if find_spec(name)])


def _joined(result: dict[str, Any], found: Results, seconds: float) -> dict[str, Any]:
    """Return the results of a run with those that are new."""
    entries, before = found.entries(), result.get("seconds", {})
    joined = result | {
        "robust": merged(result.get("robust", []), entries),
        "seconds": before | {"evaluate": before.get("evaluate", 0.0) + seconds},
    }
    if any(entry.get("eps") is not None for entry in entries):
        joined.pop("doubts", None)
        joined |= {"doubts": list(found.doubts)} if found.doubts else {}
    return joined


def radii_for(attack: Attack, eps: Sequence[float] | None) -> Sequence[float]:
    """Return where an attack without a radius of its own is read off: as asked, or where others in its norm attack."""
    return list(eps) if eps is not None else [USUAL[attack.threat.norm or 2.0]]


def chosen_for(data: Data, names: Sequence[str], eps: Sequence[float] | None) -> dict[str, Attack]:
    """Return the attacks of these names, each in the box of the data.

    Raises:
        ValueError: as :func:`cheaplip.attacks.suite`, or for clamped noise on data whose box is not [0, 1].
    """
    if "noise-clamped" in names and data.box not in (None, (0.0, 1.0)):
        raise ValueError(f"noise-clamped cuts images to [0, 1], but this data has the box {data.box}: leave it out")
    return suite(names, eps, box=data.box)


def merged(old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return old and new entries; a new one stands in the place of an old one with its attack, norm and radius.

    Example:
        >>> merged([{"attack": "pgd", "eps": 1.0, "accuracy": 0.5}], [{"attack": "pgd", "eps": 1.0, "accuracy": 0.4}])
        [{'attack': 'pgd', 'eps': 1.0, 'accuracy': 0.4}]
    """
    by_key = {_key(entry): entry for entry in [*old, *new]}
    return list(by_key.values())


def _key(entry: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(entry.get(name) for name in ("attack", "norm", "eps"))
