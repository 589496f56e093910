"""Figure 2 of the paper: regression in one dimension, from λ = 0 by warm starts to 10, 1 and 10⁻¹⁰."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cheaplip.data import regression
from cheaplip.drawing import save
from cheaplip.experiments.figure2.picture import draw, named
from cheaplip.experiments.figure2.theory import checks
from cheaplip.experiments.figure2.training import (
    EPOCHS,
    NUMBERS,
    OUTPUTS,
    WEIGHTS,
    conditions,
    staged,
    train,
)
from cheaplip.experiments.outcome import Outcome, cell, claim, has_only, write_json
from cheaplip.experiments.propositions import constant_from, verdict
from cheaplip.experiments.stages import train_all
from cheaplip.settings import ReproduceSettings

__all__ = ["run"]

HEADS = ("output", "λ", "Lip on [-4, 4]", "lower bound", "risk", "error")
MEANINGS = {
    "output": "after the last layer: a sigmoid (the paper), or nothing (linear)",
    "weight": "λ, beside the loss given above",
    "lip": "the largest |f'| on the interval, by a scan in float64",
    "lower": "the largest quotient that cheaplip.lipschitz.lower found on the interval",
    "risk": "mean squared error on the 100 noisy samples",
    "error": "mean squared error on 400 points of the interval, against the function without noise",
    "objective": "loss over all samples + weight * lip",
    "least": "the least objective of all functions, not of networks alone",
    "noise": "mean square of the samples' noise, by seed",
    "constant_from": "the weight from which on a constant has the least objective, by seed",
    "checks": "value must not pass tolerance, a part of what is compared; weights: at which, or from which to which",
}
# The noise is fitted if less than this part of its mean square is left.
FITTED = 0.1


def run(settings: ReproduceSettings, folder: Path, *, progress: bool = False) -> Outcome:
    """Train the networks of Figure 2, an independent run for each seed and output; see :func:`reproduce`.

    Leaves ``figure2.png``, ``figure2.svg``, ``figure2.json`` and ``runs/``, in which finished runs are kept. The
    pictures show seed 0.

    Raises:
        ValueError: for settings that it does not have, or a folder of another experiment.

    Reference: Bungert et al. 2021, section 4.1, Figure 2.
    """
    has_only(settings, "figure2", "seeds", "epochs")
    if settings.device == "cuda":
        raise ValueError("figure2 runs on the CPU, where so small a network is fastest; got device cuda: leave it out")
    epochs = EPOCHS if settings.epochs is None else settings.epochs
    claim(folder, "figure2", {"epochs": epochs})
    plan = [(output, seed, epochs) for seed in range(settings.seeds) for output in OUTPUTS]
    files, found = train_all(plan, staged, train, settings, folder, title="figure2", progress=progress)
    outcome = _tell(folder, found, epochs)
    return replace(outcome, files=[*outcome.files, *files])


def _tell(folder: Path, runs: Sequence[Mapping[str, Any]], epochs: int) -> Outcome:
    """Write pictures and numbers, and say what came out."""
    seeds = sorted({kept["seed"] for kept in runs})
    found = [_result(runs, output, k) for output in OUTPUTS for k in range(len(WEIGHTS))]
    checked = [(kept["output"], kept["seed"], check) for kept in runs for check in checks(kept["stages"])]
    samples = [regression(seed=seed).train for seed in seeds]
    noise = [float((part.y - (part.x.abs() - 3).clamp_min(0) / 2).double().square().mean()) for part in samples]
    constant = [
        len(part.x) * constant_from(*(t.double().flatten().numpy() for t in (part.x, part.y))) for part in samples
    ]
    said = verdict((f"{output} output, seed {seed}", check) for output, seed, check in checked)
    remarks = [*said, *_remarks(found, noise[0], constant[0], len(samples[0].x))]
    content = {
        "figure": "Bungert et al. 2021, section 4.1, Figure 2",
        "networks": OUTPUTS,
        "conditions": conditions(epochs),
        "meanings": MEANINGS,
        "seeds": seeds,
        "noise": noise,
        "constant_from": constant,
        "results": found,
        "checks": [{"output": output, "seed": seed, **check.told()} for output, seed, check in checked],
        "remarks": remarks,
    }
    figure = draw([kept for kept in runs if kept["seed"] == 0])
    files = [
        save(figure, folder / "figure2.png"),
        save(figure, folder / "figure2.svg"),
        write_json(folder / "figure2.json", content),
    ]
    title = f"Figure 2: mlp 1-500-200-100-1, {epochs} epochs for each λ, "
    title += f"{len(seeds)} seeds, mean ± standard deviation" if len(seeds) > 1 else "1 seed"
    return Outcome(title, HEADS, [_row(result) for result in found], remarks, files)


def _result(runs: Sequence[Mapping[str, Any]], output: str, k: int) -> dict[str, Any]:
    """Return the numbers of one output and λ over the seeds."""
    stages = [kept["stages"][k] for kept in runs if kept["output"] == output]
    names = [name for name in (*NUMBERS, "least") if name in stages[0] and name not in ("weight", "at", "slope")]
    cells = {name: cell([stage[name] for stage in stages]) for name in names}
    return {"output": output, "weight": WEIGHTS[k], **cells}


def _row(result: Mapping[str, Any]) -> tuple[str, ...]:
    digits = {"lip": 4, "lower": 4, "risk": 5, "error": 5}
    cells = (
        f"{result[name]['mean']:.{n}f}" + (f" ± {result[name]['std']:.{n}f}" if "std" in result[name] else "")
        for name, n in digits.items()
    )
    return (result["output"], named(result["weight"]), *cells)


def _remarks(found: Sequence[Mapping[str, Any]], noise: float, constant: float, samples: int) -> list[str]:
    """Say what one should know to read the numbers, all of seed 0."""
    plain = {result["output"]: result["risk"]["values"][0] for result in found if result["weight"] == 0}
    fits = {output: risk < FITTED * noise for output, risk in plain.items()}
    said = [
        f"λ stands beside the sum of squared errors over the {samples} samples, not beside their mean as in (2): a "
        f"constant is best from λ = {constant:.3g} on beside the sum, from λ = {constant / samples:.3g} on beside the "
        "mean, where 10 and 1 would give the same network (seed 0)"
    ]
    left = ", ".join(f"{risk:.5f} of the {output} output" for output, risk in plain.items())
    if not any(fits.values()):
        said.append(
            f"at λ = 0 neither output fits the noise: its mean square is {noise:.5f}, the risk {left} (seed 0); the "
            "paper names the output sigmoid as the reason, and here it is not the only one"
        )
    else:
        said.append(f"at λ = 0, with noise of mean square {noise:.5f}, the risk is {left} (seed 0)")
    return said
