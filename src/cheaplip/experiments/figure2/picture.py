"""Figure 2 as a picture: a panel for each λ, a row for each output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cheaplip.data import regression
from cheaplip.drawing import BLACK, BLUE, GREY, ORANGE, styled
from cheaplip.experiments.figure2.training import CURVE, INTERVAL

_TITLES = {"sigmoid": "output sigmoid (the paper)", "linear": "linear output"}
_REACH = 0.55  # how far the tangent is drawn to either side


def named(weight: float) -> str:
    """Return λ as people write it.

    Example:
        >>> named(10.0), named(1e-10)
        ('10', '10⁻¹⁰')
    """
    return "10⁻¹⁰" if weight == 1e-10 else f"{weight:g}"


def draw(runs: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw runs of one seed: true function, samples, networks, and the tangent where they are steepest.

    Args:
        runs: one for each output, as they are kept.
    """
    with styled():
        figure = Figure(figsize=(13, 6.8))
        grid = figure.subplots(len(runs), len(runs[0]["stages"]), sharex=True, sharey=True, squeeze=False)
        for line, run in zip(grid, runs, strict=True):
            samples = regression(seed=run["seed"]).train
            for axes, stage in zip(line, run["stages"], strict=True):
                _panel(axes, stage, samples.x.flatten().numpy(), samples.y.flatten().numpy())
            line[0].set_ylabel(f"{_TITLES[run['output']]}\n\nf(x)")
        for axes in grid[-1]:
            axes.set_xlabel("x")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def _panel(axes: Axes, stage: Mapping[str, Any], x: Any, y: Any) -> None:
    places = np.linspace(*INTERVAL, CURVE)
    axes.plot(x, y, ".", color=GREY, alpha=0.8, markersize=6, markeredgewidth=0, label="noisy samples")
    axes.plot(places, np.maximum(np.abs(places) - 3, 0) / 2, "--", color=BLACK, linewidth=1.3, label="true function")
    axes.plot(places, stage["curve"], color=BLUE, linewidth=2.2, label="trained network")
    at, slope = stage["at"], stage["slope"]
    ends = np.clip([at - _REACH, at + _REACH], *INTERVAL)
    height = np.interp(at, places, stage["curve"])
    axes.plot(ends, height + slope * (ends - at), color=ORANGE, linewidth=1.6, label="tangent where it is steepest")
    axes.plot([at], [height], "o", color=ORANGE, markersize=4.5)
    first = "" if stage["weight"] == 0 else ", warm start"
    axes.set_title(f"λ = {named(stage['weight'])}{first}\nLip {stage['lip']:.3f}, error {stage['error']:.5f}")
    axes.set(xlim=INTERVAL, ylim=(-0.2, 0.72), xticks=(-3, 0, 3), yticks=(0.0, 0.2, 0.4, 0.6))
