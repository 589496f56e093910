"""A grid of settings: what a sweep's file says, made into the settings and the folder of each run."""

from __future__ import annotations

import functools
import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from cheaplip.settings import TrainSettings, from_mapping, settings_of

LONGEST = 120  # characters of a folder's name
_GRID, _CASES = "grid", "cases"
_BESIDE = (_GRID, _CASES, "input", "versions")  # the last two as in config.yaml of a run
_OWN = ("out", "resume")  # which a sweep decides
_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")  # that YAML takes for text, such as 1e-3


@final
@dataclass(frozen=True)
class Planned:
    """One run of a sweep.

    Args:
        name: of its folder; it tells what is told of the run.
        told: the settings that grid and cases give it, by dotted name.
        settings: all of them.
    """

    name: str
    told: Mapping[str, Any]
    settings: TrainSettings

    def value(self, name: str) -> Any:
        """Return the value of a setting, by its dotted name."""
        return functools.reduce(getattr, name.split("."), self.settings)


def runs_of(plan: Mapping[str, Any], folder: Path) -> list[Planned]:
    """Return the runs of a sweep.

    Args:
        plan: settings of all runs, as ``cheaplip train --config`` takes them; ``grid``, lists of values by the
            (dotted) name of a setting, of which all combinations are run; ``cases``, a list of settings that belong
            together, each of which is combined with the grid.
        folder: where the run folders are to lie.

    Raises:
        ValueError: if there is neither grid nor cases; for an unknown setting, a value out of range, an empty list,
            or the same run twice.
        TypeError: for a value of another type.

    Example:
        >>> plan = {"epochs": 1, "grid": {"target": [0.9, 0.95], "lipschitz": {"pairs": [8]}}}
        >>> [run.name for run in runs_of(plan, Path("runs"))]
        ['target=0.9,lipschitz.pairs=8', 'target=0.95,lipschitz.pairs=8']
    """
    base = _flat({name: value for name, value in plan.items() if name not in _BESIDE}, "the grid's file")
    cases = [_flat(case, f"case {k}") for k, case in enumerate(_list(plan.get(_CASES, [{}]), _CASES), 1)]
    lists = {name: _list(values, f"{_GRID}: {name}") for name, values in _flat(plan.get(_GRID, {}), _GRID).items()}
    if not lists and not any(cases):
        raise ValueError(
            "a sweep needs a grid of settings, such as `grid: {target: [0.9, 0.95]}`, or cases; got neither: "
            "add one, or train a single run by `cheaplip train --config`"
        )
    if both := [name for name in lists if any(name in case for case in cases)]:
        raise ValueError(f"{both[0]} stands in grid and in cases: keep one of them")
    choices = itertools.product(cases, *([(name, value) for value in values] for name, values in lists.items()))
    told = [{**case, **dict(values)} for case, *values in choices]
    names = _names(told)
    planned = [
        Planned(name, own, _settings({**base, **own}, folder / name)) for name, own in zip(names, told, strict=True)
    ]
    _check_apart(planned)
    return planned


def _flat(values: Any, where: str, prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted name."""
    if not isinstance(values, Mapping):
        raise TypeError(f"{where} must hold settings by name, such as `epochs: 20`; got {values!r}")
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if name.count(".") > 1 or not isinstance(key, str):
            raise ValueError(f"unknown setting {name!r} in {where}: see `cheaplip train --help`")
        inner = _flat(value, where, f"{name}.") if isinstance(value, Mapping) else {name: value}
        if twice := found.keys() & inner.keys():
            raise ValueError(f"{where} says {min(twice)!r} twice: keep one of them")
        found |= inner
    if own := [name for name in _OWN if name in found]:
        raise ValueError(f"a sweep chooses {own[0]} of each run itself: leave it out of {where}; --out is its folder")
    return found


def _list(values: Any, what: str) -> list[Any]:
    if not isinstance(values, list) or not values:
        got = "an empty list" if values == [] else repr(values)
        raise ValueError(f"{what} must be a list of one value or more, such as [0.9, 0.95]; got {got}")
    return values


def _settings(values: Mapping[str, Any], folder: Path) -> TrainSettings:
    nested: dict[str, Any] = {}
    for name, value in values.items():
        group, _, last = name.rpartition(".")
        inner = nested.setdefault(group, {}) if group else nested
        if not isinstance(inner, dict):
            raise TypeError(f"{group} must be a mapping of settings; got {inner!r}")
        inner[last] = float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value
    settings = from_mapping(TrainSettings, {**nested, "out": str(folder), "resume": True})
    if (settings.devices or 1) * settings.nodes > 1:
        raise ValueError(
            f"each run of a sweep is one process; got devices {settings.devices}, nodes {settings.nodes}: leave both "
            "out, and say by --jobs how many runs are done at a time"
        )
    return settings


def _names(told: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a name for each run; it ends with a checksum where it would be too long, or that of another run."""
    names = [",".join(f"{name}={text_of(value)}" for name, value in own.items()) or "base" for own in told]
    names = ["".join(c if c.isalnum() or c in "-+._,=" else "." for c in name) for name in names]
    often = Counter(name[:LONGEST].casefold() for name in names)
    for name, own in zip(names, told, strict=True):
        mark = hashlib.sha256(repr(own).encode()).hexdigest()[:8]
        alone = len(name) <= LONGEST and often[name.casefold()] == 1
        yield name if alone else f"{name[:LONGEST]}-{mark}"


def text_of(value: Any) -> str:
    """Return a value of a setting as YAML has it."""
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))


def _check_apart(planned: list[Planned]) -> None:
    """Raise ValueError if two runs are the same."""
    known = [setting.name for setting in settings_of(TrainSettings) if setting.name not in _OWN]
    seen: dict[str, str] = {}
    for run in planned:
        values = [run.value(name) for name in known]
        same = repr([float(value) if isinstance(value, int) else value for value in values])
        if same in seen:
            raise ValueError(
                f"the runs {seen[same]} and {run.name} of the grid have the same settings: keep one of them"
            )
        seen[same] = run.name
