"""An adversarial patch: one small picture that makes a network take all that it is laid on for the same class.

Without arguments two networks are trained on the digits of scikit-learn in seconds, one plainly and one with CLIP, and
each gets a patch of its own, towards the class that it is easiest to turn to. --run shows networks of run folders.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, final

import torch
from first_run import NAMES, train
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn

import cheaplip as cl
from cheaplip.attacks import Patch, Success, easiest_target, success, train_patch
from cheaplip.data import Data, class_names, load
from cheaplip.drawing import BLACK, BLUE, CYCLE, GREY, KINDS, ORANGE, save, styled
from cheaplip.models import check_fits
from cheaplip.runs import read_config
from cheaplip.runs.patch_picture import chosen, show_image, show_patch

SEED, TRAINED, TESTED, STEPS = 0, 2000, 1000, 500
AREAS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25)
SHOWN, SHOWN_AREA = 5, 0.25


@final
class Parser(argparse.ArgumentParser):
    """Refuses in one sentence."""

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the arguments."""
        raise ValueError(f"{message}; --help lists all options")


@final
@dataclass(frozen=True, eq=False)
class Case:
    """A network, its patch, and how often the patch and the noise in its place succeed, by area."""

    name: str
    model: nn.Module
    patch: Patch
    hits: list[Success]
    control: list[Success]


def parser() -> Parser:
    """Return the options."""
    made = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    made.add_argument("--run", nargs="+", type=Path, help="run folders on one data set, instead of training")
    made.add_argument("--data-dir", type=Path, help="the data folder of --run; by default that of the run")
    made.add_argument("--target", help="the class to turn to; by default each network's weakest point")
    made.add_argument("--shape", default="round", help="round or square (default: %(default)s)")
    made.add_argument(
        "--out", type=Path, default=Path("runs/patch.png"), help="the picture; the patches go beside it, .npz "
        "(default: %(default)s)"
    )  # fmt: skip
    return made


def networks(options: argparse.Namespace) -> tuple[dict[str, nn.Module], Data]:
    """Return networks by name, and their data: of run folders, or trained here."""
    if options.run is None:
        data = load("digits", seed=SEED)
        return {name: train(data, name).eval() for name in track(NAMES, "training")}, data
    settings = [read_config(run).settings for run in options.run]
    if len({s.data for s in settings}) > 1 or len(set(options.run)) < len(settings):
        raise ValueError("--run must name different runs on one data set")
    data = load(settings[0].data, data_dir=options.data_dir or settings[0].data_dir, seed=settings[0].seed)
    if data.classes is None or len(data.shape) != 3 or data.shape[0] not in (1, 3) or data.box is None:
        raise ValueError(f"the data of --run must be images in classes, with a box; {data.name} is not")
    short = len({run.name for run in options.run}) == len(options.run)
    models = {run.name if short else f"{run.parent.name}/{run.name}": cl.load(run) for run in options.run}
    for model in models.values():
        check_fits(model, data.shape, data.classes)
    return models, data


def made(name: str, model: nn.Module, data: Data, options: argparse.Namespace) -> Case:
    """Train a patch on training images and count its success on test images, beside that of noise."""
    x, y = data.train.x[:TRAINED], data.train.y[:TRAINED]
    box: Any = data.box
    names = class_names(data.name, data.classes or 0)
    if options.target is None:
        target = easiest_target(model, x, y, shape=options.shape, box=box, seed=SEED)
    elif options.target in names:
        target = names.index(options.target)
    else:
        raise ValueError(f"--target must be one of {', '.join(names)}; got {options.target}")
    patch = train_patch(model, x[y != target], target, shape=options.shape, steps=STEPS, box=box, seed=SEED)
    tested = data.test.x[:TESTED], data.test.y[:TESTED]
    hits, control = (
        [success(model, one.on(area), *tested, seed=SEED) for area in AREAS] for one in (patch, patch.noise(SEED))
    )
    return Case(name, model, patch, hits, control)


def show(cases: Sequence[Case], names: Sequence[str]) -> None:
    """Print success by area, with the intervals."""
    table = Table(title="taken for the target in %, by area; in brackets: noise")
    for head in ("network", "target", *(f"{100 * area:g} %" for area in AREAS)):
        table.add_column(head, justify="left" if head in ("network", "target") else "right")
    for case in cases:
        cells = [
            f"{100 * hit.rate:.0f} ({100 * noise.rate:.0f})" for hit, noise in zip(case.hits, case.control, strict=True)
        ]
        table.add_row(case.name, names[case.patch.target], *cells)
    Console().print(table)


