"""What is known about a run's Lipschitz constant, in its ``result.json``: a worse bound replaces no better one.

Under ``lipschitz`` are the bounds over all space in the norms of the run, as training left them; under its key
``others`` is a list with one entry, of the same keys, for each other norm and each box.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cheaplip.files import changing
from cheaplip.lipschitz import Bound
from cheaplip.runs.folder import RESULT, read_result, write_result

# By how much a bound must be better, relatively, to be worth a word.
WORTH = 1e-4
# How far a measured quotient may lie above a proven bound by rounding alone.
CROSSED = 1e-6
WORDS = {"lower": "method", "upper": "upper_method"}


def keep(folder: Path, below: Bound, above: Bound | None, p: float, box: Any, seconds: float) -> list[str]:
    """Merge bounds into the results of a run.

    Args:
        folder: the run folder.
        below: the lower bound.
        above: the upper bound, if there is one.
        p: the norm of inputs and outputs.
        box: where they hold; None for all space.
        seconds: what it took.

    Returns:
        A sentence for each bound that was there already and is better.

    Raises:
        ValueError: if ``result.json`` is damaged.
    """
    entry: dict[str, Any] = {"lower": below.value, "method": below.method, "domain": below.domain}
    entry |= {"p_in": f"{p:g}", "p_out": f"{p:g}"} | ({} if box is None else {"box": list(box)})
    if above is not None and math.isfinite(above.value):
        entry |= {"upper": above.value, "upper_method": above.method}
    with changing(folder / RESULT):
        result = read_result(folder)
        result["lipschitz"], better = _joined(result.get("lipschitz", {}), entry)
        taken = result.get("seconds", {})
        result["seconds"] = taken | {"bounds": taken.get("bounds", 0.0) + seconds}
        write_result(folder, result)
    return [
        f"{RESULT} keeps its better {which} bound {known_value:.6g} ({method})" for which, known_value, method in better
    ]


def _joined(
    lipschitz: Mapping[str, Any], entry: Mapping[str, Any]
) -> tuple[dict[str, Any], list[tuple[str, float, str]]]:
    """Return what is known with an entry more, and the bounds known that were better than its own."""
    known = dict(lipschitz)
    others = known.pop("others", [])
    if _key(entry) == (_key(known) if known else _key({**entry, "domain": "all", "box": None})):
        known, better = merged(known, entry)
    else:
        old: Mapping[str, Any] = next((other for other in others if _key(other) == _key(entry)), {})
        new, better = merged(old, entry)
        others = [new if other is old else other for other in others] + ([] if old else [new])
    return known | ({"others": others} if others else {}), better


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[str, float, str]]]:
    """Return the better bounds of two entries, and those of the old one that were better.

    Bounds that contradict each other are of different weights: then the new ones stand.

    Example:
        >>> old = {"lower": 2.0, "method": "a", "upper": 9.0, "upper_method": "b"}
        >>> merged(old, {"lower": 1.0, "method": "c", "upper": 5.0, "upper_method": "d"})
        ({'lower': 2.0, 'method': 'a', 'upper': 5.0, 'upper_method': 'd'}, [('lower', 2.0, 'a')])
    """
    both = {**old, **new}
    better = []
    for which, word in WORDS.items():
        sign = 1 if which == "lower" else -1
        if which in old and (which not in new or sign * old[which] > sign * new[which]):
            both[which], both[word] = old[which], old.get(word, "")
            if which in new and abs(old[which] - new[which]) > WORTH * abs(new[which]):
                better.append((which, float(old[which]), str(old.get(word, ""))))
    if "upper" in both and both["lower"] > both["upper"] * (1 + CROSSED):
        return dict(new), []
    return both, better


def _key(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    return (entry.get("domain", "all"), str(entry.get("p_in", 2)), str(entry.get("p_out", 2)), entry.get("box"))
