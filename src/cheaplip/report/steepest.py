"""The steepest pairs, filmed on their way up: Algorithm 1 on the network of a run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from cheaplip.data import Data
from cheaplip.pairs import Pairs, Start
from cheaplip.report.pictures import Range, Shown, change_of, opinion, picture_of, range_of
from cheaplip.report.words import number, percent
from cheaplip.settings import TrainSettings

UPDATES = 30
KINDS = {"noise": "a sample and its noisy copy", "samples": "two different samples"}
# Of each kind so many start, and so many are shown.
STARTED, FILMED = 8, 2
SIDE = 64  # pixels
# Characters of all frames of a run: longer films lose frames.
ROOM = 1_200_000
# Numbers in all frames before the choice; what has larger inputs starts with fewer pairs.
MOST_NUMBERS = 2**24


@final
class Frame(NamedTuple):
    """A pair after some updates.

    Attributes:
        update: how many.
        pictures: u, u - v and v.
        quotient: the difference quotient.
        quotient_text: how it is written.
        distance_text: ‖u - v‖ in the norm of inputs, as it is written.
        text: all of it in words.
    """

    update: int
    pictures: tuple[Shown, Shown, Shown]
    quotient: float
    quotient_text: str
    distance_text: str
    text: str


@final
@dataclass(frozen=True)
class Film:
    """The way of one pair.

    Args:
        title: where it starts.
        frames: one for each update that is shown, the start first.
        best: the index of the frame with the largest quotient.
        curve: the quotient over the updates, as points of a polyline in a box of 100 by 100.
    """

    title: str
    frames: list[Frame]
    best: int
    curve: str


@final
class _Course(NamedTuple):
    """Where the pairs were, and how steep: after each update, u and v of all pairs, and their quotients."""

    kinds: list[str]
    points: list[Tensor]
    quotients: list[list[float]]
    device: torch.device


def films(
    model: nn.Module, data: Data, settings: TrainSettings, device: torch.device, done: Callable[[str], None]
) -> list[Film]:
    """Run Algorithm 1 from a few pairs, and return the films of those that end steepest.

    Args:
        model: the network, in eval mode on the device.
        data: of the run, images.
        settings: of the run: its norms and search are used, and its seed.
        device: where to compute.
        done: called after each update with what is going on.

    Reference: Bungert et al. 2021, Algorithm 1.
    """
    course = _climb(model, data, settings, device, done)
    chosen: list[int] = []
    for kind in dict.fromkeys(course.kinds):
        mine = [pair for pair, its in enumerate(course.kinds) if its == kind]
        chosen += sorted(mine, key=course.quotients[-1].__getitem__, reverse=True)[:FILMED]
    chosen.sort(key=course.quotients[-1].__getitem__, reverse=True)
    within = range_of(data, SIDE)
    every = _every(course, chosen, within)
    return [_film(model, course, pair, data, settings, within, every) for pair in chosen]


def starts_of(data: Data) -> Tensor:
    """Return the samples from which pairs start: X_Lip, or the training set where there is none."""
    return (data.lipschitz if len(data.lipschitz) else data.train).x


def _climb(
    model: nn.Module, data: Data, settings: TrainSettings, device: torch.device, done: Callable[[str], None]
) -> _Course:
    pool, size = starts_of(data), math.prod(data.shape)
    count = max(FILMED, min(STARTED, MOST_NUMBERS // (4 * size * (UPDATES + 1))))
    kinds = [kind for kind in KINDS if kind != "samples" or len(pool) > 1]
    drawn = [Start(pool, kind=kind, seed=settings.seed).draw(count) for kind in kinds]
    u, v = (torch.cat(part).to(device) for part in zip(*drawn, strict=True))
    how: Any = settings.lipschitz
    pairs = Pairs(
        *(u, v), p_in=how.p_in, p_out=how.p_out, search=how.search, box=data.box, min_distance=how.min_distance
    )
    course = _Course([kind for kind in kinds for _ in range(count)], [], [], device)
    for update in range(UPDATES + 1):
        measured = pairs.measure(model, climb=update < UPDATES)
        course.points.append(torch.stack([pairs.u, pairs.v]).cpu())
        course.quotients.append(measured.values)
        if measured.ascent is not None:
            pairs.move(measured)
        done("steepest pairs")
    return course


def _every(course: _Course, chosen: list[int], within: Range) -> int:
    """Return 1 if all frames have room, 2 for every other one, and so on, judged by the first of each pair."""
    starts = [course.points[0][:, pair] for pair in chosen]
    size = sum(len(uri) for u, v in starts for uri in (picture_of(u, within), change_of(u - v, within)[0]))
    return math.ceil(1.5 * size * len(course.points) / ROOM)


def _film(
    model: nn.Module, course: _Course, pair: int, data: Data, settings: TrainSettings, within: Range, every: int
) -> Film:
    """Return a film of every so many frames; the start, the steepest and the last one are among them."""
    quotients = [values[pair] for values in course.quotients]
    best, last = max(range(len(quotients)), key=quotients.__getitem__), len(quotients) - 1
    updates = [k for k in range(last + 1) if k % every == 0 or k in (best, last)]
    way = torch.stack([course.points[update][:, pair] for update in updates])  # (frames, 2, *shape)
    opinions: list[tuple[str, float] | None] = [None] * (2 * len(way))
    if data.classes is not None:
        with torch.no_grad():
            logits = model(way.flatten(0, 1).to(course.device))
        opinions = [opinion(row, data.name) for row in logits]
    p = float(settings.lipschitz.p_in)
    frames = []
    for k, (update, (u, v)) in enumerate(zip(updates, way, strict=True)):
        apart = f"{float(torch.linalg.vector_norm((u - v).flatten(), p)):.3f}"
        shown = _triple(u, v, opinions[2 * k], opinions[2 * k + 1], update, within)
        steep = f"{quotients[update]:.3f}"
        words = f"update {update} of {UPDATES}: quotient {steep}, distance {apart}"
        frames.append(Frame(update, shown, quotients[update], steep, apart, words))
    return Film(KINDS[course.kinds[pair]], frames, updates.index(best), _curve(quotients))


def _triple(
    u: Tensor, v: Tensor, says_u: tuple[str, float] | None, says_v: tuple[str, float] | None, update: int, within: Range
) -> tuple[Shown, Shown, Shown]:
    after = "at the start" if update == 0 else f"after {update} update{'s' if update > 1 else ''}"
    uri, magnified = change_of(u - v, within)
    middle = Shown(uri, f"u minus v {after}, magnified {number(magnified)} times", "u − v", f"× {number(magnified)}")
    sides = []
    for name, point, says in (("u", u, says_u), ("v", v, says_v)):
        words = "" if says is None else f": taken for {says[0]} with {percent(says[1], 0)}"
        text, note = ("", "") if says is None else (says[0], percent(says[1], 0))
        sides.append(Shown(picture_of(point, within), f"{name} {after}{words}", text or name, note))
    return sides[0], middle, sides[1]


def _curve(values: list[float]) -> str:
    """Return values as points from left to right in a box of 100 by 100, zero at its lower edge."""
    top = max(*values, 1e-12)
    step = 100 / max(1, len(values) - 1)
    return " ".join(f"{k * step:.4g},{100 - 100 * max(0.0, value) / top:.4g}" for k, value in enumerate(values))