def draw(cases: Sequence[Case], data: Data, names: Sequence[str]) -> Figure:
    """Draw a row for each network, its patch and images under it, and below success over the area."""
    with styled(), torch.no_grad():
        figure = Figure(figsize=(9.6, 2.1 * len(cases) + 3.9), layout="constrained")
        figure.suptitle(f"one patch for all images, here on {100 * SHOWN_AREA:g} % of each, and what the network says")
        ratios = (*(2.1 for _ in cases), 3.6)
        parts: Any = figure.subfigures(len(cases) + 1, 1, height_ratios=ratios)
        for case, color, part in zip(cases, CYCLE[1::-1] + CYCLE[2:], parts[:-1], strict=False):
            _row(part, case, color, data, names)
        axes = parts[-1].subplots()
        for case, color in zip(cases, CYCLE[1::-1] + CYCLE[2:], strict=False):
            _curve(axes, case, color, names[case.patch.target])
        axes.set(xlabel="area of the patch in % of the image", ylabel="taken for the target in %",
                 xlim=(0, 26), ylim=(0, 100))  # fmt: skip
        axes.legend(loc="upper left", fontsize=9)
        return figure


def _row(part: Any, case: Case, color: str, data: Data, names: Sequence[str]) -> None:
    x, y = data.test.x[:TESTED], data.test.y[:TESTED]
    rows = chosen(case.model, x, y, case.patch.target)[:SHOWN]
    cells = part.subplots(1, SHOWN + 1, width_ratios=(1.25, *(1 for _ in range(SHOWN))))
    show_patch(cells[0], case.patch)
    cells[0].set_ylabel(case.name, weight="bold", color=color, size=12)
    cells[0].set_title(f"patch: “{names[case.patch.target]}”", size=10)
    covered = case.patch.on(SHOWN_AREA).lay(x[rows], torch.Generator().manual_seed(SEED))
    found = case.model(covered).argmax(1).tolist()
    for axes in cells[1 + len(rows) :]:
        axes.set_axis_off()
    for axes, image, label, answer in zip(cells[1:], covered, y[rows].tolist(), found, strict=False):
        show_image(axes, image, data.box)
        turned = answer == case.patch.target
        axes.set_title(names[label], size=9, color=GREY)
        axes.set_xlabel(f"“{names[answer]}”", size=10, weight="bold" if turned else "normal",
                        color=ORANGE if turned else BLUE if answer == label else BLACK)  # fmt: skip


def _curve(axes: Any, case: Case, color: str, target: str) -> None:
    shares = [100 * area for area in AREAS]
    axes.plot(shares, [100 * hit.rate for hit in case.hits], "o-", color=color, label=f"{case.name}, “{target}”")
    axes.plot(shares, [100 * hit.rate for hit in case.control], ":", color=color, label=f"{case.name}, noise instead")
    low, high = zip(*(hit.interval for hit in case.hits), strict=True)
    axes.fill_between(shares, [100 * v for v in low], [100 * v for v in high], color=color, alpha=0.15, linewidth=0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, count, draw; return 0, or 2 for bad input, which is told in one sentence."""
    try:
        options = parser().parse_args(arguments)
        if options.out.suffix.removeprefix(".") not in KINDS:
            raise ValueError(f"--out must end in .{', .'.join(KINDS)}; got {options.out}")
        if options.run is not None and len(options.run) > len(CYCLE):
            raise ValueError(f"--run takes {len(CYCLE)} folders at most; got {len(options.run)}")
        models, data = networks(options)
        names = class_names(data.name, data.classes or 0)
        cases = [made(name, model, data, options) for name, model in track(models.items(), "training patches")]
        show(cases, names)
        for case in cases:
            case.patch.save(options.out.with_name(f"{options.out.stem}-{case.name.replace('/', '-')}.npz"))
        print(f"picture: {save(draw(cases, data, names), options.out)}")
    except (ValueError, TypeError, FileNotFoundError, ImportError) as error:
        print(f"patch: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
