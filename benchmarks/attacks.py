"""Attacks side by side on one set of images: what they break, how near, and how long they take.

    python benchmarks/attacks.py --images 200
    python benchmarks/attacks.py --parts speed,foolbox

Networks are trained on the spot, plainly, by CLIP and against PGD; `--run` adds others. Times are seconds of this
process on one thread, which others on the machine hardly disturb. Needs the extras attacks and cli.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tables import Table, progress, write_whole
from timing import interleave, machine
from torch import Tensor, nn

import cheaplip as cl
from cheaplip.attacks import PGD, named
from cheaplip.attacks.libraries.shell import library
from cheaplip.data import BatchLoader, Data, load
from cheaplip.models import mlp
from cheaplip.norms import vector_norm

BALLS = ((2.0, 1.5, ""), (math.inf, 0.1, "-linf"))
DIAMOND = (1.0, 12.0, "-l1")
SIGNS = {2.0: "L2", math.inf: "L∞", 1.0: "L1"}
PARTS = ("strength", "foolbox", "distance", "speed")
BOUNDED = ("pgd", "apgd-ce", "autoattack-fast", "autoattack")
SMALLEST = ("ddn", "fab-t", "cw", "deepfool")
WIDTHS = [784, 200, 80, 10]


@dataclass(frozen=True)
class Subject:
    """A trained network and the images that it is attacked on."""

    name: str
    net: nn.Module
    x: Tensor
    y: Tensor

    def accuracy(self, x: Tensor, rows: Tensor | None = None) -> float:
        """Return the share of images that are classified right."""
        with torch.no_grad():
            right: Tensor = self.net(x).argmax(1) == (self.y if rows is None else self.y[rows])
        return float(right.float().mean())


def small_cnn() -> nn.Sequential:
    """Return a small convolutional network, quick enough for thousands of steps on one core."""
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 5, stride=2, padding=2), nn.ReLU(), nn.Conv2d(8, 16, 5, stride=2, padding=2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10)),
    )


def trained(make: Callable[[], nn.Sequential], how: str, data: Data, epochs: int) -> nn.Sequential:
    """Return a network trained plainly, by CLIP or against PGD."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = make()
    penalty = cl.LipschitzPenalty.from_data(data.lipschitz.x, weight=0.05) if how == "CLIP" else None
    cl.fit(
        net,
        BatchLoader(data.train.x, data.train.y, 128, seed=0),
        loss=nn.functional.cross_entropy,
        optimizer=torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9),
        epochs=epochs,
        penalty=penalty,
        control=None if penalty is None else cl.Discrepancy(penalty, target=0.95, step=3e-3),
        adversary=PGD(1.5, steps=7, loss="cross-entropy", early_stop=False) if how == "PGD-7" else None,
        progress=False,
    )
    return net.eval().requires_grad_(False)


def subjects(data: Data, runs: Sequence[Path], images: int, epochs: int) -> list[Subject]:
    """Train and load all networks."""
    x, y = data.test.x[:images], data.test.y[:images]
    kinds: list[tuple[str, Callable[[], nn.Sequential], tuple[str, ...]]] = [
        ("MLP", lambda: mlp(WIDTHS, "relu"), ("plain", "CLIP", "PGD-7")),
        ("CNN", small_cnn, ("plain", "CLIP")),
    ]
    made = [
        Subject(f"{kind}, {how}", trained(make, how, data, epochs), x, y) for kind, make, hows in kinds for how in hows
    ]
    return [*made, *(Subject(run.parent.name, cl.load(run).requires_grad_(False), x, y) for run in runs)]


