"""The regularisation path: networks over λ, by warm starts in both directions, beside what the theory says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cheaplip.drawing import save
from cheaplip.experiments.outcome import Outcome, claim, has_only, write_json
from cheaplip.experiments.path.checks import check
from cheaplip.experiments.path.exact import INTERVAL, X, Y, best, largest_slope
from cheaplip.experiments.path.picture import draw
from cheaplip.experiments.path.training import (
    DIRECTIONS,
    NUMBERS,
    STEPS,
    WEIGHTS,
    conditions,
    staged,
    train,
)
from cheaplip.experiments.propositions import Check, constant_from, verdict
from cheaplip.experiments.stages import train_all
from cheaplip.settings import ReproduceSettings

__all__ = ["run"]

HEADS = ("check", "proposition", "seed", *(f"{direction} λ" for direction in DIRECTIONS), "tolerance", "")
MEANINGS = {
    "risk": "mean squared error on the ten points",
    "lipschitz": f"the largest slope of the network on {list(INTERVAL)}, from all its kinks, in float64",
    "penalty": "Lip(f, X_Lip) as the last training step saw it",
    "distance": "the largest distance on the interval from the constant at the labels' mean, their barycentre",
    "least": "the least objective, risk + weight * lipschitz, of all functions, exact",
    "best": "risk and lipschitz of the function that has it",
    "smallest": "the smallest Lipschitz constant of a function through all points",
    "constant_from": "the weight from which on the best function is the constant at the labels' mean",
    "premise": "how far above the least objective training ended, as a part of it",
    "2": "the largest fall of the risk from any weight to a larger one, as a part of the objective at the smaller one; "
    "the largest rise of lipschitz likewise, as a part of smallest",
    "3": "at the smallest weight: how far lipschitz is from smallest, as a part of it; the root of the risk, beside "
    "the labels' standard deviation",
    "4, Remark 2": "at the largest weight: distance, beside the labels' standard deviation",
}


def run(settings: ReproduceSettings, folder: Path, *, progress: bool = False) -> Outcome:
    """Train along growing and along falling λ, an independent run for each direction and seed; see :func:`reproduce`.

    Leaves ``path.png``, ``path.svg``, ``path.json`` and ``runs/``, in which finished runs are kept. The pictures show
    seed 0; ``epochs`` are the steps for each λ.

    Raises:
        ValueError: for settings that it does not have, or a folder of another experiment.

    Reference: Bungert et al. 2021, Propositions 2 to 4.
    """
    has_only(settings, "path", "seeds", "epochs")
    if settings.device == "cuda":
        raise ValueError("path runs on the CPU, where so small a network is fastest; got device cuda: leave it out")
    epochs = STEPS if settings.epochs is None else settings.epochs
    claim(folder, "path", {"epochs": epochs})
    plan = [(direction, seed, epochs) for seed in range(settings.seeds) for direction in DIRECTIONS]
    files, found = train_all(plan, staged, train, settings, folder, title="path", progress=progress)
    outcome = _tell(folder, found, epochs)
    return replace(outcome, files=[*outcome.files, *files])


def _tell(folder: Path, runs: Sequence[Mapping[str, Any]], epochs: int) -> Outcome:
    """Write picture and numbers, and say what came out."""
    smallest, constant = largest_slope(X, Y), constant_from(X, Y)
    spread = float(Y.std())
    checked = [
        (kept["seed"], kept["direction"], found) for kept in runs for found in check(kept["stages"], smallest, spread)
    ]
    exact = [(weight, best(X, Y, weight)) for weight in WEIGHTS]
    said = verdict((f"seed {seed}, {direction} λ", found) for seed, direction, found in checked)
    remarks = [*said, *_remarks(runs, smallest, constant)]
    content = {
        "propositions": "Bungert et al. 2021, Propositions 2 to 4 and Remark 2",
        "conditions": conditions(epochs),
        "meanings": MEANINGS,
        "x": X.tolist(),
        "y": Y.tolist(),
        "smallest": smallest,
        "constant_from": constant,
        "best": [{"weight": w, "risk": found.risk, "lipschitz": found.lipschitz} for w, found in exact],
        "paths": [
            {"seed": kept["seed"], "direction": kept["direction"], "points": list(map(_numbers, kept["stages"]))}
            for kept in runs
        ],
        "checks": [{"seed": seed, "direction": direction, **found.told()} for seed, direction, found in checked],
        "remarks": remarks,
    }
    figure = draw([kept for kept in runs if kept["seed"] == 0])
    files = [
        save(figure, folder / "path.png"),
        save(figure, folder / "path.svg"),
        write_json(folder / "path.json", content),
    ]
    title = f"The regularisation path: {len(WEIGHTS)} λ from {WEIGHTS[0]:g} to {WEIGHTS[-1]:g}, {epochs} steps for each"
    return Outcome(title, HEADS, _rows(checked), remarks, files)


def _numbers(point: Mapping[str, Any]) -> dict[str, float]:
    return {name: point[name] for name in NUMBERS}


def _rows(checked: Sequence[tuple[int, str, Check]]) -> list[tuple[str, ...]]:
    """Return a row for each seed and check, with both directions."""
    by = {(seed, found.name, direction): found for seed, direction, found in checked}
    rows = []
    for seed, name in dict.fromkeys((seed, found.name) for seed, _, found in checked):
        both = [by[seed, name, direction] for direction in DIRECTIONS]
        values = (f"{found.value:.2e}" for found in both)
        words = "holds" if all(found.holds for found in both) else "VIOLATED"
        rows.append((name, both[0].proposition, str(seed), *values, f"{both[0].tolerance:g}", words))
    return rows


def _remarks(runs: Sequence[Mapping[str, Any]], smallest: float, constant: float) -> list[str]:
    unseen = max(point["lipschitz"] - point["penalty"] for kept in runs for point in kept["stages"])
    return [
        "the propositions speak of global minimisers: each value must stay below its tolerance, the same for all runs",
        f"the flattest fit has Lip {smallest:.4f}, the largest slope between neighbouring points",
        f"from λ = {constant:.3f} on the best function is the constant {Y.mean():.4f}, the mean of the labels",
        f"the penalty's last value is at most {max(0.0, unseen):.3f} below the network's Lip: narrow steep pieces",
    ]
