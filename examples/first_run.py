"""The first run: the same small network trained plainly and with CLIP, both attacked, a table and a picture.

It uses the digits that come with scikit-learn (8 × 8 pixels in [0, 1]), so it needs no download.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

import cheaplip as cl
from cheaplip.data import BatchLoader, Data, load
from cheaplip.evaluation import Result
from cheaplip.models import build

matplotlib.use("Agg")
from matplotlib import pyplot as plt

RADII = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
NAMES = ("plain", "CLIP")
COLOURS = {"plain": "#d55e00", "CLIP": "#0072b2"}
EPOCHS, SEED = 60, 0


def train(data: Data, name: str) -> nn.Module:
    """Train one network, plainly or with CLIP at a training accuracy of 95 %."""
    model = build("mlp:64-64-64-10:relu", shape=data.shape, classes=data.classes, seed=SEED)
    loader = BatchLoader(data.train.x, data.train.y, 64, seed=SEED)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    penalty = control = None
    if name == "CLIP":
        penalty = cl.LipschitzPenalty.from_data(data.lipschitz.x, weight=0.05, pairs=16, box=data.box, seed=SEED)
        control = cl.Discrepancy(penalty, target=0.95, step=0.005)
    cl.fit(
        model,
        loader,
        loss=nn.functional.cross_entropy,
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * len(loader)),
        scheduler_per="batch",
        epochs=EPOCHS,
        penalty=penalty,
        control=control,
        seed=SEED,
    )
    return model


def curve(model: nn.Module, data: Data) -> list[Result]:
    """Attack all test images at each radius by strong PGD, and measure them clean first."""
    attacks = {f"pgd@{eps}": cl.attacks.PGD(eps=eps, norm=2) for eps in RADII}
    return list(cl.evaluate(model, data.test, attacks, seed=SEED).values())


def fooled(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, float]:
    """Return the attacked image at the smallest of many radii that fools the model, and the radius."""
    for eps in [0.1 * k for k in range(1, 60)]:
        attacked = cl.attacks.PGD(eps=eps, generator=torch.Generator().manual_seed(SEED))(model, x, y)
        if int(model(attacked).argmax()) != int(y):
            return attacked, eps
    return attacked, eps


def show_table(models: dict[str, nn.Module], curves: dict[str, list[Any]], data: Data) -> None:
    """Print accuracies with their intervals, and a lower bound of each Lipschitz constant."""
    table = Table(title=f"digits, {len(data.test.y)} test images, L2 PGD: 100 steps, cross-entropy and margin loss")
    table.add_column("")
    for name in NAMES:
        table.add_column(name, justify="right", style="bold" if name == "CLIP" else "")
    for k, eps in enumerate((0.0, *RADII)):
        cells = [f"{r.accuracy:.1%}  [{r.interval[0]:.0%}, {r.interval[1]:.0%}]" for r in (curves[n][k] for n in NAMES)]
        table.add_row("clean" if eps == 0 else f"attacked, ε = {eps:g}", *cells)
    lower = [cl.lipschitz.lower(models[name], data.lipschitz.x, box=data.box) for name in NAMES]
    table.add_row("Lip in the box is at least", *(f"{bound.value:.2f}" for bound in lower))
    Console().print(table)


def draw(models: dict[str, nn.Module], curves: dict[str, list[Any]], data: Data, path: Path) -> None:
    """Draw accuracy against radius, and beside it what it takes to fool each network."""
    figure = plt.figure(figsize=(10, 4.2), layout="constrained")
    grid = figure.add_gridspec(1, 2, width_ratios=(1.25, 1))
    left, right = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    axes = left.subplots()
    for name in NAMES:
        shares = [100 * result.accuracy for result in curves[name]]
        low, high = zip(*(result.interval for result in curves[name]), strict=True)
        axes.plot((0, *RADII), shares, "o-", color=COLOURS[name], label=name, linewidth=2)
        bottom, top = ([100 * end for end in ends] for ends in (low, high))
        axes.fill_between((0, *RADII), bottom, top, color=COLOURS[name], alpha=0.15, linewidth=0)
    axes.set(xlabel="radius ε of the attack (L2 norm)", ylabel="test accuracy in %", ylim=(0, 101), xlim=(0, RADII[-1]))
    axes.set_title("Accuracy under attack (strong PGD, 95 % intervals)", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    cells = right.subplots(3, 3)
    right.suptitle("What it takes to fool each network", fontsize=10)
    good = torch.stack([models[name](data.test.x).argmax(1) == data.test.y for name in NAMES]).all(0)
    for row, digit in zip(cells, (3, 5, 8), strict=True):
        at = int((good & (data.test.y == digit)).nonzero()[0])
        x, y = data.test.x[at : at + 1], data.test.y[at : at + 1]
        pictures = [(x, f"a {digit}")]
        for name in NAMES:
            attacked, eps = fooled(models[name], x, y)
            pictures.append((attacked, f'{name}: "{int(models[name](attacked).argmax())}", ε {eps:.1f}'))
        for axis, (picture, title) in zip(row, pictures, strict=True):
            axis.imshow(picture[0, 0].detach(), cmap="gray_r", vmin=0, vmax=1)
            axis.set_title(title, fontsize=8)
            axis.set_axis_off()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Train, attack, print the table, draw the picture, and say where it lies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/first"), help="folder of the picture")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    data = load("digits", seed=SEED)
    models = {name: train(data, name) for name in NAMES}
    curves = {name: curve(models[name], data) for name in track(NAMES, "attacking")}
    show_table(models, curves, data)
    draw(models, curves, data, out / "first_run.png")
    print(f"picture: {out / 'first_run.png'}")


if __name__ == "__main__":
    main()
