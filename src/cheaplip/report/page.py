"""write_report(): all that the command ``cheaplip report`` does."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from cheaplip import __version__
from cheaplip.data import Data
from cheaplip.data import load as load_data
from cheaplip.files import whole
from cheaplip.models import check_fits
from cheaplip.report import adversarial, steepest
from cheaplip.report.comparing import compare
from cheaplip.report.pictures import is_image
from cheaplip.report.reading import Run, read_runs
from cheaplip.report.views import Pictures, View, view_of
from cheaplip.report.waiting import Waiting
from cheaplip.report.words import number
from cheaplip.runs import device_of, load

# Data, updates of the pairs, examples, curves.
PIECES = 1 + steepest.UPDATES + 1 + 1 + 1


def write_report(
    runs: Sequence[str | Path],
    out: str | Path,
    *,
    data_dir: str | Path | None = None,
    device: str = "auto",
    progress: bool | None = None,
) -> Path:
    """Write one HTML page about a run, or about several side by side; it needs no other file and no network.

    The page shows key figures, curves over epochs, robustness over the radius of attacks, the steepest pairs as
    Algorithm 1 moves them, adversarial examples, and all settings. The same runs give the same bytes.

    Args:
        runs: one or more folders of finished runs.
        out: the file to write; one that is there is replaced.
        data_dir: the data folder; None for that of each run.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``, where pairs and examples are computed.
        progress: show a bar if it takes over two seconds; None for: if standard error is a terminal.

    Returns:
        The file.

    Raises:
        FileNotFoundError: for a run that is missing or not finished. Missing data is no error: the page says so.
        ValueError: for no run, the same run twice, a damaged file, or a file that cannot be written.
        ImportError: if a package is missing.

    Example:
        >>> write_report(["runs/none"], "report.html")
        Traceback (most recent call last):
        FileNotFoundError: expected a run folder, found no folder runs/none: make one with `cheaplip train`
    """
    read = read_runs(runs)
    out = Path(out).expanduser()
    _check_out(out, read)
    place = device_of(device)
    with Waiting(PIECES * len(read), progress) as waiting:
        page = _page(read, data_dir, place, waiting)
    with whole(out) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")
    return out


def _check_out(out: Path, runs: Sequence[Run]) -> None:
    """Look before anything is computed whether the page can be written."""
    if out.is_dir():
        raise ValueError(f"cannot write {out}, which is a folder: name a file, such as {out / 'report.html'}")
    nearest = out.parent
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        why = "is not writable" if nearest.is_dir() else "is no folder"
        raise ValueError(f"cannot write {out}, as {nearest} {why}: choose another file by --out")
    if out.suffix.lower() not in (".html", ".htm") and out.resolve().parent in {run.folder.resolve() for run in runs}:
        raise ValueError(f"cannot write {out}, which would be a file of a run: choose a name that ends in .html")


def _page(runs: Sequence[Run], data_dir: str | Path | None, device: torch.device, waiting: Waiting) -> str:
    loaded = lru_cache(maxsize=1)(load_data)
    views: list[View] = []
    for run in runs:
        pictures = _pictures(run, data_dir, device, loaded, waiting)
        waiting.advance("curves")
        views.append(view_of(run, pictures))
    comparison = compare(runs) if len(runs) > 1 else None
    script = _packaged("slider.js")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return (
        _templates()
        .get_template("page.html")
        .render(
            views=views,
            comparison=comparison,
            version=__version__,
            style=Markup(_packaged("style.css")),
            script=Markup(script),
            policy=f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'; "
            "base-uri 'none'; form-action 'none'",
        )
    )


def _pictures(run: Run, data_dir: str | Path | None, device: torch.device, loaded: Any, waiting: Waiting) -> Pictures:
    """Return what can be shown of a run's inputs, and why not where nothing can."""
    classes, shape, settings = run.config.classes, run.config.shape, run.settings
    model = load(run.folder).to(device).requires_grad_(False)
    regression = "This is a regression: adversarial examples are for data with classes." if classes is None else ""
    if not is_image(shape):
        why = f"The inputs have the shape ({', '.join(map(str, shape))}): they are no images that a page could show."
        return Pictures(no_films=why, no_examples=regression or why)
    waiting.advance(f"data of {run.name}")
    try:
        data: Data = loaded(settings.data, data_dir=data_dir or settings.data_dir, seed=settings.seed)
        check_fits(model, data.shape, data.classes, free=data.classes is None)
    except (FileNotFoundError, ValueError, TypeError, ImportError) as error:
        # What the run itself holds is worth a page.
        why = f"There are no pictures, as the data of the run cannot be used: {error}."
        return Pictures(no_films=why, no_examples=regression or why)
    films = steepest.films(model, data, settings, device, waiting.advance)
    waiting.advance("adversarial examples")
    found, eps = None, ""
    if not regression:
        radius = adversarial.radius_for(data, run.result.get("robust", []))
        found, eps = adversarial.examples(model, data, radius, settings.seed, device), f"{radius:g}"
    return Pictures(
        films=films,
        examples=found,
        no_examples=regression,
        box="in all space" if data.box is None else f"within the box [{number(data.box[0])}, {number(data.box[1])}]",
        eps=eps,
        starts="X_Lip" if len(data.lipschitz) else "the training set",
        coloured=shape[0] == 3,
    )


def _packaged(name: str) -> str:
    return (resources.files("cheaplip.report") / "templates" / name).read_text(encoding="utf-8")


def _templates() -> Environment:
    return Environment(
        loader=FunctionLoader(_packaged),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
