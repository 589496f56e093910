"""A denoiser that does not expand: what it costs to hold its Lipschitz constant at 1, by pairs and by a proof.

D(x) = (x + N(x)) / 2 with Lip(N) <= 1 is firmly nonexpansive, which is what the convergence of plug-and-play schemes
needs (Pesquet, Repetti, Terris, Wiaux 2021). N is a small convolutional network, trained three times: freely; with
Lip(N) held at 1 on CLIP's pairs; and with the product of its layers' norms held at 1, after which its last layer is
divided by what is left above 1, so that Lip(N) <= 1 is proven.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor, nn

import cheaplip as cl
from cheaplip.data import BatchLoader, load
from cheaplip.drawing import BLUE, GREEN, ORANGE, save, styled

KINDS = {"free": "trained freely", "pairs": "CLIP: Lip held at 1 on pairs", "product": "layer product held at 1"}
COLORS = {"free": ORANGE, "pairs": BLUE, "product": GREEN}
SHOWN = 6


class Denoiser(nn.Module):
    """The mean of the input and of what a network makes of it."""

    def __init__(self, channels: int, width: int = 32) -> None:
        super().__init__()
        sizes = [channels, width, width, width, channels]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(sizes):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
        self.inner = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """Return the denoised images."""
        inner: Tensor = self.inner(x)
        return (x + inner) / 2


class Row(NamedTuple):
    """What became of one denoiser."""

    model: Denoiser
    psnr: float
    interval: cl.lipschitz.Interval


def noisy(x: Tensor, sigma: float, seed: int) -> Tensor:
    """Return images with Gaussian noise, not clamped."""
    return x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))


def psnr(x: Tensor, clean: Tensor) -> float:
    """Return the mean peak signal-to-noise ratio in dB, for images in [0, 1]."""
    return float((-10 * (x - clean).square().flatten(1).mean(1).log10()).mean())


def penalty_of(kind: str, network: nn.Sequential, start: Tensor, seed: int) -> Any:
    """Return what is penalised in N, if anything is."""
    if kind == "pairs":
        # Pairs that are never renewed and turn by power iterations follow the constant of a denoiser best.
        more: dict[str, Any] = {"search": "power", "renew": None, "steps": 3}
        return cl.LipschitzPenalty.from_data(start, weight=1e-3, pairs=8, seed=seed, **more)
    return cl.LayerProductPenalty(network, start, weight=1e-3) if kind == "product" else None


def train(kind: str, x: Tensor, start: Tensor, arguments: argparse.Namespace, tick: Any) -> Denoiser:
    """Train a denoiser on freshly drawn noise."""
    torch.manual_seed(arguments.seed)
    model = Denoiser(x.shape[1], arguments.width)
    penalty = penalty_of(kind, model.inner, noisy(start, arguments.sigma, 1), arguments.seed)
    control = None
    if penalty is not None:
        control = cl.Discrepancy(penalty, target=0.98, step=0.05, measure="value", rule="multiplicative", floor=1e-6)
    loader = BatchLoader(x, x, 64, seed=arguments.seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, arguments.epochs * len(loader))
    draw = torch.Generator().manual_seed(arguments.seed)
    for _ in range(arguments.epochs):
        for clean, _ in loader:
            noise = arguments.sigma * torch.randn(clean.shape, generator=draw)
            loss = nn.functional.mse_loss(model(clean + noise), clean)
            if penalty is not None:
                loss = loss + penalty(model.inner)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            scheduler.step()
            if control is not None:
                control.step(penalty.value)
            tick()
    return model.eval()


def shrink(network: nn.Sequential, x: Tensor) -> None:
    """Divide the last layer by the proven bound where that is above 1; the constant falls by as much."""
    bound = cl.lipschitz.upper(network, x[:1], method="product").value
    with torch.no_grad():
        last: Any = network[-1]
        last.weight /= max(1.0, bound * (1 + 1e-6))


def draw(rows: dict[str, Row], clean: Tensor, given: Tensor) -> Figure:
    """Draw a few images before and after, and the interval of each constant."""
    with styled(), torch.no_grad():
        figure = Figure(figsize=(11, 4.6))
        parts: Any = figure.subfigures(1, 2, width_ratios=(1.25, 1))
        left, right = parts
        lines = {"noisy": given[:SHOWN], **{KINDS[kind]: row.model(given[:SHOWN]) for kind, row in rows.items()}}
        axes = left.subplots(len(lines) + 1, SHOWN)
        for line, (name, images) in enumerate({"clean": clean[:SHOWN], **lines}.items()):
            for place, image in enumerate(images):
                axes[line, place].imshow(image[0].clamp(0, 1).numpy(), cmap="gray", vmin=0, vmax=1)
                axes[line, place].set_axis_off()
            axes[line, 0].set_title(name, loc="left", fontsize=9)
        panel = right.subplots()
        for place, (kind, row) in enumerate(rows.items()):
            low, high = row.interval.lower, row.interval.upper
            panel.plot([low, high], [place, place], color=COLORS[kind], linewidth=8, solid_capstyle="butt")
            words = f"{KINDS[kind]}: {low:.2f} to {high:.2f}, {row.psnr:.1f} dB"
            panel.text(low, place - 0.28, words, fontsize=9, backgroundcolor="white")
        panel.axvline(1, color="black", linestyle="--", linewidth=1)
        panel.set(xscale="log", yticks=[], ylim=(2.5, -0.6), xlabel="Lip(N): from the steepest pair to the proof")
        panel.xaxis.set_major_formatter("{x:g}")
        panel.set_title("Up to the dashed line D is firmly nonexpansive", loc="left")
    return figure


def main() -> None:
    """Train three denoisers, print the table, save the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", choices=("digits", "mnist", "fashion-mnist"))
    parser.add_argument("--sigma", type=float, default=0.1, help="deviation of the noise; images lie in [0, 1]")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--images", type=int, default=12_000, help="training images, at most")
    parser.add_argument("--width", type=int, default=32, help="channels inside of N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/denoiser"), help="folder of the picture")
    arguments = parser.parse_args()
    if not arguments.sigma > 0 or min(arguments.epochs, arguments.images, arguments.width) < 1:
        parser.error("sigma must be above 0, and epochs, images and width at least 1")
    data = load(arguments.data, seed=arguments.seed)
    x, clean = data.train.x[: arguments.images], data.test.x[:500]
    given, rows = noisy(clean, arguments.sigma, 2), {}
    table = Table(title=f"{arguments.data}, noise of deviation {arguments.sigma:g}: {psnr(given, clean):.1f} dB")
    for head in ("N", "PSNR, dB", "Lip(N) at least", "at most (proven)", "how it is proven"):
        table.add_column(head, justify="left" if head[0] in "Nh" else "right")
    with Progress(transient=True) as bar:
        for kind, name in KINDS.items():
            task = bar.add_task(name, total=arguments.epochs * -(-len(x) // 64))
            model = train(kind, x, data.lipschitz.x[:1000], arguments, lambda task=task: bar.advance(task))
            if kind == "product":
                shrink(model.inner, x)
            interval = cl.lipschitz.bounds(model.inner, noisy(clean[:64], arguments.sigma, 3), seed=arguments.seed)
            with torch.no_grad():
                rows[kind] = Row(model, psnr(model(given), clean), interval)
            ends = (f"{rows[kind].psnr:.1f}", f"{interval.lower:.3f}", f"{interval.upper:.3f}")
            table.add_row(name, *ends, interval.method.split("; ")[-1])
    Console().print(table)
    print("picture:", save(draw(rows, clean, given), arguments.out / "denoiser.png"))


if __name__ == "__main__":
    main()
