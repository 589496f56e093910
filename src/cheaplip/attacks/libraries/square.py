"""Square, a random search with squares of pixels that sees scores alone, by pyautoattack."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor

from cheaplip.attacks.libraries.frame import NORMS, Frame
from cheaplip.attacks.libraries.run import Task, right_rows
from cheaplip.attacks.libraries.shell import library, set_aside
from cheaplip.attacks.losses import check_call, margin
from cheaplip.attacks.protocol import Threat, checked_count, checked_eps, checked_norm, plain_box
from cheaplip.attacks.queries import Queries, queries_of
from cheaplip.modes import Model
from cheaplip.norms import Box


@final
@dataclass(frozen=True)
class Square:
    """The Square attack: changes of random squares are kept where they lower the margin; it sees scores, no gradient.

    Images of other shapes than ``(n, channels, height, width)`` are laid out as squares of numbers.

    Args:
        eps: radius of the ball, in units of the input, above 0.
        norm: 1, 2 or inf.
        n_queries: questions about an image, besides two to begin with, at least 1.
        box: ``(low, high)``, numbers or one number per channel, in which images lie and stay; None for no box.
        generator: where the seed is drawn; None for torch's global generator.

    Raises:
        ValueError: for a value out of range or images outside the box.
        ImportError: without ``pip install "cheaplip[attacks]"``.

    Reference: Andriushchenko et al. 2020.

    Example:
        >>> Square(0.1, "inf").label
        'Square, 5,000 queries, ‖δ‖∞ ≤ 0.1'
    """

    eps: float
    norm: float | str = 2
    _: KW_ONLY
    n_queries: int = 5000
    box: Box | None = (0.0, 1.0)
    generator: torch.Generator | None = None

    access: ClassVar[str] = "scores"

    def __post_init__(self) -> None:
        object.__setattr__(self, "eps", checked_eps(self.eps))
        object.__setattr__(self, "norm", checked_norm(self.norm))
        object.__setattr__(self, "box", plain_box(self.box))
        checked_count(self.n_queries, "n_queries")

    @property
    def threat(self) -> Threat:
        """The ball and the box."""
        return Threat(float(self.norm), self.eps, self.box)

    @property
    def label(self) -> str:
        """What tables call it."""
        return f"Square, {self.n_queries:,} queries, {self.threat}"

    def __call__(self, model: Model | Queries, x: Tensor, y: Tensor) -> Tensor:
        """Return the changed images, the shape of ``x``; the model is asked for scores, and for nothing else."""
        queries = queries_of(model, self.access)
        y, x = check_call(model, x, y), x.detach()
        if not len(x):
            return x.clone()
        frame, best = Frame(x, float(self.norm), self.eps, plain_box(self.box)), x.clone()
        scores, rows = right_rows(queries, x, y)
        if not len(rows):
            return best
        with set_aside(self.generator) as seed:
            task = Task(queries, frame.unit(x[rows]), y[rows], rows, frame, scores.shape[1], seed)
            found = _search(task, self.n_queries, lambda unit, at: queries(frame.image(unit), rows[at]))
        best[rows] = frame.admitted(x[rows], frame.image(found))
        return best


def square_within(task: Task, *, queries: int) -> Tensor:
    """Run Square on a task, as AutoAttack does."""
    return _search(task, queries, lambda unit, at: task.logits(unit))


def _search(task: Task, queries: int, ask: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Run the library's search; ``ask`` gives the scores of points, and is told which images they are for."""
    canvas = _Canvas(tuple(task.unit.shape[1:]), task.frame.norm)
    base: Any = library("pyautoattack.square").SquareAttack

    # The library hands points and labels to one method. Handed row numbers for labels, it says whom it asks for.
    @final
    class Search(base):  # type: ignore[misc]
        def margin_and_loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            if not len(x):
                return x.new_zeros(0), x.new_zeros(0)
            lead = -margin(ask(canvas.back(x), y).float(), task.y[y])
            return lead, lead.clone()

    unit = canvas.square(task.unit)
    attack = Search(
        None,
        norm=NORMS[task.frame.norm],
        n_queries=queries,
        eps=task.frame.eps,
        seed=task.seed,
        device=unit.device,
        resc_schedule=False,
    )
    attack.init_hyperparam(unit)
    torch.manual_seed(task.seed)
    _, found = attack.attack_single_run(unit, torch.arange(len(unit), device=unit.device))
    return canvas.back(found)


@final
class _Canvas:
    """The way from images of any shape to ``(n, channels, height, width)`` with sides that the library can start on.

    Pixels that fill it up are shown to no model.

    Example:
        >>> canvas = _Canvas((1, 12, 9), norm=2.0)
        >>> square = canvas.square(torch.ones(5, 1, 12, 9))
        >>> square.shape, canvas.back(square).shape
        (torch.Size([5, 1, 13, 13]), torch.Size([5, 1, 12, 9]))
    """

    def __init__(self, shape: tuple[int, ...], norm: float) -> None:
        self.shape, self.size, self.channels = shape, math.prod(shape), 1
        if len(shape) == 3:
            self.channels, self.height, self.width = shape
        elif len(shape) == 2:
            self.height, self.width = shape
        else:
            self.height = self.width = math.isqrt(self.size - 1) + 1
        self.sides = self.height, self.width
        if norm != math.inf:  # the search starts from a pattern of squares, for which not every side will do
            side = max(self.sides)
            while not _can_start(side):
                side += 1
            self.sides = side, side

    def square(self, unit: Tensor) -> Tensor:
        """Return images laid out for the library."""
        cells = self.channels * self.height * self.width
        flat = F.pad(unit.flatten(1), (0, cells - self.size))
        laid = flat.view(-1, self.channels, self.height, self.width)
        return F.pad(laid, (0, self.sides[1] - self.width, 0, self.sides[0] - self.height))

    def back(self, square: Tensor) -> Tensor:
        """Return images in their own shape."""
        return square[..., : self.height, : self.width].flatten(1)[:, : self.size].reshape(-1, *self.shape)


def _can_start(side: int) -> bool:
    """Tell whether the library's first pattern fits: blocks of a fifth of the side, from an offset on."""
    block = side // 5
    return block == 1 or (block > 1 and (side - 5 * block) // 2 + side // block * block <= side)
