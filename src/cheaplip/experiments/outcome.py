"""What an experiment gives back, and the folder that it leaves."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, final

from cheaplip.files import whole
from cheaplip.settings import ReproduceSettings

# What every experiment has.
COMMON = ("jobs", "engine", "address", "device", "out", "data_dir")
MARK = "experiment.json"


@final
@dataclass(frozen=True)
class Outcome:
    """What an experiment found, for people: a table, remarks, and where the files lie.

    Args:
        title: of the table.
        heads: of its columns.
        rows: its cells.
        remarks: sentences below the table: what was checked, what fell short.
        files: all files that were written, the picture to open first.
    """

    title: str
    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    remarks: Sequence[str] = ()
    files: Sequence[Path] = ()


def has_only(settings: ReproduceSettings, experiment: str, *names: str) -> None:
    """Raise ValueError if a setting was given that an experiment does not have.

    Args:
        settings: what was asked for.
        experiment: its name.
        names: the settings that it has beside those of all experiments (jobs, engine, address, device, out, data_dir).

    Example:
        >>> has_only(ReproduceSettings(seeds=3), "toy")
        Traceback (most recent call last):
        ValueError: toy has no setting seeds; got 3: leave it out
    """
    default = ReproduceSettings()
    for entry in fields(settings):
        value = getattr(settings, entry.name)
        if entry.name not in (*COMMON, *names) and value != getattr(default, entry.name):
            raise ValueError(f"{experiment} has no setting {entry.name}; got {value}: leave it out")


def claim(folder: Path, experiment: str, settings: Mapping[str, Any]) -> None:
    """Mark a folder as that of an experiment, or see that it is so marked.

    Args:
        folder: where the experiment writes; made if it is not there.
        experiment: its name.
        settings: all that changes what it finds; not how much of it is run, or where.

    Raises:
        ValueError: if the folder holds another experiment, the same with other settings, or other files; if it
            cannot be written to.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     claim(Path(name), "toy", {"seed": 0})
        ...     claim(Path(name), "path", {"seed": 0})
        Traceback (most recent call last):
        ValueError: ... holds the experiment toy, not path: choose another folder by --out
    """
    mark = folder / MARK
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file, not a folder: choose another folder by --out")
    if not mark.exists():
        if folder.is_dir() and any(not entry.name.startswith(f".{MARK}") for entry in folder.iterdir()):
            raise ValueError(f"{folder} holds other files than those of an experiment: choose another folder by --out")
        write_json(mark, {"experiment": experiment, "settings": dict(settings)})
        return
    found = read_json(mark)
    if found.get("experiment") != experiment:
        raise ValueError(
            f"{folder} holds the experiment {found.get('experiment')}, not {experiment}: choose another folder by --out"
        )
    before = found.get("settings")
    if not isinstance(before, dict):
        raise ValueError(f"{mark} lacks the settings of its experiment: choose another folder by --out")
    for name, value in settings.items():
        if before.get(name) != json.loads(json.dumps(value)):
            raise ValueError(
                f"{folder} holds the experiment {experiment} with {name} = {before.get(name)}, got {value}: "
                "give the same, or choose another folder by --out"
            )


def check_claimed(folder: Path) -> None:
    """Raise ValueError if a folder is no longer that of an experiment, as it was moved or deleted meanwhile.

    Example:
        >>> check_claimed(Path("runs/none"))
        Traceback (most recent call last):
        ValueError: runs/none was moved or deleted while the experiment ran: put it back and give the command again
    """
    if not (folder / MARK).is_file():
        raise ValueError(
            f"{folder} was moved or deleted while the experiment ran: put it back and give the command again"
        )


def write_json(path: Path, content: Any) -> Path:
    """Write JSON for people and programs, whole or not at all.

    Raises:
        ValueError: if the file cannot be written, or the content holds a number that is not finite.
    """
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def write_text(path: Path, text: str) -> Path:
    """Write a text, whole or not at all."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def read_json(path: Path) -> dict[str, Any]:
    """Read what :func:`write_json` wrote.

    Raises:
        ValueError: if the file is damaged, or holds no names and values.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"cannot use {path}: {reason}; remove it, or choose another folder by --out") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold values by name: remove it, or choose another folder by --out")
    return content


def cell(values: Sequence[float]) -> dict[str, Any]:
    """Return what a file tells of a number over seeds: mean, standard deviation (of two or more) and all values.

    Example:
        >>> cell([1.0, 3.0])
        {'mean': 2.0, 'std': 1.4142135623730951, 'values': [1.0, 3.0]}
    """
    spread = {"std": statistics.stdev(values)} if len(values) > 1 else {}
    return {"mean": statistics.fmean(values), **spread, "values": list(values)}
