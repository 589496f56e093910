"""Figure 1: a pair of images before and after Algorithm 1, and the whole sequence of its updates.

Pairs of test images climb by four ways: along the gradient by steps of given length, or by the paper's steps, each
in the data's box and without. The first one is shown, since its images remain images; what the others find is told.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

from cheaplip.data import class_names, find_dir
from cheaplip.experiments.figure1.picture import draw
from cheaplip.experiments.figure1.search import WAYS, Climb, candidates, climb
from cheaplip.experiments.figure1.words import described, outcome, searched
from cheaplip.experiments.jobs import Job, Place, run_all
from cheaplip.experiments.outcome import Outcome, check_claimed, claim, has_only, read_json, write_json
from cheaplip.runs import epochs_done, finished, load, read_config, read_result, train
from cheaplip.settings import ReproduceSettings, TrainSettings

__all__ = ["Climb", "candidates", "climb", "run"]

# What is trained on a data set: the network (None for the package's own choice) and how long.
TRAINED: dict[str, tuple[str | None, int]] = {"fashion-mnist": ("cnn", 3), "mnist": (None, 10), "digits": (None, 40)}
TARGET = 0.85  # reached in a few epochs, so that λ acts
JSON, FILES = "figure1.json", ("figure1.png", "figure1.svg", "figure1.gif", "figure1.json")


def run(settings: ReproduceSettings, folder: Path, *, progress: bool) -> Outcome:
    """Show a pair of images of different classes before and after Algorithm 1.

    Args:
        settings: ``data`` (fashion-mnist, mnist or digits) and ``epochs`` of the network that is trained, or ``run``,
            a run folder whose network is shown.
        folder: where the files go; a network that is trained lies in ``run`` below it.
        progress: show bars.

    Raises:
        ValueError: for settings that do not fit, a run that is no classifier of images, or a network that is right
            about too few images.
        FileNotFoundError: if data or the run is missing.

    Reference: Bungert et al. 2021, Figure 1 and Algorithm 1.

    Example:
        >>> run(ReproduceSettings(run="a", epochs=2), Path("out"), progress=False)
        Traceback (most recent call last):
        ValueError: figure1 shows the network of run a: leave out data and epochs, which are of a training
    """
    has_only(settings, "figure1", "data", "epochs", "run")
    if settings.run is None:
        network = _trained(settings, folder, progress)
    else:
        if settings.data is not None or settings.epochs is not None:
            raise ValueError(
                f"figure1 shows the network of run {settings.run}: leave out data and epochs, which are of a training"
            )
        network = Path(settings.run).expanduser()
        _check_run(network)
        claim(folder, "figure1", {"data": None, "epochs": None, "run": str(network.resolve())})
    return _shown(network, settings, folder, progress)


def _trained(settings: ReproduceSettings, folder: Path, progress: bool) -> Path:
    """Train a network by CLIP, or go on with it, and return its folder."""
    data = settings.data or "fashion-mnist"
    if data not in TRAINED:
        raise ValueError(
            f"figure1 trains on {', '.join(TRAINED)}; got data {data!r}: choose one of them, or give --run the folder "
            "of a run on other images"
        )
    if data != "digits":
        find_dir(data, settings.data_dir)
    model, epochs = TRAINED[data]
    epochs = settings.epochs or epochs
    claim(folder, "figure1", {"data": data, "epochs": epochs, "run": None})
    chosen = TrainSettings(
        data=data,
        data_dir=settings.data_dir,
        model=model,
        target=TARGET,
        epochs=epochs,
        device=settings.device,
        out=str(folder / "run"),
        resume=True,
    )
    if finished(folder / "run"):
        return train(chosen, progress=False)  # which sees that it is the same, and is done
    job = Job("CLIP", _train, (chosen,), units=epochs, done=functools.partial(epochs_done, folder / "run"))
    run_all(
        [job], Place.of(settings, folder, gpu=settings.device == "cuda"), title=f"training on {data}", progress=progress
    )
    check_claimed(folder)
    return folder / "run"


def _train(settings: TrainSettings) -> Path:
    return train(settings, progress=False)


def _check_run(network: Path) -> None:
    config = read_config(network)
    if config.classes is None or len(config.shape) != 3 or config.shape[0] not in (1, 3):
        what = "a regression" if config.classes is None else f"of inputs of shape {config.shape}"
        raise ValueError(
            f"figure1 shows images in classes, of shape (1 or 3, height, width); the run in {network} is {what}: "
            "give --run another one"
        )
    load(network)
    read_result(network)


def _shown(network: Path, settings: ReproduceSettings, folder: Path, progress: bool) -> Outcome:
    """Let pairs climb, and write all files, unless this was done for the same weights."""
    files = [folder / name for name in FILES]
    weights = hashlib.sha256((network / "model.safetensors").read_bytes()).hexdigest()
    if all(file.is_file() for file in files) and (done := _done(read_json(folder / JSON), weights, files)):
        return done
    jobs = [Job(way.search, climb, (network, settings.data_dir, way)) for way in WAYS]
    climbs: list[Climb] = run_all(jobs, Place.of(settings, folder), title="Algorithm 1", progress=progress)
    check_claimed(folder)
    # Of data without a box, both ways in it are those without.
    climbs = [climbed for climbed in climbs if climbed.box is not None or not climbed.way.boxed]
    config = read_config(network)
    draw(climbs[0], class_names(config.settings.data, config.classes or 0), folder)
    write_json(folder / JSON, described(climbs, network, weights))
    return outcome(read_json(folder / JSON), files)


def _done(found: dict[str, Any], weights: str, files: list[Path]) -> Outcome | None:
    """Return what was found before, if it was by this search on these weights."""
    try:
        same = found["network"]["weights"] == weights and found["search"] == searched()
        return outcome(found, files) if same else None
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):  # altered by hand
        return None
