"""Which training certifies best: proven radii at equal clean accuracy, on MNIST or Fashion-MNIST.

Every row trains the same network with the same optimiser, and a discrepancy principle holds the training accuracy at
the target by driving λ, or ε of the margin loss. The certificates are over all space, from LipSDP for each pair of
classes, for all test images; PGD is strong (L2, 100 steps, worst of cross-entropy and margin loss, one restart, in the
box).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

import cheaplip as cl
from cheaplip.data import BatchLoader, Data, load
from cheaplip.models import build
from cheaplip.norms import span

BATCH, RATE, MOMENTUM = 128, 0.1, 0.9
BOX = (0.0, 1.0)
Driven = Any


def roaming(x: Tensor, **others: Any) -> cl.LipschitzPenalty:
    """Return CLIP with pairs that may leave the box."""
    return cl.LipschitzPenalty.from_data(x, weight=0.05, pairs=32, **others)


# What is driven to the target: a penalty or a loss, of the model and the images that feed pairs; and dλ or dε.
METHODS: dict[str, tuple[Callable[[nn.Module, Tensor], Driven] | None, float]] = {
    "plain": (None, 0.0),
    "CLIP, pairs in the box": (lambda net, x: roaming(x, box=BOX), 3e-3),
    "CLIP, pairs that roam": (lambda net, x: roaming(x), 3e-3),
    "CLIP, pairs that roam, margins": (lambda net, x: roaming(x, p_out=span), 3e-3),
    "layer product": (lambda net, x: cl.UpperBoundPenalty(net, weight=0.0, bound="product"), 1e-3),
    "ECLipsE-Fast": (lambda net, x: cl.UpperBoundPenalty(net, weight=0.0), 1e-3),
    "margin loss, layer product": (lambda net, x: cl.MarginLoss(net, weight=0.0, bound="product"), 1e-3),
    "margin loss, ECLipsE-Fast": (lambda net, x: cl.MarginLoss(net, weight=0.0), 1e-3),
}


def trained(method: str, data: Data, spec: str, target: float, epochs: int, seed: int) -> tuple[nn.Module, Any, float]:
    """Return a trained network, the weight that was reached, and the seconds that it took."""
    model = build(spec, shape=data.shape, classes=data.classes, seed=seed)
    make, step = METHODS[method]
    driven = None if make is None else make(model, data.lipschitz.x)
    is_loss = isinstance(driven, cl.MarginLoss)
    loader = BatchLoader(data.train.x, data.train.y, BATCH, seed=seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)
    begun = time.perf_counter()
    cl.fit(
        model,
        loader,
        loss=driven if is_loss and driven is not None else nn.CrossEntropyLoss(),
        optimizer=optimizer,
        epochs=epochs,
        scheduler=CosineAnnealingLR(optimizer, epochs * len(loader)),
        scheduler_per="batch",
        penalty=None if is_loss or driven is None else driven,
        control=None if driven is None else cl.Discrepancy(driven, target=target, step=step),
        seed=seed,
        progress=False,
    )
    return model, None if driven is None else float(driven.weight), time.perf_counter() - begun


def measured(model: nn.Module, data: Data, radii: list[float], limit: int, certified: int) -> dict[str, Any]:
    """Return accuracies, clean, attacked and certified, and the interval of the constant."""
    attacks = {f"pgd@{eps:g}": cl.attacks.PGD(eps, norm=2, box=BOX) for eps in radii}
    found = cl.evaluate(model, data.test, attacks, limit=limit, seed=0, doubt=False)
    begun = time.perf_counter()
    proof = cl.lipschitz.certify(model, data.test.x[:certified], data.test.y[:certified], seconds=600)
    seconds = time.perf_counter() - begun
    interval = cl.lipschitz.bounds(model, data.lipschitz.x[:2000])
    return {
        "clean": found["clean"].accuracy,
        "pgd": {eps: found[f"pgd@{eps:g}"].accuracy for eps in radii},
        "certified": {eps: proof.accuracy(eps) for eps in radii},
        "lower": interval.lower,
        "upper": interval.upper,
        "seconds certify": seconds,
    }


def row_of(method: str, found: dict[str, Any]) -> str:
    """Return a row of the table."""
    cells = [method, f"{100 * found['clean']:.1f}"]
    for name in ("certified", "pgd"):
        cells.append(" / ".join(f"{100 * value:.1f}" for value in found[name].values()))
    cells += [f"{found['lower']:.3g} to {found['upper']:.3g}", f"{found['seconds train']:.0f}"]
    weight = found["weight"]
    return "| " + " | ".join([*cells, "" if weight is None else f"{weight:.3g}"]) + " |"


def main() -> None:
    """Train, measure and print a table; what is measured already is not measured again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=["digits", "mnist", "fashion-mnist"], default="mnist")
    parser.add_argument("--model", default="mlp:784-64-64-10:relu")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--target", type=float, default=0.96, help="training accuracy to hold")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--eps", type=float, nargs="+", default=[0.5, 1.0, 1.58])
    parser.add_argument("--limit", type=int, default=1000, help="attacked images")
    parser.add_argument("--certified", type=int, default=10_000, help="images that are certified")
    parser.add_argument("--out", type=Path, default=Path("runs/certified"), help="what is measured is kept here")
    options = parser.parse_args()
    console, data = Console(stderr=True), load(options.data, seed=options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    lines = []
    for method in options.methods:
        about = f"{options.data}-{options.model}-{method}-{options.target}-{options.epochs}-{options.seed}"
        file = options.out / f"{about.replace(':', '_').replace(' ', '_').replace(',', '')}.json"
        if not file.exists():
            with console.status(f"training: {method}"):
                arguments = (method, data, options.model, options.target, options.epochs, options.seed)
                model, weight, seconds = trained(*arguments)
            torch.save(model.state_dict(), file.with_suffix(".pt"))
            with console.status(f"proving and attacking: {method}"):
                found = measured(model, data, options.eps, options.limit, options.certified)
            file.write_text(json.dumps(found | {"seconds train": seconds, "weight": weight}))
        lines.append(row_of(method, json.loads(file.read_text())))
        console.print(lines[-1])
    radii = " / ".join(f"{eps:g}" for eps in options.eps)
    print(f"| training | clean | certified, ε = {radii} | PGD, ε = {radii} | Lip | seconds | λ or ε |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
