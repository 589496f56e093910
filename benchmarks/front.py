"""Cost, accuracy and robustness of rival ways of training, each tuned with the same effort on the selection split.

    python benchmarks/front.py [--epochs 6] [--seeds 2] [--out runs/front] [--only CLIP one-step]

Every method has one number, of which three values are tried with the first seed; the value with the highest score on
the selection split (the mean of clean accuracy and of PGD accuracy at three radii) is trained with every seed. The test
set is looked at once, in the end. Each run and each part of its measurement is kept in ``--out`` and never made twice.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from front_methods import METHODS, NETWORK, REDUCTIONS, Method, step_of, trained
from front_report import curve, draw, row, table
from tables import progress, write_whole
from timing import interleave, summarise
from torch import nn

import cheaplip as cl
from cheaplip.data import Data, load
from cheaplip.drawing import save
from cheaplip.lipschitz.jacobian import jacobian_norms
from cheaplip.models import build

RADII, CERTIFIED = (1.0, 1.5, 2.0), (0.5, 1.0)
IMAGES, PROVEN, STEEP = 1000, 200, 500
SECONDS = 90.0  # of the solver, per network


def pgd(steps: int) -> dict[str, Any]:
    """Return strong PGD at every radius: the worst of cross-entropy and margin loss."""
    return {f"pgd@{eps:g}": cl.attacks.PGD(eps, steps=steps) for eps in RADII}


def accuracies(found: Any) -> dict[str, float]:
    """Return the accuracy of every result."""
    return {name: found[name].accuracy for name in found}


def on_selection(net: nn.Module, data: Data) -> dict[str, float]:
    """Measure what tuning goes by."""
    return accuracies(cl.evaluate(net, data.selection, pgd(50), seed=0, doubt=False))


def on_test(net: nn.Module, data: Data) -> dict[str, float]:
    """Measure accuracy on all test images, and under PGD on the first 1,000."""
    return accuracies(cl.evaluate(net, data.test, pgd(100), seed=0, limit=IMAGES, doubt=False))


def autoattack(net: nn.Module, data: Data) -> dict[str, float]:
    """Measure accuracy under APGD-CE and APGD-T at every radius: ten times as long as PGD."""
    attacks = cl.attacks.suite(["autoattack-fast"], RADII)
    return accuracies(cl.evaluate(net, data.test, attacks, seed=0, limit=IMAGES, doubt=False))


def lipschitz(net: nn.Module, data: Data) -> dict[str, float]:
    """Measure the constant: at test points, the interval over all space."""
    steepest = float(jacobian_norms(net, data.test.x[:STEEP]).max())
    interval = cl.lipschitz.bounds(net, data.lipschitz.x[:2000])
    return {"jacobian": steepest, "lower": interval.lower, "upper": interval.upper}


def proof(net: nn.Module, data: Data) -> dict[str, float]:
    """Prove radii of the first test images, by LipSDP for each pair of classes, over all space."""
    found = cl.lipschitz.certify(net, data.test.x[:PROVEN], data.test.y[:PROVEN], seconds=SECONDS)
    return {f"certified@{eps:g}": found.accuracy(eps) for eps in CERTIFIED} | {"seconds": found.seconds}


FINAL: dict[str, Callable[[nn.Module, Data], dict[str, float]]] = {
    "test": on_test, "lipschitz": lipschitz, "autoattack": autoattack, "proof": proof,
}  # fmt: skip


class Runs:
    """Runs in a folder: what is there is read, what is not is made."""

    def __init__(self, out: Path, epochs: int, tell: Callable[[str, float], None]) -> None:
        self.out, self.epochs, self.tell = out, epochs, tell
        self.data: dict[int, Data] = {}

    def run(self, method: Method, value: float, seed: int, parts: Sequence[str] = ()) -> dict[str, Any]:
        """Train, measure on the selection split, and measure ``parts`` of :data:`FINAL`."""
        name = f"{method.name}, {method.knob} = {value:g}, seed {seed}"
        stem = name.replace(" ", "").replace(",", "_").replace("+", "-")
        file, weights = self.out / f"{stem}.json", self.out / f"{stem}.pt"
        if seed not in self.data:
            self.data[seed] = load("mnist", seed=seed)
        data = self.data[seed]
        if not file.exists():
            self.tell(f"{name}: training", 0.0)
            net, history = trained(method, value, data, self.epochs, seed)
            torch.save(net.state_dict(), weights)
            about = {"method": method.name, "value": value, "seed": seed, "epochs": self.epochs}
            found = about | {"last": dict(history.rows[-1]), "selection": on_selection(net, data)}
            write_whole(file, json.dumps(found, indent=1))
        found = json.loads(file.read_text("utf-8"))
        for part in parts:
            if not found.get(part):
                self.tell(f"{name}: {part}", 0.5)
                net = build(NETWORK, shape=data.shape, classes=data.classes, seed=seed)
                net.load_state_dict(torch.load(weights, weights_only=True))
                found[part] = FINAL[part](net.eval(), data)
                write_whole(file, json.dumps(found, indent=1))
        return dict(found)


def score(found: dict[str, Any]) -> float:
    """Return what tuning goes by."""
    values = found["selection"].values()
    return float(sum(values)) / len(values)


def costs(methods: Sequence[Method], seconds: float) -> dict[str, Any]:
    """Time a step of every method against the plain one before it, on one thread."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(8 * 128, 1, 28, 28, generator=generator)
    y = torch.randint(10, (len(x),), generator=generator)
    batches = list(zip(torch.split(x, 128), torch.split(y, 128), strict=True))
    plain, *others = methods
    timed = interleave(
        step_of(plain, x, batches), {m.name: (step_of(m, x, batches), 1) for m in others}, seconds=seconds
    )
    ratios = {name: summarise(timing.ratios()) for name, timing in timed.items()}
    base = summarise([taken for timing in timed.values() for taken in timing.base])
    return {"plain": {"ms": 1e3 * base.median, "median": 1.0}} | {name: r.to_json() for name, r in ratios.items()}


