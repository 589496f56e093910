"""What bounds cost and what they are worth: seconds, memory and tightness against width, depth and method.

Each method runs on each network in a process of its own, with one thread. The ratio is that to the lower bound found by
``cheaplip.lipschitz.lower`` on the same network. Rivals are measured where they are installed: eclipse-nn, whose bounds
are proven in exact arithmetic for dense chains alone, and deel-torchlip, whose figure is an estimate from below.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import resource
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

import cheaplip as cl
from cheaplip.models import mlp

from tables import Table  # isort: skip

SHAPE = (784,)
OURS = ("product", "eclipse", "sdp")
RIVALS = {"eclipse-nn, ECLipsE_Fast": "eclipse_nn", "eclipse-nn, ECLipsE": "eclipse_nn", "deel-torchlip": "deel"}
LOWER = "lower"


def network(name: str) -> nn.Module:
    """Return a network by its name: a run folder, or widths joined by - with seeded Gaussian weights."""
    if Path(name).is_dir():
        return cl.load(name)
    widths = [int(width) for width in name.split("-")]
    torch.manual_seed(0)
    net = mlp(widths, "relu")
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=(2 / layer.in_features) ** 0.5)
    return net.eval()


def value_of(net: nn.Module, x: torch.Tensor, method: str) -> float:
    """Return what a method says of a network."""
    if method in OURS:
        return cl.lipschitz.upper(net, x, method=method, seconds=3600).value
    if method == LOWER:
        return cl.lipschitz.lower(net, x, pairs=64, steps=100).value
    with contextlib.redirect_stdout(io.StringIO()):
        if method.startswith("eclipse-nn"):
            from eclipse_nn.LipConstEstimator import LipConstEstimator

            layers = [layer for layer in net.modules() if isinstance(layer, nn.Linear)]
            weights = [layer.weight.detach().double() for layer in layers]
            top = 0.25 if any(isinstance(layer, nn.Sigmoid) for layer in net.modules()) else 1.0
            slopes = {"alphas": [0.0] * (len(weights) - 1), "betas": [top] * (len(weights) - 1)}
            return float(LipConstEstimator(weights=weights, **slopes).estimate(method.split(", ")[1]))
        from deel.torchlip.utils.evaluate_lip_const import evaluate_lip_const

        return float(evaluate_lip_const(net, x[:200], "all"))


def measure(name: str, method: str, out: Any) -> None:
    """Run one method on one network, and send value, seconds and memory in MiB."""
    torch.set_num_threads(1)
    net = network(name)
    shape = SHAPE if not Path(name).is_dir() else (1, 28, 28)
    x = torch.rand(1000, *shape, generator=torch.Generator().manual_seed(0))
    cl.lipschitz.upper(nn.Linear(2, 2), torch.zeros(1, 2))  # imports are not measured
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    try:
        value = value_of(net, x, method)
    except Exception as error:  # a rival may fail on a network
        out.put((type(error).__name__, 0.0, 0.0))
        return
    seconds = time.perf_counter() - begun
    out.put((value, seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024))


def alone(name: str, method: str, limit: float) -> tuple[Any, float, float]:
    """Measure in a process of its own, and stop it after a time."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=measure, args=(name, method, queue))
    process.start()
    try:
        found: tuple[Any, float, float] = queue.get(timeout=limit)
    except Exception:  # nothing came in time
        found = ("too long", limit, 0.0)
    process.terminate()
    process.join()
    return found


def rows_of(name: str, methods: list[str], limit: float, console: Console) -> list[tuple[str, ...]]:
    """Return a row of the table for each method."""
    rows: list[tuple[str, ...]] = []
    with console.status(f"{name}: {LOWER}"):
        lower, seconds, memory = alone(name, LOWER, limit)
    rows.append((Path(name).name, "lower bound (search)", f"{lower:.5g}", "1", f"{seconds:.2f}", f"{memory:.0f}"))
    for method in methods:
        with console.status(f"{name}: {method}"):
            value, seconds, memory = alone(name, method, limit)
        number = isinstance(value, float)
        told = (f"{value:.5g}", f"{value / lower:.3f}") if number else (str(value), "")
        rows.append((Path(name).name, method, *told, f"{seconds:.2f}", f"{memory:.0f}"))
        console.print("  ".join(rows[-1]))
    return rows


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", type=int, nargs="*", default=[16, 32, 64, 128, 256], help="of two hidden layers")
    parser.add_argument("--depths", type=int, nargs="*", default=[1, 3, 4, 6], help="hidden layers of 64 units")
    parser.add_argument("--runs", nargs="*", default=[], help="run folders of dense networks of 28 x 28 images")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for each")
    options = parser.parse_args()
    names = [f"784-{width}-{width}-10" for width in options.widths]
    names += ["-".join(["784", *["64"] * depth, "10"]) for depth in options.depths] + options.runs
    console = Console(stderr=True)
    methods = [*OURS, *(rival for rival, module in RIVALS.items() if find_spec(module) is not None)]
    rows = [row for name in names for row in rows_of(name, methods, options.limit, console)]
    title = f"Bounds of Lip(f), one thread, torch {torch.__version__}"
    print(Table(title, ("network", "method", "value", "ratio", "seconds", "MiB"), tuple(rows)).markdown())


if __name__ == "__main__":
    main()
