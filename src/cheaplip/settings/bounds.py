"""The settings of ``cheaplip bounds``, of :func:`cheaplip.runs.bound` and of :func:`cheaplip.runs.verify`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, final

from cheaplip.settings.about import About, check


@final
@dataclass(frozen=True)
class BoundsSettings:
    """How a Lipschitz constant is enclosed, where it holds, and what is claimed of it.

    Raises:
        TypeError: for a value of another type.
        ValueError: for a value out of range.

    Example:
        >>> BoundsSettings(shape="1,28,28").input_shape
        (1, 28, 28)
        >>> BoundsSettings(claim=-1.0)
        Traceback (most recent call last):
        ValueError: claim must be a number of at least 0, or null; got -1.0
    """

    p: Annotated[
        Literal[1, 2, "inf"] | None,
        About("the norm of inputs and outputs; null: that of the run's penalty if it has one for both, else 2"),
    ] = None
    domain: Annotated[Literal["all", "box"], About("all space, or pairs of inputs in the box alone")] = "all"
    box: Annotated[
        str | None, About("LOW,HIGH of inputs (LOW below 0 with =, as box=-1,1); null: the data's, without data 0,1")
    ] = None
    method: Annotated[
        Literal["auto", "product", "eclipse", "sdp", "exact"],
        About(
            "of the upper bound: product of the layers' constants; eclipse: ECLipsE-Fast; sdp: LipSDP-Neuron; auto: "
            "the best of these; exact: all linear regions of a small piecewise-linear network, beside the best of the "
            "others, whose certificate is the one that is saved"
        ),
    ] = "auto"
    seconds: Annotated[
        float, About("how long the upper bound is improved, and after it an open claim searched against", low=0)
    ] = 30.0
    steps: Annotated[
        int | None,
        About(
            "moves of the search for a steep pair; null: 100, fewer for a network of millions of multiplications", low=1
        ),
    ] = None
    claim: Annotated[
        float | None,
        About(
            "a claimed Lip: refuted by a pair (saved as witness.npz, status 3), proven by an upper bound (its "
            "certificate saved as certificate.npz, or where save says, status 0), or open (status 0)",
            low=0,
        ),
    ] = None
    save: Annotated[str | None, About("write the certificate of the upper bound to this file (.npz)")] = None
    check: Annotated[
        str | None, About("search nothing: verify this certificate from scratch (status 2 if it does not hold)")
    ] = None
    data: Annotated[
        str | None, About("where the search starts, as in train; null: the run's data, for a factory random points")
    ] = None
    data_dir: Annotated[str | None, About("the data folder; null: that of the run")] = None
    shape: Annotated[str | None, About("of one input of a factory without data, as 1,28,28")] = None
    seed: Annotated[
        int | None, About("of the search, and of a factory's weights; null: that of the run, else 0", low=0)
    ] = None
    out: Annotated[str | None, About("the folder of bounds.png; null: the run, for a factory runs/bounds-NAME")] = None

    def __post_init__(self) -> None:
        """Check types and ranges, and what excludes each other."""
        check(self)
        for name, value in (("shape", self.input_shape), ("box", self.limits)):
            if value is None and getattr(self, name) is not None:
                raise ValueError(_WRONG[name].format(getattr(self, name)))
        if self.check is not None and self.save is not None:
            raise ValueError(f"a check makes no certificate; got save {self.save} beside check: leave one of them out")

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """The shape of one input in numbers; None if there is none, or it is none."""
        words = [] if self.shape is None else [word.strip() for word in self.shape.split(",")]
        fits = words and all(word.isdecimal() and int(word) for word in words)
        return tuple(map(int, words)) if fits else None

    @property
    def limits(self) -> tuple[float, float] | None:
        """The box in numbers; None if there is none, or it is none."""
        try:
            low, high = map(float, (self.box or "").split(","))
        except ValueError:
            return None
        return (low, high) if -_LARGEST < low < high < _LARGEST else None


_LARGEST = float("inf")
_WRONG = {
    "shape": "shape must be whole numbers above 0, joined by commas, such as 1,28,28; got {!r}",
    "box": "box must be two finite numbers LOW,HIGH with LOW < HIGH, such as 0,1; got {!r}",
}
