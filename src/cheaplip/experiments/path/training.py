"""One direction of the path: a network trained for each λ, from where the λ before left it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import cheaplip as cl
from cheaplip.experiments.path.exact import INTERVAL, Floats, X, Y, best, largest_slope, pieces
from cheaplip.experiments.stages import Staged
from cheaplip.models import build
from cheaplip.pairs import Start

# Three a decade, from where the best function is nearly the steepest to where it has long been a constant.
WEIGHTS = tuple(10 ** (k / 3 - 4) for k in range(13))
DIRECTIONS = ("growing", "falling")
# Half as wide, falling paths of some seeds stay short of the fit: units that the constant switched off do not return.
MODEL = "mlp:1-256-128-1:relu"
STEPS = 800
# The first network of the growing path begins at random, all others near where they end.
FIRST = 2
RATE = 5e-3
# Pairs start this close, in units of the interval's scale (0.03 is about 0.018), anywhere in the interval, and live for
# two steps: a narrow steep piece must not go unseen for long, least of all in the last steps, which are too short to
# mend it.
PAIRS, LIFETIME, NOISE, SMALLEST = 32, 2, 0.03, 0.002
NUMBERS = ("weight", "risk", "lipschitz", "penalty", "distance", "least")
CURVE = 201  # points of each drawn function


def conditions(epochs: int) -> dict[str, Any]:
    """Return all that decides what a run finds."""
    return {
        "model": MODEL,
        "optimizer": f"Adam, all points in each step, learning rate from {RATE:g} to 0 as a cosine, anew for each λ",
        "steps": epochs,
        "first": f"{FIRST} times as many steps for the first λ of the growing path",
        "pairs": f"{PAIRS} in {list(INTERVAL)}, drawn anew every {LIFETIME} steps, at least {SMALLEST:g} apart",
        "precision": "float64",
    }


def staged(folder: Path, direction: str, seed: int, epochs: int) -> Staged:
    """Return a run of the experiment in a folder; see :func:`train`."""
    about = {"direction": direction, "seed": seed, "conditions": conditions(epochs)}
    path = folder / "runs" / f"{direction}-seed-{seed}.json"
    weights = WEIGHTS if direction == "growing" else WEIGHTS[::-1]
    return Staged(f"{direction} λ, seed {seed}", path, about, weights, lambda weight: NUMBERS, CURVE)


def train(folder: Path, direction: str, seed: int, epochs: int) -> None:
    """Train along growing or falling λ and write what was found, after each λ.

    Args:
        folder: of the experiment.
        direction: ``"growing"`` or ``"falling"``.
        seed: of the network and the pairs.
        epochs: steps for each λ.

    Reference: Bungert et al. 2021, Algorithm 2, here with fixed λ and steps of Adam.
    """
    run = staged(folder, direction, seed, epochs)
    run.path.unlink(missing_ok=True)
    net = network(seed)
    start = Start(torch.linspace(*INTERVAL, 2001, dtype=torch.float64).unsqueeze(1), noise=NOISE, seed=seed)
    penalty = cl.LipschitzPenalty(*start.draw(PAIRS), weight=0.0, renew=LIFETIME, box=INTERVAL, min_distance=SMALLEST)
    penalty.pairs.start = start
    stages: list[dict[str, Any]] = []
    for weight in run.weights:
        penalty.weight.fill_(weight)
        _descend(net, penalty, epochs * (FIRST if direction == "growing" and not stages else 1))
        stages.append(measured(net, penalty))
        run.write(stages)


def network(seed: int) -> nn.Sequential:
    """Return a network whose first kinks lie all over the interval and a little beyond."""
    net = build(MODEL, shape=(1,), classes=None, seed=seed).double()
    if not isinstance(net, nn.Sequential) or not isinstance(first := net[1], nn.Linear):
        raise TypeError(f"{MODEL} must be a chain that begins with a linear layer; got {net}")
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        kinks = 1.2 * (2 * torch.rand(first.out_features, generator=draw, dtype=torch.float64) - 1)
        first.weight.copy_(torch.randn(first.weight.shape, generator=draw, dtype=torch.float64).sign())
        first.bias.copy_(-first.weight[:, 0] * kinks)
    return net


def _descend(net: nn.Sequential, penalty: cl.LipschitzPenalty, steps: int) -> None:
    """Minimise ``mean (f(x) - y)² + λ Lip(f, X_Lip)``."""
    x, y = (torch.from_numpy(values).unsqueeze(1) for values in (X, Y))
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        output, term = penalty.joint(net, x)
        loss = (output - y).square().mean() + term
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        scheduler.step()


def measured(net: nn.Sequential, penalty: cl.LipschitzPenalty) -> dict[str, Any]:
    """Measure a network exactly, kink by kink, beside what its penalty says.

    Returns:
        ``weight``, λ; ``risk``; ``lipschitz``, on the interval; ``penalty``, Lip(f, X_Lip) as the last step saw it;
        ``distance``, the largest one on the interval from the constant at the labels' mean; ``least``, the least
        objective of all functions; ``curve``, the network's values at 201 points of the interval.
    """
    at, values = pieces(net, *INTERVAL)
    weight = float(penalty.weight)
    return {
        "weight": weight,
        "risk": float(np.mean((np.interp(X, at, values) - Y) ** 2)),
        "lipschitz": largest_slope(at, values),
        "penalty": float(penalty.value),
        "distance": float(np.abs(values - Y.mean()).max()),
        "least": best(X, Y, weight).objective,
        "curve": [round(value, 6) for value in np.interp(places(), at, values).tolist()],
    }


def places() -> Floats:
    """Return the points of the drawn functions."""
    return np.linspace(*INTERVAL, CURVE)
