"""The rows of Table 1: which networks are trained, with which settings, and how they are attacked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from cheaplip.settings import ControlSettings, LipschitzSettings, TrainSettings

NAMES = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST", "digits": "Digits"}
MODELS = {"mnist": "mlp:784-64-64-10", "fashion-mnist": "cnn", "digits": "mlp:64-64-64-10:relu"}
EPOCHS = {"mnist": 20, "fashion-mnist": 10, "digits": 30}
BATCHES = {"digits": 32}  # else 128
TARGETS = (0.95, 0.90, 0.85)
# Radii of strong PGD, and that of the paper's attack (13); 64 pixels are worth smaller ones than 784.
RADII = {"mnist": (1.0, 1.5, 2.0), "fashion-mnist": (1.0, 1.5, 2.0), "digits": (0.25, 0.5, 0.75)}
PAPER_RADII = {"mnist": 2.0, "fashion-mnist": 2.0, "digits": 0.5}
# What the paper leaves open, chosen on the selection split: docs/choices.md says how.
RATES = {"standard": 0.05, "weight": 0.3, "clip": 0.1, "layers": 0.3, "one-step": 0.3, "pgd-7": 0.3}
OTHER_RATES = {"fashion-mnist": 0.1, "digits": 0.05}  # networks of ReLUs, one rate for all methods
CONTROL_STEPS = {"weight": 1e-3, "clip": 3e-3, "layers": 3e-3}
OTHER_CONTROL_STEPS = {("digits", "clip"): 1e-2, ("digits", "weight"): 3e-3}  # few minibatches
ADVERSARY_RADII = {"mnist": 1.5, "digits": 0.5}
FIRST_WEIGHTS = {"weight": 0.0, "clip": 0.05, "layers": 0.0}
# How long a step takes beside a plain one, for the bar and to start the longest first.
COSTS = {"standard": 1.0, "weight": 1.2, "clip": 2.0, "layers": 1.5, "one-step": 2.5, "pgd-7": 8.0}
_TITLES = {
    "standard": "Standard",
    "weight": "Weight reg.",
    "clip": "CLIP",
    "layers": "Layer product",
    "one-step": "One-step adv. training",
    "pgd-7": "PGD-7 adv. training",
}


@final
@dataclass(frozen=True)
class Row:
    """A row of the table: one way of training on one data set.

    Args:
        data: the name of the data set.
        method: one of ``standard``, ``weight``, ``clip``, and beyond the paper ``layers``, ``one-step``, ``pgd-7``.
        target: the training accuracy to hold, as a fraction; None where nothing is held.

    Example:
        >>> Row("mnist", "clip", 0.9).title, Row("mnist", "clip", 0.9).folder(Path("out"), 0).as_posix()
        ('CLIP, target 90 %', 'out/mnist/clip-90/seed-0')
    """

    data: str
    method: str
    target: float | None = None

    @property
    def title(self) -> str:
        """What people call it."""
        name = _TITLES[self.method]
        return name if self.target is None else f"{name}, target {100 * self.target:.0f} %"

    @property
    def symbol(self) -> str:
        """The letter of its weight: μ, λ, or none."""
        return {"weight": "μ", "clip": "λ", "layers": "λ"}.get(self.method, "")

    def folder(self, out: Path, seed: int) -> Path:
        """Return the run folder of a seed."""
        name = self.method if self.target is None else f"{self.method}-{100 * self.target:.0f}"
        return out / self.data / name / f"seed-{seed}"

    def settings(self, folder: Path, seed: int, **others: Any) -> TrainSettings:
        """Return the settings of the run.

        Args:
            folder: the run folder.
            seed: of all draws, the splits among them.
            others: further settings, such as ``epochs``, in place of the row's own.
        """
        usual = CONTROL_STEPS.get(self.method, 3e-3)
        step = OTHER_CONTROL_STEPS.get((self.data, self.method), usual)
        own: dict[str, Any] = {
            "data": self.data,
            "model": MODELS[self.data],
            "epochs": EPOCHS[self.data],
            "batch_size": BATCHES.get(self.data, 128),
            "learning_rate": OTHER_RATES.get(self.data, RATES[self.method]),
            "penalty": {"weight": "weight", "clip": "lipschitz", "layers": "layers"}.get(self.method, "none"),
            "adversary": {"one-step": "one-step", "pgd-7": "pgd"}.get(self.method, "none"),
            "adversary_eps": ADVERSARY_RADII.get(self.data, 2.0),
            "weight": FIRST_WEIGHTS.get(self.method, 0.0),
            "target": self.target,
            "select": "last" if self.method == "standard" else "robust",
            "select_eps": RADII[self.data][1],
            # The paper's pairs leave the box, and its attack and noise do.
            "lipschitz": LipschitzSettings(box=False),
            "control": ControlSettings(step=step),
            "lower_every": 10,
        }
        return TrainSettings(**{**own, **others, "seed": seed, "out": str(folder), "resume": True})


def attacks_of(data: str) -> dict[str, tuple[float, ...] | None]:
    """Return the radii of each attack on a data set; None where there is no radius.

    Example:
        >>> attacks_of("mnist")
        {'noise': None, 'pgd-paper': (2.0,), 'pgd': (1.0, 1.5, 2.0)}
    """
    return {"noise": None, "pgd-paper": (PAPER_RADII[data],), "pgd": RADII[data]}


def columns_of(data: str) -> tuple[str, ...]:
    """Return the names of the cells of a row, in order.

    Example:
        >>> columns_of("mnist")[3:8]
        ('pgd-paper', 'weight', 'pgd@1', 'pgd@1.5', 'pgd@2')
    """
    pgd = (f"pgd@{eps:g}" for eps in RADII[data])
    return ("train", "clean", "noise", "pgd-paper", "weight", *pgd, "lower", "upper")


def rows_of(data: str) -> list[Row]:
    """Return the rows of a data set: those of the paper, and beside them, on small networks, the rivals.

    Args:
        data: ``mnist``, ``fashion-mnist`` or ``digits``.

    Raises:
        ValueError: for another one.

    Example:
        >>> len(rows_of("fashion-mnist")), len(rows_of("mnist"))
        (7, 12)
    """
    if data not in MODELS:
        raise ValueError(f"table1 is made of {', '.join(MODELS)}; got data {data!r}")
    rows = [Row(data, "standard"), *(Row(data, method, target) for method in ("weight", "clip") for target in TARGETS)]
    if data != "fashion-mnist":
        rows += [*(Row(data, "layers", target) for target in TARGETS), Row(data, "one-step"), Row(data, "pgd-7")]
    return rows
