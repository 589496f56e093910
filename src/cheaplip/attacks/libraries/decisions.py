"""Attacks that see class numbers alone and look for the smallest change, by foolbox: HopSkipJump and Boundary."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from cheaplip.attacks.libraries.foolbox import as_foolbox, two_or_inf
from cheaplip.attacks.libraries.frame import SIGNS, Frame, needed_box
from cheaplip.attacks.libraries.run import confirmed, right_rows
from cheaplip.attacks.libraries.shell import library, set_aside
from cheaplip.attacks.losses import check_call
from cheaplip.attacks.protocol import Threat, checked_count, plain_box
from cheaplip.attacks.queries import Queries, queries_of
from cheaplip.modes import Model
from cheaplip.norms import Box, per_sample, vector_norm

# Draws of noise in search of a misclassified point, where no image of the batch is one.
_DRAWS = 50
# Numbers that HopSkipJump's random directions of a step may fill at a time.
_NUMBERS = 2**24


@final
@dataclass(frozen=True)
class HopSkipJump:
    """HopSkipJump: walk along the boundary, whose slope is estimated from the classes of random points about it.

    It starts from the nearest image of the batch that the model puts in another class than the label, or from noise.

    Args:
        norm: 2 or inf, whose smallest change is looked for.
        steps: steps along the boundary, at least 1; step k takes about 100 √k queries for the slope.
        box: ``(low, high)``, numbers or one number per channel, in which images lie and stay.
        generator: where the seed is drawn; None for torch's global generator.

    Raises:
        ValueError: for a value out of range, no box, images outside it, or a model that answers at random.
        ImportError: without ``pip install "cheaplip[attacks]"``.

    Reference: Chen, Jordan and Wainwright 2020.

    Example:
        >>> HopSkipJump(steps=10).label
        'HopSkipJump, 10 steps, smallest ‖δ‖₂'
    """

    norm: float | str = 2
    _: KW_ONLY
    steps: int = 32
    box: Box = (0.0, 1.0)
    generator: torch.Generator | None = None

    minimal: ClassVar[bool] = True
    access: ClassVar[str] = "labels"

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm", two_or_inf(self.norm, "HopSkipJump"))
        object.__setattr__(self, "box", needed_box(self.box, "HopSkipJump"))
        checked_count(self.steps, "steps")

    @property
    def threat(self) -> Threat:
        """The norm and the box; no radius."""
        return Threat(float(self.norm), None, self.box)

    @property
    def label(self) -> str:
        """What tables call it."""
        return f"HopSkipJump, {self.steps} steps, smallest {SIGNS[float(self.norm)]}"

    def __call__(self, model: Model | Queries, x: Tensor, y: Tensor) -> Tensor:
        """Return the nearest misclassified images found, the shape of ``x``; the image itself where there is none."""
        attack = _hop_skip_jump()(steps=self.steps, constraint="l2" if self.norm == 2 else "linf")
        y = check_call(model, x, y)
        most = max(1, int(_NUMBERS / (100 * math.sqrt(self.steps) * max(1, x[:1].numel()))))
        return _walk(attack, most, self.threat, self.generator, model, x, y)


@final
@dataclass(frozen=True)
class Boundary:
    """The Boundary attack: a random walk along the boundary, towards the image.

    It starts from the nearest image of the batch that the model puts in another class than the label, or from noise.

    Args:
        steps: of the walk, at least 1; a query each, and another at every tenth.
        box: ``(low, high)``, numbers or one number per channel, in which images lie and stay.
        generator: where the seed is drawn; None for torch's global generator.

    Raises:
        ValueError: for a value out of range, no box, images outside it, or a model that answers at random.
        ImportError: without ``pip install "cheaplip[attacks]"``.

    Reference: Brendel, Rauber and Bethge 2018.

    Example:
        >>> Boundary().label
        'Boundary, 5,000 steps, smallest ‖δ‖₂'
    """

    _: KW_ONLY
    steps: int = 5000
    box: Box = (0.0, 1.0)
    generator: torch.Generator | None = None

    minimal: ClassVar[bool] = True
    access: ClassVar[str] = "labels"

    def __post_init__(self) -> None:
        object.__setattr__(self, "box", needed_box(self.box, "Boundary"))
        checked_count(self.steps, "steps")

    @property
    def threat(self) -> Threat:
        """The 2-norm and the box; no radius."""
        return Threat(2.0, None, self.box)

    @property
    def label(self) -> str:
        """What tables call it."""
        return f"Boundary, {self.steps:,} steps, smallest ‖δ‖₂"

    def __call__(self, model: Model | Queries, x: Tensor, y: Tensor) -> Tensor:
        """Return the nearest misclassified images found, the shape of ``x``; the image itself where there is none."""
        attack = library("foolbox").attacks.BoundaryAttack(steps=self.steps)
        y = check_call(model, x, y)
        return _walk(attack, max(1, len(x)), self.threat, self.generator, model, x, y)


def _walk(
    attack: Any,
    most: int,
    threat: Threat,
    generator: torch.Generator | None,
    model: Model | Queries,
    x: Tensor,
    y: Tensor,
) -> Tensor:
    """Run an attack on the images that have a starting point, ``most`` at a time, and confirm what it found."""
    queries = queries_of(model, "labels")
    y, x = check_call(model, x, y), x.detach()
    if not len(x):
        return x.clone()
    frame = Frame(x, threat.norm or 2.0, None, plain_box(threat.box))
    found = x.clone()
    with set_aside(generator) as seed, torch.no_grad():
        torch.manual_seed(seed)
        answers, rows = right_rows(queries, x, y)
        starts, begun = _starts(queries, frame, x, y, answers, rows)
        for part in torch.split(begun, most) if len(begun) else ():
            found[part] = frame.image(_from(attack, queries, frame, x[part], y[part], part, starts[part]))
    return confirmed(queries, frame, x, y, found)


def _from(attack: Any, queries: Queries, frame: Frame, x: Tensor, y: Tensor, rows: Tensor, starts: Tensor) -> Tensor:
    def ask(unit: Tensor) -> Tensor:
        return queries(frame.image(unit), rows)

    shell = as_foolbox(ask, x.device)
    try:
        found: Tensor = attack.run(shell, frame.unit(x), _other_class(y), starting_points=frame.unit(starts))
    except (AssertionError, ValueError) as error:
        if isinstance(error, ValueError) and "starting_points" not in str(error):
            raise
        raise ValueError(
            "the model gave two answers to one question, so there is no boundary to walk along: switch off what is "
            "random in it, or take an attack on scores"
        ) from None
    return found.detach()


def _starts(
    queries: Queries, frame: Frame, x: Tensor, y: Tensor, answers: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Return a misclassified point for each image where one was found, and which those are."""
    starts, left = x.clone(), rows
    if len(rows):
        apart = torch.cdist(x[rows].flatten(1), x.flatten(1))
        apart[answers[None, :] == y[rows, None]] = math.inf
        nearest = apart.min(1)
        have = nearest.values < math.inf
        starts[rows[have]], left = x[nearest.indices[have]], rows[~have]
    for _ in range(_DRAWS):
        if not len(left):
            break
        noise = frame.cut(frame.image(torch.rand_like(x[left], dtype=torch.float32)))
        broken = queries(noise, left) != y[left]
        starts[left[broken]], left = noise[broken], left[~broken]
    return starts, rows[~torch.isin(rows, left)]


def _other_class(y: Tensor) -> Any:
    """Return foolbox's criterion for outputs that are class numbers: any but the label."""
    base: Any = library("foolbox").criteria.Criterion
    eagerpy: Any = library("eagerpy")

    @final
    class OtherClass(base):  # type: ignore[misc]
        def __repr__(self) -> str:
            return "OtherClass()"

        def __call__(self, perturbed: Any, outputs: Any) -> Any:
            classes, restore = eagerpy.astensor_(outputs)
            return restore(classes != eagerpy.astensor(y))

    return OtherClass()


def _hop_skip_jump() -> Callable[..., Any]:
    """Return foolbox's attack with slopes of unit length per image.

    Foolbox scales the slopes of a batch by their common length, so that an image steps the less, the more images there
    are beside it.
    """
    base: Any = library("foolbox").attacks.HopSkipJumpAttack

    @final
    class HopSkipJumpAttack(base):  # type: ignore[misc]
        def approximate_gradients(self, *args: Any) -> Any:
            slopes = super().approximate_gradients(*args)
            raw: Tensor = slopes.raw
            return type(slopes)(raw / per_sample(vector_norm(raw, 2).clamp_min(1e-12), raw))

    return HopSkipJumpAttack