def timed(subject: Subject, attack: Any, seed: int = 0) -> tuple[Tensor, float]:
    """Return the changed images and the seconds that they took."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        begun = time.process_time()
        x_adv = attack(subject.net, subject.x, subject.y)
        return x_adv, time.process_time() - begun


def text(seconds: float) -> str:
    """Return seconds with two digits, or all before the point."""
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def strength(group: Sequence[Subject], tell: Callable[[str, float], None]) -> Table:
    """Compare accuracy under attacks with a radius."""
    rows = []
    for subject in group:
        for norm, eps, suffix in (*BALLS, *[DIAMOND] * subject.name.startswith("MLP")):
            cells = [f"{subject.name}, {SIGNS[norm]} ε = {eps:g}", f"{subject.accuracy(subject.x):.1%}"]
            for k, name in enumerate(BOUNDED):
                tell(f"{cells[0]}, {name}", k / len(BOUNDED))
                x_adv, seconds = timed(subject, named(name + suffix, eps=eps))
                cells.append(f"{subject.accuracy(x_adv):.1%} ({text(seconds)})")
            rows.append(tuple(cells))
    return Table(f"Accuracy under attack, {len(group[0].x)} images", ("network", "clean", *BOUNDED), tuple(rows))


def foolbox_pgd(norm: float, eps: float, steps: int) -> Any:
    """Return foolbox's PGD with its constant step of 2.5 ε / steps, as an attack of ours."""
    attacks = library("foolbox").attacks
    kind = attacks.L2ProjectedGradientDescentAttack if norm == 2 else attacks.LinfProjectedGradientDescentAttack
    attack = kind(rel_stepsize=2.5 / steps, steps=steps)

    def run(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        shell = library("foolbox").PyTorchModel(net, bounds=(0, 1), device="cpu")
        x_adv: Tensor = attack(shell, x, y, epsilons=eps)[1]
        return x_adv

    return run


def against_foolbox(group: Sequence[Subject], tell: Callable[[str, float], None]) -> Table:
    """Find the fewest steps of our PGD that break as much as foolbox's 100, and time both in pairs."""
    rows = []
    for subject in group:
        for norm, eps, _ in BALLS:
            theirs = foolbox_pgd(norm, eps, 100)
            goal = subject.accuracy(timed(subject, theirs)[0])
            for steps in (2, 3, 4, 5, 7, 10, 14, 20, 28, 40, 57, 80, 100):
                own = PGD(eps, norm, steps=steps)
                reached = subject.accuracy(timed(subject, own)[0])
                if reached <= goal:
                    break
            tell(f"{subject.name}, foolbox", 0.5)

            def base(subject: Subject = subject, theirs: Any = theirs) -> object:
                return theirs(subject.net, subject.x, subject.y)

            def ours(subject: Subject = subject, own: Any = own) -> object:
                return own(subject.net, subject.x, subject.y)

            pair = interleave(base, {"own": (ours, 1)}, seconds=0.0, warmup=0, least=3)["own"]
            base_s, own_s = sum(pair.base) / 3, sum(pair.own) / 3
            title = f"{subject.name}, {SIGNS[norm]} ε = {eps:g}"
            cells = (
                f"{goal:.1%} ({text(base_s)})",
                str(steps),
                f"{reached:.1%} ({text(own_s)})",
                f"{base_s / own_s:.1f}",
            )
            rows.append((title, *cells))
    heads = ("network", "foolbox's PGD, 100 steps", "own steps for as much", "own PGD", "times as fast")
    return Table(f"Own PGD against foolbox's, {len(group[0].x)} images", heads, tuple(rows))


def distance(group: Sequence[Subject], tell: Callable[[str, float], None]) -> Table:
    """Compare the smallest changes found, over images that are classified right."""
    rows = []
    for subject in group:
        right = subject.net(subject.x).argmax(1) == subject.y
        found, seconds = [], []
        for k, name in enumerate(SMALLEST):
            tell(f"{subject.name}, {name}", k / len(SMALLEST))
            x_adv, took = timed(subject, named(name))
            length = vector_norm(x_adv - subject.x, 2)[right]
            found.append(length.masked_fill(length == 0, math.inf))
            seconds.append(took)
        best = torch.stack(found).amin(0)
        cells = [f"{float(best.median()):.3f}"]
        for length, took in zip(found, seconds, strict=True):
            missed = "" if bool(length.isfinite().all()) else f", {int(length.isinf().sum())} missed"
            cells.append(
                f"{float(length.median()):.3f}, +{float((length / best).median()) - 1:.0%} ({text(took)}){missed}"
            )
        rows.append((subject.name, *cells))
    heads = ("network", "best of all", *SMALLEST)
    return Table(f"Median smallest change in the 2-norm, {len(group[0].x)} images", heads, tuple(rows))


def speed(group: Sequence[Subject], data: Data, tell: Callable[[str, float], None]) -> Table:
    """Time 1,000 images and 100 steps on the MLPs: with what stops early, and one loss run to the end."""
    rows = []
    for subject in group:
        if not subject.name.startswith("MLP"):
            continue
        tell(f"{subject.name}, speed", 0.5)
        whole = Subject(subject.name, subject.net, data.test.x[:1000], data.test.y[:1000])
        stopping = [timed(whole, PGD(1.5, 2))[1] for _ in range(3)]
        full = [timed(whole, PGD(1.5, 2, loss="cross-entropy", early_stop=False))[1] for _ in range(3)]
        rows.append((subject.name, f"{sorted(stopping)[1]:.2f}", f"{sorted(full)[1]:.2f}"))
    heads = ("network", "both losses, early stop", "one loss, no early stop")
    return Table("Seconds of own PGD, 1,000 images, 100 steps, L2 ε = 1.5", heads, tuple(rows))


def main() -> None:
    """Train, attack, print the tables and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200, help="how many are attacked (200)")
    parser.add_argument("--epochs", type=int, default=3, help="of training (3)")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"joined by commas (all): {', '.join(PARTS)}")
    parser.add_argument("--run", type=Path, action="append", default=[], help="a run folder to add; may be repeated")
    parser.add_argument("--out", type=Path, help="a Markdown file for the tables")
    chosen = parser.parse_args()
    parts = chosen.parts.split(",")
    if not set(parts) <= set(PARTS):
        parser.error(f"--parts must be among {', '.join(PARTS)}; got {chosen.parts}")
    torch.set_num_threads(1)
    data = load("mnist")
    written = [f"{machine()}"]
    with progress() as tell:
        tell("training", 0.0)
        group = subjects(data, chosen.run, chosen.images, chosen.epochs)
        makers: dict[str, Callable[[], Table]] = {
            "strength": lambda: strength(group, tell),
            "foolbox": lambda: against_foolbox(group, tell),
            "distance": lambda: distance(group, tell),
            "speed": lambda: speed(group, data, tell),
        }
        for part in parts:
            table = makers[part]()
            table.show()
            written.append(table.markdown())
            if chosen.out is not None:
                write_whole(chosen.out, "\n".join(written))


if __name__ == "__main__":
    main()
