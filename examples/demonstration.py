"""An adversarial example: an image, the perturbation magnified, and the image that the network takes for another class.

Without arguments two networks are trained on the digits of scikit-learn in seconds, one plainly and one with CLIP, and
attacked alike. --run shows networks of run folders. --model shows your own network on your own picture.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, final

import numpy as np
import torch
from demonstration_picture import Case, draw
from first_run import NAMES, train
from PIL import Image, ImageOps
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import cheaplip as cl
from cheaplip.attacks import PGD
from cheaplip.data import Data, class_names, load
from cheaplip.drawing import KINDS, save
from cheaplip.experiments.figure1.words import percent
from cheaplip.factories import called, imported
from cheaplip.models import check_fits
from cheaplip.runs import read_config

SEED, STEPS, LOOKED, COUNTED = 0, 100, 1000, 100
RADII = {1.0: 5.0, 2.0: 0.75, float("inf"): 0.05}


@final
class Parser(argparse.ArgumentParser):
    """Refuses in one sentence."""

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the arguments."""
        raise ValueError(f"{message}; --help lists all options")


def parser() -> Parser:
    """Return the options."""
    made = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    made.add_argument("--run", nargs="+", type=Path, help="run folders on one data set, instead of training")
    made.add_argument("--index", type=int, help="which test image; by default the first that all networks get right")
    made.add_argument("--data-dir", type=Path, help="the data folder of --run; by default that of the run")
    made.add_argument(
        "--model", help="your own network: pkg.mod:factory, called with shape and classes if it takes them"
    )
    made.add_argument(
        "--image", type=Path, help="your own picture for --model: cropped and resized to --shape, in [0, 1]"
    )
    made.add_argument("--labels", type=Path, help="a text file with the name of a class in each line")
    made.add_argument("--shape", help="of an input of --model (default: 3,224,224); its values "
                      "are in [0, 1], so let the model itself subtract means and divide by deviations")  # fmt: skip
    made.add_argument(
        "--norm", default="2", help="in which the perturbation counts: 1, 2 or inf (default: %(default)s)"
    )
    radii = ", ".join(f"{eps:g} in norm {norm:g}" for norm, eps in RADII.items())
    made.add_argument("--eps", type=float, help=f"the largest norm of the perturbation (default: {radii})")
    made.add_argument(
        "--out", type=Path, default=Path("runs/demonstration.png"), help="the picture (default: %(default)s)"
    )
    return made


def checked(options: argparse.Namespace) -> tuple[float, float]:
    """Return norm and radius; raise where options do not fit each other."""
    if options.norm not in ("1", "2", "inf"):
        raise ValueError(f"--norm must be 1, 2 or inf; got {options.norm}")
    norm = float(options.norm)
    eps = RADII[norm] if options.eps is None else options.eps
    PGD(eps, norm)
    own = [f"--{name}" for name in ("image", "labels", "shape") if getattr(options, name) is not None]
    if options.model is None and own:
        raise ValueError(f"{own[0]} needs --model, the network that is shown the picture")
    if options.model is not None:
        if options.image is None:
            raise ValueError("--model needs --image, the picture that it is shown")
        if options.run is not None or options.index is not None:
            raise ValueError("--model shows your own picture: leave out --run and --index")
    if options.data_dir is not None and options.run is None:
        raise ValueError("--data-dir is for --run: leave it out")
    if options.out.suffix.removeprefix(".") not in KINDS:
        raise ValueError(f"--out must end in .{', .'.join(KINDS)}; got {options.out}")
    return norm, eps


def own_case(options: argparse.Namespace) -> Case:
    """Return a user's network and picture; the picture shows what the network takes it for."""
    text = options.shape or "3,224,224"
    words = text.split(",")
    shape = tuple(int(word) if word.isdecimal() else 0 for word in words)
    if len(shape) != 3 or shape[0] not in (1, 3) or min(shape) < 1:
        raise ValueError(f"--shape must be channels,height,width with 1 or 3 channels; got {text}")
    x = picture_of(options.image, shape)
    read = None if options.labels is None else names_of(options.labels)
    offered = {"shape": shape} | ({} if read is None else {"classes": len(read)})
    factory = imported(options.model, f"--model must be pkg.mod:factory; got {options.model!r}", "a function")
    model = called(factory, options.model, offered)
    if not isinstance(model, nn.Module):
        raise TypeError(f"{options.model} must return a torch.nn.Module; got {type(model).__name__}")
    model.eval().requires_grad_(False)
    check_fits(model, shape, None)
    logits = model(x)
    names = tuple(f"class {k}" for k in range(logits.shape[1])) if read is None else read
    if len(names) != logits.shape[1] or len(names) < 2:
        raise ValueError(
            f"--labels must have a line for each class; got {len(names)} for the {logits.shape[1]} outputs of "
            f"{options.model}, of which there must be two or more"
        )
    if not bool(logits.isfinite().all()):
        raise ValueError(f"{options.model} gives NaN or infinite outputs for {options.image}: check its weights")
    for doubt in cl.attacks.doubts(model, x, logits.argmax(1)):
        print(f"note: {doubt}")
    return Case(options.model, model, x, logits.argmax(1), names)


def names_of(path: Path) -> tuple[str, ...]:
    """Read the names of classes, one a line; empty lines at the end do not count."""
    try:
        return tuple(line.strip() for line in path.read_text("utf-8").rstrip().splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"--labels must be a text file with a class in each line; cannot read {path}: {error}"
        ) from error


