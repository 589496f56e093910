"""From the results of runs to the cells of the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cheaplip.evaluation import wilson
from cheaplip.experiments.outcome import cell
from cheaplip.experiments.table1.plan import NAMES, PAPER_RADII, RADII, Row, columns_of
from cheaplip.experiments.table1.published import published

# A target is reached where the final training accuracy is this close to it.
REACHED = 0.01
# A test accuracy is as the training accuracy said if it is at most this much below.
GENERALISED = 0.01


def figures(result: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of one run by column; a column is absent where the run does not have it.

    Example:
        >>> figures({"data": "mnist", "accuracy": {"train": 0.9}, "lipschitz": {"lower": 2.0}})
        {'train': 0.9, 'lower': 2.0}
    """
    attacked = {name: entry["accuracy"] for name, entry in _attacked(result).items()}
    found = {**result.get("accuracy", {}), **attacked, **result.get("lipschitz", {})}
    if result.get("penalty") != "none":
        found["weight"] = result.get("weight")
    return {name: found[name] for name in columns_of(result["data"]) if found.get(name) is not None}


def _attacked(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the table's own attacks by column; others may have been tried on the run since."""
    found = {}
    for entry in result.get("robust", []):
        name, eps = str(entry["attack"]), entry.get("eps")
        if name == "noise" or (name == "pgd-paper" and eps == PAPER_RADII[result["data"]]):
            found[name] = entry
        elif name == "pgd" and eps in RADII[result["data"]]:
            found[f"{name}@{eps:g}"] = entry
    return found


def row_of(row: Row, results: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Return a row of ``table1.json``.

    Args:
        row: which.
        results: of its finished runs, by seed, one or more.
    """
    by_seed = {seed: figures(result) for seed, result in sorted(results.items())}
    told = published(row.data, row.method, row.target)
    cells = {}
    for name in columns_of(row.data):
        values = [found[name] for found in by_seed.values() if name in found]
        if values:
            cells[name] = cell(values) | ({"published": told[name]} if name in told else {})
    trained = [found["train"] for found in by_seed.values()]
    first = next(iter(results.values()))
    return {
        "data": row.data,
        "method": row.method,
        **({} if row.target is None else {"target": row.target}),
        **({} if row.target is None else {"reached": all(abs(x - row.target) <= REACHED for x in trained)}),
        "model": first["model"],
        "epochs": first["epochs"],
        "seeds": list(by_seed),
        "images": {name: entry["images"] for name, entry in _attacked(first).items()},
        "cells": cells,
        "seconds": cell([sum(result.get("seconds", {}).values()) for result in results.values()]),
    }


def remarks(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what has to be said about the rows: targets, generalisation, the paper, and CLIP against the others."""
    said = []
    for row in rows:
        name = f"{NAMES[row['data']]}, {Row(row['data'], row['method'], row.get('target')).title}"
        cells = row["cells"]
        if row.get("reached") is False:
            said.append(f"{name}: the target was NOT reached; train {100 * cells['train']['mean']:.2f} %")
        gap = cells["train"]["mean"] - cells["clean"]["mean"]
        if gap > GENERALISED:
            said.append(f"{name}: test accuracy is {100 * gap:.1f} points below training accuracy")
        attacked = cells.get("pgd-paper", {})
        if row["method"] == "clip" and attacked.get("mean", 1.0) <= attacked.get("published", -1.0):
            said.append(f"{name}: PGD (13) is NOT above the paper's")
    return [*said, *_against(rows)]


def _against(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say where CLIP is not above Standard and weight regularisation under strong PGD, and who is above CLIP."""
    said = []
    for clip in (row for row in rows if row["method"] == "clip"):
        radii = [f"{eps:g}" for eps in RADII[clip["data"]]]
        ours = f"CLIP at {100 * clip['target']:.0f} %"
        for other in rows:
            if other["data"] != clip["data"] or other.get("target") not in (None, clip["target"]) or other is clip:
                continue
            theirs = Row(other["data"], other["method"], other.get("target")).title
            apart = [eps for eps in radii if _above(clip, other, f"pgd@{eps}")]
            behind = [eps for eps in radii if _above(other, clip, f"pgd@{eps}")]
            under = "under strong PGD, intervals apart,"
            if other["method"] in ("standard", "weight") and len(apart) < len(radii):
                where = f"only at ε = {', '.join(apart)}" if apart else f"at none of ε = {', '.join(radii)}"
                said.append(f"{NAMES[clip['data']]}, {ours} is above {theirs} {under} {where}")
            if behind:
                said.append(f"{NAMES[clip['data']]}, {theirs} is above {ours} {under} at ε = {', '.join(behind)}")
    return said


def _above(one: Mapping[str, Any], other: Mapping[str, Any], column: str) -> bool:
    """Tell whether the 95 % intervals of two rows are apart, the first above."""
    if column not in one["cells"] or column not in other["cells"]:
        return False
    return interval(one, column)[0] > interval(other, column)[1]


def interval(row: Mapping[str, Any], column: str) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy (Wilson); all seeds attack the same images, so that these count once."""
    images = row["images"][column]
    return wilson(round(row["cells"][column]["mean"] * images), images)
