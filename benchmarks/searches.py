"""Which way of moving pairs finds the steepest pair for the fewest gradient calls, on networks that stand still?

    cheaplip train --data mnist --model mlp:784-64-64-10:relu --penalty none --epochs 5 --out runs/plain
    python benchmarks/searches.py runs/plain runs/clip [--seeds 3] [--pairs 32]

A gradient call is a forward and an input-only backward over all points of the pairs; the consensus method alone would
do without the backward. ``long``: the steepest pair ever seen after so many calls, without renewal, as a share of what
``lipschitz.lower`` finds in as much time as it wants. ``training``: the steepest of the pairs alive, as the penalty
sees it, with the lifetime of training; the mean over the calls. Means over the seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tables import Table, progress
from torch import Tensor, nn

import cheaplip as cl
from cheaplip.data import load
from cheaplip.norms import per_sample, vector_norm
from cheaplip.pairs import Pairs, Search, Start, scale_of

CALLS, LIFETIME, STEADY = (3, 10, 30, 100), 16, 100
BOX = (0.0, 1.0)
Move = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def along(direction: Tensor, length: Tensor) -> Tensor:
    """Return vectors of these lengths along the directions."""
    tiny = torch.finfo(direction.dtype).tiny ** 0.5
    return direction * per_sample(length / vector_norm(direction).clamp_min(tiny), direction)


def noisy(share: float) -> Callable[[int, float], Move]:
    """Ascent, and noise that is this share of the step as long."""

    def make(seed: int, scale: float) -> Move:
        draw = torch.Generator().manual_seed(seed)

        def move(u: Tensor, v: Tensor, gu: Tensor, gv: Tensor, q: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
            noise = torch.randn((2, *u.shape), generator=draw)
            return (
                u + along(gu, step) + along(noise[0], share * step),
                v + along(gv, step) + along(noise[1], share * step),
            )

        return move

    return make


def turning(distance: float) -> Callable[[int, float], Move]:
    """Power iteration of pairs at one distance, in units of the data's scale; their centres climb."""

    def make(seed: int, scale: float) -> Move:
        def move(u: Tensor, v: Tensor, gu: Tensor, gv: Tensor, q: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
            apart = u - v
            length = vector_norm(apart)
            # Without the distance's own part, what remains is the Jacobian's transpose times the change.
            own = apart * per_sample(q / length.square(), apart)
            half = along((gu + own) - (gv - own), torch.full_like(length, distance * scale / 2))
            centre = (u + v) / 2 + along(gu + gv, step)
            return centre + half, centre - half

        return move

    return make


def consensus(drift: float, spread: float, climb: bool) -> Callable[[int, float], Move]:
    """Consensus-based optimisation: pairs drift to a weighted mean, with noise as large as they are away from it.

    Args:
        drift: the share of the way to the mean.
        spread: the noise, coordinate by coordinate, in units of the distance to the mean.
        climb: go uphill as well.
    """

    def make(seed: int, scale: float) -> Move:
        draw = torch.Generator().manual_seed(seed)

        def move(u: Tensor, v: Tensor, gu: Tensor, gv: Tensor, q: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
            points = torch.stack([u, v], 1)
            weight = (30 * (q - q.max()) / q.max()).softmax(0)
            away = points - (weight.view(-1, *[1] * (points.dim() - 1)) * points).sum(0)
            noise = torch.randn(points.shape, generator=draw)
            points = points - drift * away + spread * away.abs() * noise
            moved_u, moved_v = points.unbind(1)
            return (moved_u + along(gu, step), moved_v + along(gv, step)) if climb else (moved_u, moved_v)

        return move

    return make


def copies(share: float) -> Callable[[int, float], Move]:
    """Ascent, where the flattest quarter of the pairs starts again beside the steepest one.

    Args:
        share: the distance to it, in units of the data's scale.
    """

    def make(seed: int, scale: float) -> Move:
        draw = torch.Generator().manual_seed(seed)

        def move(u: Tensor, v: Tensor, gu: Tensor, gv: Tensor, q: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
            moved = torch.stack([u + along(gu, step), v + along(gv, step)])
            low, best = q.argsort()[: len(q) // 4], int(q.argmax())
            noise = torch.randn(moved[:, low].flatten(0, 1).shape, generator=draw)
            length = torch.full((len(noise),), share * scale)
            moved[:, low] = moved[:, best, None] + along(noise, length).view_as(moved[:, low])
            return moved[0], moved[1]

        return move

    return make


SEARCHES: dict[str, Callable[[int, float], Search]] = {
    "ascent": lambda seed, scale: "ascent",
    "paper": lambda seed, scale: "paper",
    "noisy ascent, 0.3": noisy(0.3),
    "noisy ascent, 1": noisy(1.0),
    "power": lambda seed, scale: "power",
    "power iteration at 0.01": turning(0.01),
    "power iteration at 0.1": turning(0.1),
    "consensus": consensus(0.1, 0.3, climb=False),
    "consensus and ascent": consensus(0.1, 0.3, climb=True),
    "copies of the best": copies(0.1),
}


def climbed(net: nn.Module, x: Tensor, search: Search, seed: int, pairs: int, box: Any) -> list[float]:
    """Return the largest quotient seen after each number of gradient calls."""
    moving = Pairs(*Start(x, seed=seed).draw(pairs), search=search, box=box)
    best, found = 0.0, []
    for call in range(1, CALLS[-1] + 1):
        measured = moving.measure(net, climb=True)
        best = max(best, measured.values[measured.steepest])
        if call in CALLS:
            found.append(best)
        moving.move(measured)
    return found


def watched(net: nn.Module, x: Tensor, search: Search, seed: int, pairs: int, box: Any) -> float:
    """Return the mean over the calls of the largest quotient among the pairs alive, with the lifetime of training."""
    start = Start(x, seed=seed)
    moving, total = Pairs(*start.draw(pairs), start=start, search=search, renew=LIFETIME, box=box), 0.0
    for call in range(STEADY):
        measured = moving.measure(net, climb=True)
        total += measured.values[measured.steepest] if call >= STEADY // 5 else 0.0
        moving.move(measured)
    return total / (STEADY - STEADY // 5)


def compare(net: nn.Module, x: Tensor, seeds: int, pairs: int, box: Any, title: str, tell: Any) -> Table:
    """Return the table of one network."""
    best = cl.lipschitz.lower(net, x[:2000], box=box).value
    scale, rows = scale_of(x), []
    for done, (name, make) in enumerate(SEARCHES.items()):
        tell(title, done / len(SEARCHES))
        runs = torch.tensor([climbed(net, x, make(seed, scale), seed, pairs, box) for seed in range(seeds)])
        alive = [watched(net, x, make(seed, scale), seed, pairs, box) for seed in range(seeds)]
        cells = [f"{100 * value / best:.0f}" for value in runs.mean(0).tolist()]
        rows.append((name, *cells, f"{sum(alive) / seeds:.2f}"))
    heads = ("search", *(f"{calls} calls, %" for calls in CALLS), "training")
    return Table(f"{title}; lower finds {best:.2f}", heads, tuple(rows))


def main() -> None:
    """Compare the searches on every network, in the box and in all space."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders of MNIST networks")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(1)
    x, tables = load("mnist").lipschitz.x, []
    with progress() as tell:
        for folder in options.runs:
            net = cl.load(folder)
            for place, box in (("in the box", BOX), ("all space", None)):
                title = f"{folder.name}, {place}"
                tables.append(compare(net, x, options.seeds, options.pairs, box, title, tell))
    for table in tables:
        print(table.markdown())


if __name__ == "__main__":
    main()
