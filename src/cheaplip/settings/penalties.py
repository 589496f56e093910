"""The penalties of a training run by name, and the settings of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, final

from cheaplip.settings.about import About, check

PENALTIES = ("lipschitz", "weight", "layers", "bound", "jacobian", "alp", "trades")


@final
@dataclass(frozen=True)
class LipschitzSettings:
    """How the pairs of the Lipschitz penalty live; see :class:`cheaplip.LipschitzPenalty`."""

    pairs: Annotated[int, About("pairs of inputs that are alive at a time", low=1)] = 16
    start: Annotated[Literal["noise", "samples", "uniform"], About("where pairs start")] = "noise"
    reduce: Annotated[Literal["max", "mean", "softmax"], About("how the pairs' quotients become one")] = "max"
    temperature: Annotated[float, About("of softmax, in units of Lip", above=0)] = 0.1
    power: Annotated[Literal[1, 2], About("penalise Lip or its square")] = 1
    search: Annotated[Literal["ascent", "paper", "power"], About("how pairs move")] = "ascent"
    steps: Annotated[int, About("moves of the pairs per training step", low=1)] = 1
    every: Annotated[int, About("training steps from one move to the next", low=1)] = 1
    renew: Annotated[int | None, About("the lifetime of a pair in moves; null: as long as it goes well", low=1)] = 16
    box: Annotated[bool, About("keep pairs in the data's box, where it has one")] = True
    min_distance: Annotated[
        float | None, About("the smallest distance of a pair; null: 0.01 of the data's scale", low=0)
    ] = None
    cap: Annotated[float | None, About("the largest Lip that enters the loss; null: no cap", above=0)] = None
    p_in: Annotated[Literal[1, 2, "inf"], About("the norm of inputs")] = 2
    p_out: Annotated[Literal[1, 2, "inf"], About("the norm of outputs")] = 2

    def __post_init__(self) -> None:
        """Check types and ranges."""
        check(self, "lipschitz.")


@final
@dataclass(frozen=True)
class JacobianSettings:
    """How the Jacobian is measured; see :class:`cheaplip.JacobianPenalty`."""

    projections: Annotated[
        int | None, About("random vectors per image, a backward each; null: all outputs, exactly", low=1)
    ] = 1

    def __post_init__(self) -> None:
        """Check types and ranges."""
        check(self, "jacobian.")


@final
@dataclass(frozen=True)
class AlpSettings:
    """How adversarial Lipschitz regularisation searches; see :class:`cheaplip.AdversarialLipschitzPenalty`."""

    distance: Annotated[float, About("2-norm from an image to the point beside it, in input units", above=0)] = 0.5
    steps: Annotated[int, About("of the power iteration per training step", low=1)] = 1
    constant: Annotated[float, About("quotients below it cost nothing", low=0)] = 0.0
    power: Annotated[Literal[1, 2], About("penalise what is above the constant, or its square")] = 1

    def __post_init__(self) -> None:
        """Check types and ranges."""
        check(self, "alp.")


@final
@dataclass(frozen=True)
class TradesSettings:
    """The ball that TRADES searches, within the data's box, and how; see :class:`cheaplip.TradesPenalty`."""

    eps: Annotated[float, About("radius of the ball around each image, in input units", above=0)] = 1.5
    norm: Annotated[Literal[1, 2, "inf"], About("of the ball")] = 2
    steps: Annotated[int, About("of the search per training step", low=1)] = 10
    step: Annotated[float | None, About("length of a step, in input units; null: 2.5 * eps / steps", above=0)] = None

    def __post_init__(self) -> None:
        """Check types and ranges."""
        check(self, "trades.")
