"""Where is a function steepest? Many climbs, then hops from the best places to others nearby, and climbs from there."""

from __future__ import annotations

import math
from typing import NamedTuple, final

import torch
from torch import Tensor

from cheaplip.lipschitz.climb import CLOSE, Places, Task, climb, unit
from cheaplip.norms import per_sample, vector_norm

# How far from the data climbs start, in units of its scale; farther than FAR from its mean no place goes.
RADII, FAR = (0.1, 0.3, 1.0, 5.0), 30.0
# Moves of a climb from a fresh start, of all after hops, and of the last one, in units of the caller's ``steps``.
STARTING, HOPPING, ENDING = 0.5, 2.5, 0.5
# Hops go this far, in units of the difference of two places; after one there are so many moves, at most.
FACTORS, LENGTH = (0.25, 0.5, 1.0, 1.5), 50
# One place in so many is hopped from.
EVERY = 8
# The first moves after a hop, in units of its length, which counts as no shorter than this, in units of the scale.
PACE, SHORT = 0.2, 0.05
# How far apart pairs are at first, in units of the data's scale: most are far, to see kinks that no smoothing knows.
DISTANCES = (0.3, 1.0, 3.0, 1.0, 0.02)
# How wide activations bend: in the beginning of a fresh climb, after a hop, and in the end.
WIDE, NARROW, LAST = 0.3, 0.1, 0.01
# After so many hops that gained less than this part, the search starts afresh.
PATIENCE, GAIN = 20, 1e-3
# Of so many samples, spread over the data, the mean is taken.
MEAN = 200


@final
class Random(NamedTuple):
    """Draws on the host, so that a seed gives the same bits on every device."""

    generator: torch.Generator

    def directions(self, like: Tensor) -> Tensor:
        """Return random directions of unit 2-norm, the shape of ``like``."""
        return unit(torch.randn(like.shape, generator=self.generator, dtype=torch.float32).to(like))

    def some(self, x: Tensor, count: int) -> Tensor:
        """Return ``count`` random samples of ``x``."""
        return x[torch.randint(len(x), (count,), generator=self.generator).to(x.device)]


def search(task: Task, x: Tensor, known: Places | None, pairs: int, steps: int, seed: int, until_late: bool) -> Places:
    """Return the steepest places found, the steepest first.

    Args:
        task: what to climb.
        x: data to start near, ``(n, *input)``.
        known: places to hop from beside those that fresh climbs find, if there are any.
        pairs: how many places climb at a time.
        steps: the unit of effort; see ``STARTING``, ``HOPPING``, ``ENDING``.
        seed: of the draws.
        until_late: go on until the deadline.
    """
    random = Random(torch.Generator().manual_seed(seed))
    middle, best = x[:: max(1, len(x) // MEAN)].mean(0), None
    while True:
        found = _fresh(task, x, pairs, math.ceil(STARTING * steps), random)
        if known is not None:
            found, known = found.with_(known), None
        found = _hops(task, found.best(pairs), middle, steps, random, until_late)
        found = _polish(task, found.best(max(1, pairs // EVERY)), math.ceil(ENDING * steps))
        best = found if best is None else best.with_(found).best(pairs)
        if not until_late or task.late:
            return best


def _every(values: tuple[float, ...], like: Tensor, each: int = 1) -> Tensor:
    """Return the values in turn, each so many times running, one per sample."""
    index = torch.arange(len(like), device=like.device) // each
    return like.new_tensor(values)[index % len(values)]


def _fresh(task: Task, x: Tensor, pairs: int, steps: int, random: Random) -> Places:
    points = random.some(x, pairs)
    away = random.directions(points) * per_sample(_every(RADII, points) * task.scale, points)
    start = Places(task.region.near(points + away), random.directions(points), points.new_zeros(pairs))
    length = _every(RADII, points).clamp_min(0.5) * (0.3 * task.scale)
    return climb(task, start, steps, length, _distances(task, points), (WIDE, LAST))


def _hops(task: Task, found: Places, middle: Tensor, steps: int, random: Random, until_late: bool) -> Places:
    """Hop from the best places by differences of others, and climb on from where that leads."""
    length = min(LENGTH, math.ceil(steps / 2))
    count = math.inf if until_late else HOPPING * steps // length
    stale, hops, pairs = 0, 0, len(found.points)
    while hops < count and stale < PATIENCE and not task.late:
        hops, before = hops + 1, float(found.values[0])
        top = max(1, pairs // EVERY)
        base = found.at(torch.arange(pairs, device=found.points.device) % top)
        # Differences of places have the scale and the directions that matter, as far as is known by then.
        away = random.some(found.points, pairs) - random.some(found.points, pairs)
        same = per_sample(vector_norm(away) == 0, away)
        away = torch.where(same, random.directions(away) * task.scale, away)
        away = away * per_sample(_every(FACTORS, away, top), away)
        reach = vector_norm(away).clamp_min(SHORT * task.scale)
        points = base.points + away - middle
        points = middle + points * per_sample((FAR * task.scale / vector_norm(points)).clamp_max(1.0), points)
        start = base._replace(points=task.region.near(points))
        landed = climb(task, start, length, PACE * reach, _distances(task, away), (NARROW, LAST))
        found = found.with_(landed).best(pairs)
        stale = 0 if float(found.values[0]) > before * (1 + GAIN) else stale + 1
    return found


def _polish(task: Task, found: Places, steps: int) -> Places:
    """Let the best places climb on with short steps."""
    length = found.points.new_full((len(found.points),), 0.1 * task.scale)
    close = found.points.new_full((len(found.points),), CLOSE * task.scale)
    polished = climb(task, found, steps, length, (close, CLOSE * task.scale), (0.0, 0.0))
    return found.with_(polished).best(len(found.points))


def _distances(task: Task, points: Tensor) -> tuple[Tensor, float]:
    return _every(DISTANCES, points) * task.scale, CLOSE * task.scale
