"""The settings of a training run: the defaults of ``cheaplip train`` and of :func:`cheaplip.runs.train`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal, final

from cheaplip.settings.about import About, check
from cheaplip.settings.penalties import (
    PENALTIES,
    AlpSettings,
    JacobianSettings,
    LipschitzSettings,
    TradesSettings,
)


@final
@dataclass(frozen=True)
class ControlSettings:
    """How the discrepancy principle drives the weight of a penalty; see :class:`cheaplip.Discrepancy`."""

    measure: Annotated[
        Literal["data", "value"],
        About("what holds the target: accuracy (without classes: the loss), or what the penalty measures, such as Lip"),
    ] = "data"
    step: Annotated[float, About("by how much λ changes at a time (relative to λ if multiplicative)", above=0)] = 3e-3
    rule: Annotated[Literal["additive", "multiplicative"], About("λ ± step, or λ times or by (1 + step)")] = "additive"
    per: Annotated[Literal["batch", "epoch"], About("when λ changes")] = "batch"
    warmup: Annotated[int, About("changes that are left out in the beginning", low=0)] = 0
    floor: Annotated[float, About("λ never falls below it; above 0 for the multiplicative rule", low=0)] = 0.0

    def __post_init__(self) -> None:
        """Check types and ranges, and that λ can leave the floor."""
        check(self, "control.")
        if self.rule == "multiplicative" and self.floor == 0:
            raise ValueError("control.floor must be above 0 for the multiplicative rule, which cannot leave 0; got 0")


@final
@dataclass(frozen=True)
class TrainSettings:
    """All settings of a training run.

    Raises:
        TypeError: for a value of another type.
        ValueError: for a value out of range.

    Example:
        >>> TrainSettings(data="mnist").epochs
        20
        >>> TrainSettings(epochs=0)
        Traceback (most recent call last):
        ValueError: epochs must be a whole number of at least 1; got 0
    """

    data: Annotated[str, About("digits, mnist, fashion-mnist, regression or pkg.mod:factory, which runs its code")] = (
        "digits"
    )
    data_dir: Annotated[str | None, About("the data folder; null: CHEAPLIP_DATA, ./data or the user's cache")] = None
    model: Annotated[
        str | None,
        About(
            "mlp:784-64-64-10 (sigmoids; :relu or another activation behind it), cnn, or pkg.mod:factory, which runs "
            "its code; null: mlp:INPUTS-64-64-OUTPUTS:relu, as the data wants it"
        ),
    ] = None
    penalty: Annotated[
        str,
        About(
            "lipschitz (CLIP), weight (the norm of all weights), layers (the product of the layers' norms), bound (an "
            "upper bound of Lip, ECLipsE-Fast; dense networks alone), jacobian, alp (adversarial Lipschitz), trades "
            "(with classes), or none; several joined by +"
        ),
    ] = "lipschitz"
    weight: Annotated[
        float, About("λ (μ, β) of each penalty in the beginning, in loss per unit of what it penalises", low=0)
    ] = 0.05
    target: Annotated[
        float | None,
        About(
            "training accuracy to hold, a fraction; without classes, the loss; with control.measure value, what the "
            "penalty measures; null: λ stays as it is",
            above=0,
        ),
    ] = 0.95
    adversary: Annotated[Literal["none", "pgd", "one-step"], About("train on attacked inputs")] = "none"
    adversary_eps: Annotated[float, About("2-norm of the adversary's change, in input units", above=0)] = 2.0
    epochs: Annotated[int, About("passes over the training split", low=1)] = 20
    batch_size: Annotated[int, About("samples per training step", low=1)] = 128
    learning_rate: Annotated[
        float | None, About("of SGD, in the beginning; null: 0.3 for an mlp of sigmoids or tanh, else 0.1", above=0)
    ] = None
    momentum: Annotated[float, About("of SGD", low=0, below=1)] = 0.9
    schedule: Annotated[Literal["cosine", "constant"], About("the learning rate falls to 0 as a cosine, or stays")] = (
        "cosine"
    )
    select: Annotated[
        Literal["last", "robust"],
        About("keep the last epoch, or the one most robust to PGD on the selection split within a point of the target"),
    ] = "last"
    select_eps: Annotated[float, About("2-norm of the attack that selects, in input units", above=0)] = 1.5
    lower_every: Annotated[
        int, About("epochs from one search for a stronger lower bound of Lip to the next", low=1)
    ] = 5
    seed: Annotated[int, About("of all draws", low=0)] = 0
    device: Annotated[Literal["auto", "cpu", "cuda"], About("auto: cuda where there is one")] = "auto"
    devices: Annotated[
        int | None, About("processes on each machine, one per GPU; null: as many as torchrun started, else 1", low=1)
    ] = None
    nodes: Annotated[int, About("machines", low=1)] = 1
    out: Annotated[str | None, About("the run folder; null: runs/DATA-PENALTY-SEED")] = None
    resume: Annotated[bool, About("go on with the run in the folder, if there is one")] = False
    lipschitz: LipschitzSettings = field(default_factory=LipschitzSettings)
    jacobian: JacobianSettings = field(default_factory=JacobianSettings)
    alp: AlpSettings = field(default_factory=AlpSettings)
    trades: TradesSettings = field(default_factory=TradesSettings)
    control: ControlSettings = field(default_factory=ControlSettings)

    def __post_init__(self) -> None:
        """Check types and ranges, and the names of the penalties."""
        check(self)
        names = self.penalties
        if set(names) - set(PENALTIES) or len(set(names)) < len(names):
            raise ValueError(
                f"penalty must be {', '.join(PENALTIES)} or none, or several of them joined by + "
                f"(lipschitz+weight); got {self.penalty!r}"
            )

    @property
    def penalties(self) -> list[str]:
        """The names of the penalties, in order."""
        return [] if self.penalty == "none" else self.penalty.split("+")
