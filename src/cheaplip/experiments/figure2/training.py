"""One run of Figure 2: a network trained at λ = 0, and on from there at 10, 1 and 10⁻¹⁰; its file in the folder."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

import cheaplip as cl
from cheaplip.data import BatchLoader, Data, regression
from cheaplip.experiments.figure2.steepness import steepest
from cheaplip.experiments.figure2.theory import least
from cheaplip.experiments.stages import Staged
from cheaplip.models import build
from cheaplip.pairs import Start

WEIGHTS = (0.0, 10.0, 1.0, 1e-10)
OUTPUTS = {"sigmoid": "mlp:1-500-200-100-1:sigmoid:sigmoid", "linear": "mlp:1-500-200-100-1:sigmoid"}
INTERVAL = (-4.0, 4.0)
EPOCHS = 200
BATCH, RATE, PAIRS = 20, 3e-3, 16
CURVE = 401
# Below this λ the least objective is the distance of samples at the same place: nothing to compare with.
COMPARED_FROM = 1.0
NUMBERS = ("weight", "lip", "at", "slope", "lower", "risk", "error", "objective")


def conditions(epochs: int) -> dict[str, Any]:
    """Return all that a run depends on, beside its output and seed."""
    return {
        "loss": "sum of squared errors over the samples",
        "optimizer": f"Adam, learning rate {RATE:g} falling to 0 as a cosine, anew for each weight",
        "precision": "float32; measured in float64",
        "epochs": epochs,
        "batch_size": BATCH,
        "pairs": PAIRS,
        "pairs_start": "uniform on the interval, with a noisy copy, drawn anew each epoch, one move a step",
        "interval": list(INTERVAL),
        "weights": list(WEIGHTS),
    }


def staged(folder: Path, output: str, seed: int, epochs: int) -> Staged:
    """Return a run of the experiment in a folder; see :func:`train`."""

    def numbers(weight: float) -> tuple[str, ...]:
        return (*NUMBERS, "least") if weight >= COMPARED_FROM else NUMBERS

    about = {"output": output, "seed": seed, "conditions": conditions(epochs)}
    path = folder / "runs" / f"{output}-seed-{seed}.json"
    return Staged(f"{output} output, seed {seed}", path, about, WEIGHTS, numbers, CURVE)


def train(folder: Path, output: str, seed: int, epochs: int) -> None:
    """Train a network at each λ in turn, from where the last one ended, and keep numbers and curves.

    Args:
        folder: of the experiment.
        output: ``sigmoid`` or ``linear``.
        seed: of data, weights, order of samples, and pairs.
        epochs: for each λ.

    Reference: Bungert et al. 2021, Algorithm 2 and section 4.1.
    """
    run = staged(folder, output, seed, epochs)
    run.path.unlink(missing_ok=True)
    data = regression(seed=seed)
    model = build(OUTPUTS[output], shape=data.shape, classes=None, seed=seed)
    stages: list[dict[str, Any]] = []
    for number, weight in enumerate(WEIGHTS):
        _train_at(model, data, weight, epochs, seed * len(WEIGHTS) + number)
        stages.append(_measured(model, data, weight))
        run.write(stages)


def _train_at(model: nn.Module, data: Data, weight: float, epochs: int, seed: int) -> None:
    x, y = data.train.x, data.train.y
    loader = BatchLoader(x, y, BATCH, seed=seed)
    start = Start(data.lipschitz.x, seed=seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=True)
    steps = epochs * len(loader)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    for _ in range(epochs):
        penalty = None
        if weight > 0:
            penalty = cl.LipschitzPenalty(*start.draw(PAIRS), weight=weight, renew=None, box=INTERVAL)
        for inputs, labels in loader:
            values, term = (model(inputs), 0.0) if penalty is None else penalty.joint(model, inputs)
            # What the minibatch says of the sum over all samples.
            loss = (values - labels).square().sum() * (len(x) / len(inputs)) + term
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rates.step()
    model.eval()


def _measured(model: nn.Module, data: Data, weight: float) -> dict[str, Any]:
    """Return the numbers and the curve of a trained network, in float64."""
    wide = copy.deepcopy(model).double().eval()
    found = steepest(wide, *INTERVAL)
    bound = cl.lipschitz.lower(wide, data.lipschitz.x.double(), box=INTERVAL, pairs=PAIRS, steps=30)
    x, y = data.train.x.double(), data.train.y.double()
    with torch.no_grad():
        risk = float((wide(x) - y).square().mean())
        error = float((wide(data.test.x.double()) - data.test.y.double()).square().mean())
        curve = wide(torch.linspace(*INTERVAL, CURVE, dtype=torch.float64).unsqueeze(1)).flatten().tolist()
    objective = len(x) * risk + weight * found.lip
    numbers = (weight, *found, bound.value, risk, error, objective)
    stage: dict[str, Any] = dict(zip(NUMBERS, numbers, strict=True))
    if weight >= COMPARED_FROM:
        stage["least"] = least(x.flatten().numpy(), y.flatten().numpy(), weight)
    return stage | {"curve": curve}
