"""What a page is made of: the files of runs, read and checked before anything is computed."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from cheaplip import runs
from cheaplip.settings import TrainSettings
from cheaplip.training import History


@final
@dataclass(frozen=True, eq=False)
class Run:
    """A finished run.

    Args:
        folder: where it lies.
        name: what it is called on the page.
        key: what its ids on the page begin with.
        config: its settings, versions and the shape of its data.
        result: what ``result.json`` holds.
        history: what ``metrics.csv`` holds.
    """

    folder: Path
    name: str
    key: str
    config: runs.Config
    result: dict[str, Any]
    history: History

    @property
    def settings(self) -> TrainSettings:
        """All settings."""
        return self.config.settings

    @property
    def held(self) -> str:
        """What its control held at the target: ``"accuracy"``, ``"loss"`` or ``"value"``, that of the penalty."""
        if self.settings.control.measure == "value":
            return "value"
        return "loss" if self.config.classes is None else "accuracy"


def read_runs(folders: Sequence[str | Path]) -> list[Run]:
    """Read runs, and give each a name that tells it from the others.

    Args:
        folders: one or more run folders.

    Raises:
        ValueError: for no run, the same one twice, or a damaged file.
        FileNotFoundError: for a folder that is missing, holds no run, or holds one that is not finished.

    Example:
        >>> read_runs([])
        Traceback (most recent call last):
        ValueError: a report needs one run folder or more; got none: name those that `cheaplip train` made
    """
    if isinstance(folders, (str, Path)):
        raise TypeError(f"runs must be a list of run folders; got {folders!r}: put it in brackets")
    paths = [Path(folder) for folder in folders]
    if not paths:
        raise ValueError("a report needs one run folder or more; got none: name those that `cheaplip train` made")
    seen: set[Path] = set()
    for path in paths:
        if path.resolve() in seen:
            raise ValueError(f"each run may be named once; got {path} twice: leave one out")
        seen.add(path.resolve())
    named = zip(paths, names_of(paths), strict=True)
    return [_read(path, name, f"run-{number}") for number, (path, name) in enumerate(named, start=1)]


def names_of(paths: Sequence[Path]) -> list[str]:
    """Return the shortest ends of different paths that tell each from all others.

    Example:
        >>> names_of([Path("a/clip"), Path("b/clip"), Path("b/plain")])
        ['a/clip', 'b/clip', 'plain']
    """
    parts = [path.resolve().parts for path in paths]
    names = []
    for mine in parts:
        length = 1
        while length < len(mine) and sum(other[-length:] == mine[-length:] for other in parts) > 1:
            length += 1
        names.append("/".join(part.rstrip("/") for part in mine[-length:]))
    return names


def _read(folder: Path, name: str, key: str) -> Run:
    config = runs.read_config(folder)
    if not runs.finished(folder):
        raise FileNotFoundError(
            f"{folder} holds a run that is not finished: finish it with `cheaplip train --resume`, or leave it out"
        )
    return Run(folder, name, key, config, runs.read_result(folder), read_history(folder / "metrics.csv"))


def read_history(path: Path) -> History:
    """Read ``metrics.csv``; an empty cell is a value that was not measured.

    Raises:
        ValueError: if the file cannot be read or is damaged; it says where.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "metrics.csv"
        ...     _ = path.write_text("epoch,loss,lower" + chr(10) + "1,2.0," + chr(10))
        ...     read_history(path).rows
        [{'epoch': 1.0, 'loss': 2.0}]
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.reader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"cannot use {path}: {' '.join(str(error).split())}; restore the file, or train anew"
        ) from error
    heads = lines[0] if lines else []
    if not {"epoch", "loss"} <= set(heads) or len(set(heads)) < len(heads) or len(lines) < 2:
        raise ValueError(f"cannot use {path}: expected columns epoch and loss and a row an epoch; train anew")
    history = History()
    for number, line in enumerate(lines[1:], start=2):
        try:
            row = {head: float(cell) for head, cell in zip(heads, line, strict=True) if cell}
        except ValueError:
            row = {}
        if not {"epoch", "loss"} <= row.keys() or not all(map(math.isfinite, row.values())):
            raise ValueError(
                f"cannot use {path}: line {number} must hold {len(heads)} finite numbers or empty cells; got "
                f"{','.join(line)!r}; restore the file, or train anew"
            )
        history.rows.append(row)
    return history