def picture_of(path: Path, shape: tuple[int, ...]) -> Tensor:
    """Read a picture, cut to the shape's form about its middle, and resized."""
    try:
        with Image.open(path) as opened:
            upright = ImageOps.exif_transpose(opened).convert("L" if shape[0] == 1 else "RGB")
    except FileNotFoundError:
        raise ValueError(f"--image must be a picture; found no file {path}") from None
    except Exception as error:  # whatever a damaged file makes Pillow raise
        raise ValueError(f"--image must be a picture that Pillow reads; cannot read {path}: {error}") from error
    fitted = np.asarray(ImageOps.fit(upright, (shape[2], shape[1])), dtype=np.float32)
    return torch.from_numpy(fitted / 255).reshape(shape[1], shape[2], shape[0]).permute(2, 0, 1)[None].contiguous()


def data_cases(options: argparse.Namespace) -> tuple[list[Case], Data]:
    """Return networks on one test image of their data: of run folders, or trained here."""
    if options.run is None:
        data = load("digits", seed=SEED)
        models = {name: train(data, name) for name in NAMES}
    else:
        configs = [read_config(run) for run in options.run]
        settings = configs[0].settings
        if len({config.settings.data for config in configs}) > 1 or len(set(options.run)) < len(configs):
            raise ValueError("--run must name different runs on one data set")
        data = load(settings.data, data_dir=options.data_dir or settings.data_dir, seed=settings.seed)
        if data.classes is None or len(data.shape) != 3 or data.shape[0] not in (1, 3) or data.box != (0.0, 1.0):
            raise ValueError(f"the data of --run must be images in classes, with values in [0, 1]; {data.name} is not")
        short = len({run.name for run in options.run}) == len(configs)
        models = {run.name if short else str(run): cl.load(run) for run in options.run}
    index = options.index
    if index is None:
        right = good(list(models.values()), data)
        if not len(right):
            raise ValueError(
                f"found none of the first {LOOKED} test images that all networks get right: name one by --index"
            )
        index = int(right[0])
    if not 0 <= index < len(data.test):
        raise ValueError(f"--index must be from 0 to {len(data.test) - 1}; got {index}")
    names = class_names(data.name, data.classes or 0)
    x, y = data.test.x[index : index + 1], data.test.y[index : index + 1]
    return [Case(name, model.eval().requires_grad_(False), x, y, names) for name, model in models.items()], data


def good(models: Sequence[nn.Module], data: Data) -> Tensor:
    """Return which of the first test images all networks are right about, by their numbers."""
    x, y = data.test.x[:LOOKED], data.test.y[:LOOKED]
    with torch.no_grad():
        right = torch.stack([model(x).argmax(1) == y for model in models])
    return right.all(0).nonzero().squeeze(1)


def attack(model: nn.Module, x: Tensor, y: Tensor, norm: float, eps: float) -> Tensor:
    """Return attacked images: as far into a wrong class as cross-entropy leads, or where any loss finds one."""
    seed = torch.Generator().manual_seed(SEED)
    deep = PGD(eps, norm, steps=STEPS, loss="cross-entropy", early_stop=False, generator=seed)
    attacked = deep(model, x, y)
    right = (model(attacked).argmax(1) == y).nonzero().squeeze(1)
    attacked[right] = PGD(eps, norm, steps=STEPS, generator=seed)(model, x[right], y[right])
    return attacked


def show(cases: Sequence[Case], attacked: Sequence[Tensor], norm: float, eps: float) -> None:
    """Print what the networks take image and attacked image for."""
    table = Table(title=f"PGD, {STEPS} steps, norm {norm:g}, radius {eps:g}")
    for head in ("network", "the image", "attacked", "norm of the change"):
        table.add_column(head)
    for case, x in zip(cases, attacked, strict=True):
        cells = []
        for image in (case.x, x):
            confidence, found = case.model(image).softmax(1).max(1)
            cells.append(f"{case.names[int(found)]}, {percent(float(confidence))}")
        table.add_row(case.name, *cells, f"{float((x - case.x).flatten().norm(p=norm)):.3g}")
    Console().print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Attack, print the table, draw the picture; return 0, or 2 for bad input, which is told in one sentence."""
    try:
        options = parser().parse_args(arguments)
        norm, eps = checked(options)
        data = None
        if options.model is None:
            cases, data = data_cases(options)
        else:
            cases = [own_case(options)]
        attacked = [attack(case.model, case.x, case.y, norm, eps) for case in cases]
        show(cases, attacked, norm, eps)
        if data is not None:
            count(cases, data, norm, eps)
        print(f"picture: {save(draw(cases, attacked, norm, eps), options.out)}")
    except (ValueError, TypeError, FileNotFoundError, ImportError) as error:
        print(f"demonstration: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def count(cases: Sequence[Case], data: Data, norm: float, eps: float) -> None:
    """Print how many images go as this one does: one image proves nothing."""
    chosen = good([case.model for case in cases], data)[:COUNTED]
    if len(chosen):
        x, y = data.test.x[chosen], data.test.y[chosen]
        found = {c.name: int((c.model(attack(c.model, x, y, norm, eps)).argmax(1) != y).sum()) for c in cases}
        told = ", ".join(f"{name} {turned}" for name, turned in found.items())
        print(f"turned to a wrong class, of the first {len(y)} test images that every network gets right: {told}")


if __name__ == "__main__":
    sys.exit(main())
