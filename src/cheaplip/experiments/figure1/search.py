"""Algorithm 1 on pairs of images of different classes, and which of them is shown."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cheaplip.data import Data
from cheaplip.data import load as load_data
from cheaplip.pairs import Pairs
from cheaplip.runs import load, read_config

# How many test images are looked at, how many of their pairs climb, and how many updates they make.
IMAGES, PAIRS, UPDATES = 500, 32, 40
BATCH = 100  # images that the network sees at a time
# The paper's pair: both images right with over 90 % before, with under 30 % for each other's class after.
SURE, UNSURE = 0.9, 0.3
# If no pair is as sure as the paper's, a less sure one is shown, and it is said so.
BARS = (SURE, 0.5, 0.0)


@final
class Way(NamedTuple):
    """How pairs climb: the search of :class:`cheaplip.pairs.Pairs`, and whether they stay in the data's box."""

    search: str
    boxed: bool


# The first one that the data allows is shown, the others are told.
WAYS = (Way("ascent", True), Way("ascent", False), Way("paper", True), Way("paper", False))


@final
@dataclass(frozen=True, eq=False)
class Candidates:
    """The pairs that climb.

    Args:
        images: where their images stand in the test set, ``(P, 2)``.
        labels: their classes, ``(P, 2)``.
        x: the images, all first ones and then all second ones, ``(2P, *shape)``.
        bar: the confidence that both images of each pair exceed.
    """

    images: Tensor
    labels: Tensor
    x: Tensor
    bar: float


@final
@dataclass(frozen=True, eq=False)
class Climb:
    """How one pair climbed, and what became of all.

    Args:
        way: how they climbed.
        bar: the confidence that both images of each pair exceeded before.
        images: where the two images stand in the test set.
        labels: their classes.
        points: the two images at each update, ``(updates + 1, 2, *shape)``.
        quotients: at each update, ``(updates + 1,)``.
        distances: at each update, ``(updates + 1,)``.
        classes: what the network takes them for, ``(updates + 1, 2)``.
        confidences: how sure it is of that (softmax), ``(updates + 1, 2)``.
        box: of the data, as far as it has one.
        smallest: the distance below which pairs are not let.
        pairs: how many pairs climbed.
        exchanged: how many of them have each other's class at the end.
        ever: how many had at some update.
        unsure: how many had at some update with under 30 % each.
    """

    way: Way
    bar: float
    images: tuple[int, int]
    labels: tuple[int, int]
    points: NDArray[np.float32]
    quotients: list[float]
    distances: list[float]
    classes: list[list[int]]
    confidences: list[list[float]]
    box: tuple[float, float] | None
    smallest: float
    pairs: int
    exchanged: int
    ever: int
    unsure: int


def candidates(model: nn.Module, data: Data) -> Candidates:
    """Return the closest pairs of images of different classes that the network is right and sure about.

    Args:
        model: the network, in eval mode.
        data: whose first test images are looked at.

    Raises:
        ValueError: if it is right about the images of fewer than two classes.
    """
    x, y = data.test.x[:IMAGES], data.test.y[:IMAGES]
    confidence, found = _sure(model, x)
    for bar in BARS:
        at = ((found == y) & (confidence > bar)).nonzero().squeeze(1)
        if len(torch.unique(y[at])) > 1:
            break
    else:
        raise ValueError(
            f"the network must be right about two of the first {len(y)} test images, of different classes; "
            f"it is right about {len(at)} of them: train it for more epochs"
        )
    images = x[at].flatten(1)
    apart = torch.cdist(images, images)
    apart[(y[at][:, None] == y[at]) | torch.ones_like(apart, dtype=torch.bool).tril()] = math.inf
    # A stable sort, as topk may order ties as it likes.
    nearest = apart.flatten().sort(stable=True).indices[: min(PAIRS, int(apart.isfinite().sum()))]
    pairs = at[torch.stack([nearest // len(at), nearest % len(at)], 1)]
    return Candidates(pairs, y[pairs], x[pairs.T.flatten()], bar)


def climb(run: Path, data_dir: str | None, way: Way) -> Climb:
    """Let all candidates of a run's network climb, and return the one with the largest quotient at the end.

    Args:
        run: the run folder.
        data_dir: the data folder; None for that of the run.
        way: how they climb.

    Raises:
        ValueError: as :func:`candidates` and :func:`cheaplip.load`.

    Reference: Bungert et al. 2021, Algorithm 1.
    """
    settings = read_config(run).settings
    model = load(run).requires_grad_(False)
    data = load_data(settings.data, data_dir=data_dir or settings.data_dir, seed=settings.seed)
    begun = candidates(model, data)
    count = len(begun.images)
    pairs = Pairs(begun.x[:count], begun.x[count:], search=way.search, box=data.box if way.boxed else None)
    points, rows = [], []
    for update in range(UPDATES + 1):
        measured = pairs.measure(model, climb=update < UPDATES)
        points.append(pairs.points.clone())
        rows.append((measured.quotient, (pairs.u - pairs.v).flatten(1).norm(dim=1), *_sure(model, pairs.points)))
        if measured.ascent is not None:
            pairs.move(measured)
    quotients, distances, confidences, classes = (torch.stack(column) for column in zip(*rows, strict=True))
    best = int(quotients[-1].argmax())
    both = [best, best + count]
    # (updates + 1, P, 2), as the labels are (P, 2); each other's class is the label of the other.
    taken, sure = (column.view(-1, 2, count).transpose(1, 2) for column in (classes, confidences))
    exchanged = (taken == begun.labels.flip(1)).all(2)
    unsure = exchanged & (sure < UNSURE).all(2)
    return Climb(
        way=way,
        bar=begun.bar,
        images=(int(begun.images[best, 0]), int(begun.images[best, 1])),
        labels=(int(begun.labels[best, 0]), int(begun.labels[best, 1])),
        points=torch.stack([there[both] for there in points]).numpy(),
        quotients=quotients[:, best].tolist(),
        distances=distances[:, best].tolist(),
        classes=classes[:, both].tolist(),
        confidences=confidences[:, both].tolist(),
        box=data.box,
        smallest=pairs.min_distance,
        pairs=count,
        exchanged=int(exchanged[-1].sum()),
        ever=int(exchanged.any(0).sum()),
        unsure=int(unsure.any(0).sum()),
    )


def _sure(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest softmax of each image, and its class."""
    with torch.no_grad():
        logits = torch.cat([model(part) for part in torch.split(x, BATCH)])
    confidence, found = logits.softmax(1).max(1)
    return confidence, found
