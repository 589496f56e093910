"""Why the product of layer norms is loose: |x| as a network, its true Lipschitz constant, and the product.

|x| = relu(x) + relu(-x) is a ReLU network of two layers. Nothing is steeper than |x|'s slope of 1, yet the norms of
the two layers multiply to 2; applied k times over, |…|x|…| is |x| still, and the product is 2 to the power of k.
LipSDP, which looks at all layers together, proves 1.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import nn

import cheaplip as cl
from cheaplip.drawing import BLUE, GREEN, GREY, ORANGE, save, styled

TIMES = (1, 2, 3, 4)


def absolute_value(times: int = 1) -> nn.Sequential:
    """Return the network |x|, applied so many times over."""
    layers: list[nn.Module] = []
    for _ in range(times):
        split, join = nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False)
        split.weight.data = torch.tensor([[1.0], [-1.0]])
        join.weight.data = torch.tensor([[1.0, 1.0]])
        layers += [split, nn.ReLU(), join]
    return nn.Sequential(*layers)


def draw(intervals: list[cl.lipschitz.Interval], tight: list[float]) -> Figure:
    """Draw |x| with its steepest secant between the cones of both constants, and the bounds over the depth."""
    x = torch.linspace(-1.5, 1.5, 301)
    size, first = x.abs(), intervals[0]
    u, v = (float(point) for point in first.pair)
    with styled(), torch.no_grad():
        figure = Figure(figsize=(9.6, 4.0))
        left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
        left.fill_between(x, -first.lower * size, first.lower * size, color=BLUE, alpha=0.14, linewidth=0)
        for side in (-1, 1):
            low, high = side * first.lower * size, side * first.upper * size
            left.fill_between(x, low, high, color=ORANGE, alpha=0.14, linewidth=0)
        left.plot(x, absolute_value()(x.unsqueeze(1)).squeeze(1), color=BLUE)
        left.plot([u, v], [abs(u), abs(v)], "o", color="black", markersize=5)
        left.annotate(
            f"the steepest pair:\nslope {first.lower:.2f}",
            ((u + v) / 2, (abs(u) + abs(v)) / 2),
            xytext=(0, 1.7),
            ha="center",
            arrowprops={"arrowstyle": "-", "color": GREY, "shrinkB": 5},
        )
        left.text(1.0, 0.0, f"Lip {first.lower:.0f}", ha="center", va="center")
        left.text(1.0, -1.5, f"layer product {first.upper:.0f}", ha="center", va="center")
        left.set(xlim=(-1.5, 1.5), ylim=(-2.1, 2.3), xlabel="x", ylabel="f(x)")
        left.set_title("|x|, and where each constant lets f go from f(0) = 0")
        right.plot(TIMES, [i.upper for i in intervals], "s-", color=ORANGE, label="layer product (upper)")
        right.plot(TIMES, tight, "^-", color=GREEN, markersize=9, label="LipSDP-Neuron (upper)")
        right.plot(TIMES, [i.lower for i in intervals], "o-", color=BLUE, label="steepest pair (lower): the true 1")
        right.set_yscale("log", base=2)
        right.set(xlabel="times that |·| is applied", ylabel="Lipschitz constant", title="|…|x|…| is |x| still")
        right.set_xticks(TIMES)
        right.yaxis.set_major_formatter("{x:g}")
        right.legend(loc="upper left")
    return figure


def main() -> None:
    """Bound |x| in three norms and |…|x|…| in one, print the tables, save the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/absolute_value"), help="folder of the picture")
    out: Path = parser.parse_args().out
    x = torch.linspace(-1, 1, 20).unsqueeze(1)
    table = Table(title="|x| = relu(x) + relu(-x): the true constant is 1")
    for head in ("network", "norm", "lower (a pair)", "upper (layer product)", "upper (LipSDP-Neuron)"):
        table.add_column(head, justify="left" if head == "network" else "right")
    for p in (1, 2, math.inf):
        interval = cl.lipschitz.bounds(absolute_value(), x, p=p, method="product")
        best = f"{cl.lipschitz.upper(absolute_value(), x).value:.4f}" if p == 2 else ""
        table.add_row("|x|", f"{p:g}", f"{interval.lower:.4f}", f"{interval.upper:.4f}", best)
    intervals = [cl.lipschitz.bounds(absolute_value(times), x, method="product") for times in TIMES]
    tight = [cl.lipschitz.upper(absolute_value(times), x).value for times in TIMES]
    for times, interval, value in list(zip(TIMES, intervals, tight, strict=True))[1:]:
        table.add_row(f"|·| {times} times", "2", f"{interval.lower:.4f}", f"{interval.upper:.4f}", f"{value:.4f}")
    Console().print(table)
    print(f"picture: {save(draw(intervals, tight), out / 'absolute_value.png')}")


if __name__ == "__main__":
    main()
