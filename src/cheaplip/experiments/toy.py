"""Algorithm 1 to look at: pairs of a function of one variable climb, update by update, to where it is steepest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from cheaplip.drawing import BLACK, CYCLE, GREY, animate, frame, styled
from cheaplip.experiments.figure2.steepness import Steepest, steepest
from cheaplip.experiments.outcome import Outcome, check_claimed, claim, has_only, write_json
from cheaplip.files import whole
from cheaplip.pairs import Pairs
from cheaplip.settings import ReproduceSettings

__all__ = ["run"]

INTERVAL = (-4.0, 4.0)
# Flights of stairs: where each is, how high, how wide; its steepness is about height / width.
STAIRS = ((-3.0, 0.55, 0.45), (-1.2, -1.0, 0.5), (0.8, 0.9, 0.3), (2.8, -0.7, 0.35))
FORMULA = " ".join(f"{height:+g} tanh((x {-place:+g}) / {width:g})" for place, height, width in STAIRS)
FORMULA = FORMULA.removeprefix("+").replace(" +", " + ").replace(" -", " - ")
# Where the pairs start: some near the steepest place, some not.
STARTS = ((-3.9, -3.2), (-2.1, -0.9), (-0.3, 0.5), (1.0, 2.2), (2.2, 2.9), (3.1, 3.8))
# Marker and colour of each pair.
LOOKS = tuple(zip("osD^vP", CYCLE, strict=False))
STEP, SMALLEST, UPDATES = 0.02, 0.04, 32
# A pair has reached the steepest place if its quotient is within this part of the true constant.
REACHED = 0.01
HEADS = ("pair", "from", "to", "quotient at first", "in the end", "")


def run(settings: ReproduceSettings, folder: Path, *, progress: bool = False) -> Outcome:
    """Draw the pairs of a function update by update; see :func:`cheaplip.experiments.reproduce`.

    Leaves ``toy.gif``, ``frames/000.png`` and so on, and ``toy.json``. It takes seconds, so that no bar is shown and
    all is done anew each time, with the same bits.

    Raises:
        ValueError: for settings that it does not have, or a folder of another experiment.

    Reference: Bungert et al. 2021, Algorithm 1.
    """
    has_only(settings, "toy")
    if settings.device == "cuda":
        raise ValueError("toy runs on the CPU, since it has no network; got device cuda: leave it out")
    claim(folder, "toy", {})
    true = steepest(function, *INTERVAL)
    updates = climb()
    scene = _Scene(true, updates)
    images = [scene.at(k) for k in range(len(updates))]
    check_claimed(folder)
    frames = [_save(image, folder / "frames" / f"{k:03}.png") for k, image in enumerate(images)]
    rows, reached = _rows(updates, true)
    largest = updates[-1]["largest"]
    remarks = [
        f"the largest quotient is {largest:.4f}, {100 * largest / true.lip:.2f} % of the true constant {true.lip:.4f}, "
        f"the largest |f'| on [{INTERVAL[0]:g}, {INTERVAL[1]:g}], at x = {true.at:.3f}",
        f"{reached} of {len(STARTS)} pairs reach it within {100 * REACHED:.0f} %; the others end in local maxima",
    ]
    content = {
        "function": FORMULA,
        "interval": list(INTERVAL),
        "lip": {"value": true.lip, "at": true.at},
        "search": f"ascent: steps along the gradient, the first of length {STEP:g}, longer where the last one rose",
        "min_distance": SMALLEST,
        "remarks": remarks,
        "updates": updates,
    }
    gif = animate(images, folder / "toy.gif", seconds=0.2, last=3.0)
    files = [gif, write_json(folder / "toy.json", content), *frames]
    return Outcome(f"Algorithm 1 on f(x) = {FORMULA}, {UPDATES} updates", HEADS, rows, remarks, files)


def function(x: Tensor) -> Tensor:
    """Return f(x), point by point.

    Example:
        >>> round(float(function(torch.tensor(0.0))), 3)
        -0.625
    """
    total = torch.zeros_like(x)
    for place, height, width in STAIRS:
        total = total + height * torch.tanh((x - place) / width)
    return total


def climb() -> list[dict[str, Any]]:
    """Move the pairs by Algorithm 1 and return where they were before the first update, and after each.

    Returns:
        For each: ``update``; ``largest``, the largest quotient so far; and ``pairs``, with ``u``, ``v``, ``quotient``.
    """
    starts = torch.tensor(STARTS, dtype=torch.float64)
    pairs = Pairs(starts[:, :1], starts[:, 1:], box=INTERVAL, min_distance=SMALLEST, step=STEP)
    found: list[dict[str, Any]] = []
    largest = 0.0
    for update in range(UPDATES + 1):
        measured = pairs.measure(function, climb=True)
        largest = max(largest, *measured.values)
        ends = zip(pairs.u.flatten().tolist(), pairs.v.flatten().tolist(), measured.values, strict=True)
        told = [{"u": u, "v": v, "quotient": value} for u, v, value in ends]
        found.append({"update": update, "largest": largest, "pairs": told})
        pairs.move(measured)
    return found


def _rows(updates: Sequence[dict[str, Any]], true: Steepest) -> tuple[list[tuple[str, ...]], int]:
    """Return a row for each pair, and how many pairs reached the steepest place."""
    rows: list[tuple[str, ...]] = []
    reached = 0
    for k, (first, last) in enumerate(zip(updates[0]["pairs"], updates[-1]["pairs"], strict=True)):
        there = last["quotient"] >= (1 - REACHED) * true.lip
        reached += there
        begun, ended = (f"({pair['u']:.2f}, {pair['v']:.2f})" for pair in (first, last))
        words = "the steepest place" if there else "a local maximum"
        rows.append((str(k + 1), begun, ended, f"{first['quotient']:.3f}", f"{last['quotient']:.3f}", words))
    return rows, reached


def _save(image: Image.Image, path: Path) -> Path:
    with whole(path) as temporary:
        image.save(temporary, format="PNG")
    return path


@final
class _Scene:
    """The picture, drawn once and changed from update to update, so that nothing shakes."""

    def __init__(self, true: Steepest, updates: Sequence[dict[str, Any]]) -> None:
        self.true, self.updates = true, updates
        with styled():
            self.figure = Figure(figsize=(10, 4.4))
            self.left, self.right = self.figure.subplots(1, 2, width_ratios=(1.9, 1))
            self._graph()
            self._curves()
        self._show(0)
        frame(self.figure)
        self.figure.set_layout_engine("none")  # as it is now, for all frames

    def at(self, update: int) -> Image.Image:
        """Return the frame of an update."""
        self._show(update)
        return frame(self.figure)

    def _graph(self) -> None:
        x = np.linspace(*INTERVAL, 801)
        self.left.plot(x, function(torch.from_numpy(x)).numpy(), color=BLACK, linewidth=1.6)
        self.left.axvline(self.true.at, color=GREY, linestyle="--", linewidth=1.2)
        self.left.text(self.true.at + 0.1, -1.0, "steepest place", color=BLACK, fontsize=9)
        self.secants = [self.left.plot([], [], color=colour, linewidth=1.4, alpha=0.8)[0] for _, colour in LOOKS]
        self.ends = [
            self.left.plot([], [], f"{marker}-", color=colour, markersize=8.5, markeredgecolor="white", zorder=3)[0]
            for marker, colour in LOOKS
        ]
        self.left.set(xlim=INTERVAL, ylim=(-1.15, 1.75), xlabel="x", ylabel="f(x)")

    def _curves(self) -> None:
        axes = self.right
        axes.axhline(self.true.lip, color=GREY, linestyle="--", linewidth=1.2)
        axes.text(0.6, self.true.lip + 0.05, f"true constant {self.true.lip:.3f}", color=BLACK, fontsize=9)
        self.each = [axes.plot([], [], color=colour, linewidth=1.2, alpha=0.9)[0] for _, colour in LOOKS]
        (self.largest,) = axes.plot([], [], color=BLACK, linewidth=2.4, linestyle=":", label="largest so far")
        axes.set(xlim=(0, UPDATES), ylim=(0, 1.15 * self.true.lip), xlabel="update", ylabel="quotient of each pair")
        axes.legend(loc="lower right")

    def _show(self, update: int) -> None:
        now = self.updates[update]
        until = self.updates[: update + 1]
        steps = [entry["update"] for entry in until]
        for k, pair in enumerate(now["pairs"]):
            x = np.array([pair["u"], pair["v"]])
            y = function(torch.from_numpy(x)).numpy()
            self.ends[k].set_data(x, y)
            # A close pair is hardly seen: its secant is drawn longer than it is.
            direction = np.array([x[1] - x[0], y[1] - y[0]])
            reach = max(0.0, 0.45 / float(np.hypot(*direction)) - 0.5) * direction
            self.secants[k].set_data([x[0] - reach[0], x[1] + reach[0]], [y[0] - reach[1], y[1] + reach[1]])
            self.each[k].set_data(steps, [entry["pairs"][k]["quotient"] for entry in until])
        self.largest.set_data(steps, [entry["largest"] for entry in until])
        self.left.set_title(f"update {update} of {UPDATES}: six pairs climb to where f is steep")
        self.right.set_title(f"largest quotient so far {now['largest']:.3f}")