def report(out: Path, epochs: int) -> None:
    """Print the tables of all that was measured, and draw it."""
    cost = json.loads((out / "cost.json").read_text("utf-8"))
    found = [json.loads(file.read_text("utf-8")) for file in sorted(out.glob("*_seed*.json"))]
    trials, tuned, rows = {}, {}, []
    for method in METHODS:
        mine = [run for run in found if run["method"] == method.name]
        first = sorted((run for run in mine if run["seed"] == 0 and "test" in run), key=lambda run: float(run["value"]))
        if not first:
            continue
        best = max(first, key=score)
        trials[method.name], tuned[method.name] = first, best
        for run in first if method.name == "CLIP" else [best]:
            seeds = [other for other in mine if other["value"] == run["value"] and "test" in other]
            rows.append(row(method.name, method.knob, seeds, cost))
    table(rows, f"{NETWORK}, MNIST, {epochs} epochs").show()
    names = [method.name for method in REDUCTIONS]
    between = [run for run in found if run["method"] in names and "lipschitz" in run]
    curve(sorted(between, key=lambda run: (names.index(run["method"]), int(run["seed"])))).show()
    save(draw(trials, tuned, cost), out / "front.png")


def main() -> None:
    """Train, tune and measure; what is measured already is not measured again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/front"), help="what is measured is kept here")
    parser.add_argument("--only", nargs="+", help="names of methods; by default all")
    parser.add_argument("--parts", nargs="*", choices=list(FINAL), default=list(FINAL), help="of the last measurement")
    parser.add_argument("--cost", type=float, default=60.0, help="seconds of timing steps")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    wanted = [m for m in (*METHODS, *REDUCTIONS) if options.only is None or m.name in options.only]
    with progress() as tell:
        runs = Runs(options.out, options.epochs, tell)
        for method in wanted:
            trials = [runs.run(method, value, 0) for value in method.values]
            best = max(trials, key=score)["value"]
            finals = method.values if method.name == "CLIP" else (best,)
            for value in method.values:
                for seed in range(options.seeds if value in finals else 1):
                    runs.run(method, value, seed, options.parts if value in finals else ["test"])
    file = options.out / "cost.json"
    if not file.exists():
        write_whole(file, json.dumps(costs(METHODS, options.cost), indent=1))
    report(options.out, options.epochs)


if __name__ == "__main__":
    main()
