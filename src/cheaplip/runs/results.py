"""What ``result.json`` must look like for its readers: numbers where numbers belong."""

from __future__ import annotations

import json
from typing import Any

# No result of ours comes near; sums of such numbers are still finite.
LARGEST = 1e300
_NUMBERS = ("seed", "epochs", "steps", "kept", "target", "weight")
_TABLES = ("accuracy", "loss", "weights", "seconds")
_OF_AN_ATTACK = ("eps", "sigma", "steps", "restarts", "images", "accuracy", "queries", "median")


def parse_result(content: bytes) -> dict[str, Any]:
    """Return the results in the content of a file.

    Raises:
        ValueError: if they are none, or a value is not what it should be; it names the key.

    Example:
        >>> parse_result(b'{"accuracy": {"clean": "high"}}')
        Traceback (most recent call last):
        ValueError: its key 'accuracy.clean' must be a finite number; got 'high'
    """
    result = json.loads(content, parse_constant=_finite, parse_float=_finite)
    if not isinstance(result, dict):
        raise ValueError("it holds no results of a run")
    for key in _NUMBERS:
        _check_number(result.get(key, 0), key)
    for key in _TABLES:
        for name, value in _table(result, key).items():
            _check_number(value, f"{key}.{name}")
    _check_bounds(_table(result, "lipschitz"))
    robust, doubts = result.get("robust", []), result.get("doubts", [])
    if not isinstance(robust, list) or not all(isinstance(entry, dict) for entry in robust):
        raise ValueError("its key 'robust' must be a list of attacks")
    for k, entry in enumerate(robust):
        _check_attack(entry, f"robust.{k}")
    if not isinstance(doubts, list) or not all(isinstance(doubt, str) for doubt in doubts):
        raise ValueError("its key 'doubts' must be a list of sentences")
    return result


def _finite(text: str) -> float:
    """Return a number of the file; what is not finite could not be written again."""
    value = float(text)
    if not abs(value) < LARGEST:
        raise ValueError(f"it must hold finite numbers alone; got {text[:40]}")
    return value


def _check_bounds(bounds: dict[str, Any]) -> None:
    others = bounds.get("others", [])
    if not isinstance(others, list) or not all(isinstance(other, dict) for other in others):
        raise ValueError("its key 'lipschitz.others' must be a list of bounds")
    for where, entry in (("lipschitz", bounds), *((f"lipschitz.others.{k}", other) for k, other in enumerate(others))):
        for key in ("lower", "upper"):
            _check_number(entry.get(key, 0), f"{where}.{key}")


def _table(result: dict[str, Any], key: str) -> dict[str, Any]:
    table = result.get(key, {})
    if not isinstance(table, dict):
        raise ValueError(f"its key {key!r} must hold values by name; got {table!r}")
    return table


def _check_attack(entry: dict[str, Any], where: str) -> None:
    for key in ("attack", "accuracy", "images"):
        if key not in entry:
            raise ValueError(f"its key {where!r} lacks {key!r}")
    for key in ("attack", "norm"):
        if not isinstance(entry.get(key, ""), str):
            raise ValueError(f"its key '{where}.{key}' must be text; got {entry[key]!r}")
    for key in _OF_AN_ATTACK:
        _check_number(entry.get(key, 0), f"{where}.{key}")
    interval = entry.get("interval", [0, 0])
    if not isinstance(interval, list) or len(interval) != 2:
        raise ValueError(f"its key '{where}.interval' must be two numbers; got {interval!r}")
    for end in interval:
        _check_number(end, f"{where}.interval")


def _check_number(value: object, key: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < LARGEST:
        raise ValueError(f"its key {key!r} must be a finite number; got {value!r}")
