"""patch_of(): train a patch against the network of a run, and leave it and its picture in the folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from cheaplip.attacks.patch import Patch
from cheaplip.attacks.patch_training import CANDIDATES, TRIAL, easiest_target, train_patch
from cheaplip.data import Data, class_names
from cheaplip.drawing import save

PATCH, PICTURE = "patch.npz", "patch.png"
# So many training images make a patch, in so many steps; so many test images tell how good it is in the picture.
IMAGES, STEPS, TESTED = 2000, 500, 1000


def patch_of(model: nn.Module, data: Data, folder: str | Path, *, seed: int = 0, progress: bool = False) -> Patch:
    """Train a patch on the first 2,000 training images; leave ``patch.npz`` and ``patch.png`` in a folder.

    Its target is the class that short trials turn most images to, the model's weakest point.

    Args:
        model: the classifier, in eval mode.
        data: images in classes, 1 or 3 channels; a patch is drawn on its test images.
        folder: where the files go.
        seed: of all draws.
        progress: show a bar on standard error.

    Returns:
        The patch, as an attack that lays it on 2 to 25 % of each image.

    Raises:
        ValueError: for data without classes or that are no images, or of one class alone.
    """
    if data.classes is None or len(data.shape) != 3 or data.shape[0] not in (1, 3):
        raise ValueError(
            f"a patch needs images in classes, shape (channels, height, width) with 1 or 3 channels; {data.name} has "
            f"shape {data.shape} and {data.classes or 'no'} classes: leave the patch out"
        )
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    x, y = data.train.x[:IMAGES].to(device), data.train.y[:IMAGES].to(device)
    box = data.box or (float(data.train.x.min()), float(data.train.x.max()))
    with _bar(progress, min(CANDIDATES, data.classes) * TRIAL + STEPS) as advance:
        target = easiest_target(model, x, y, box=box, seed=seed, progress=advance)
        patch = train_patch(model, x[y != target], target, steps=STEPS, box=box, seed=seed, progress=advance)
    patch.save(Path(folder) / PATCH)
    own = (y == target).nonzero().squeeze(1)
    real = x[own[0]] if len(own) else x.mean(0)
    from cheaplip.runs.patch_picture import draw_patch  # loads matplotlib

    tested = data.test.x[:TESTED].to(device), data.test.y[:TESTED].to(device)
    with torch.no_grad():
        names = class_names(data.name, model(x[:1]).shape[1])
    save(draw_patch(model, patch, *tested, real, names, seed=seed), Path(folder) / PICTURE)
    return patch


@contextmanager
def _bar(shown: bool, total: int) -> Iterator[Callable[[int], None]]:
    if not shown:
        yield lambda steps: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("training a patch", total=total)
        yield lambda steps: bar.advance(task, steps)
