"""What every library's attack does before and after the library's own part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, final

import torch
from torch import Tensor

from cheaplip.attacks.libraries.frame import Frame
from cheaplip.attacks.libraries.shell import Logits, logits_of, set_aside
from cheaplip.attacks.losses import check_call, check_classes
from cheaplip.attacks.protocol import Threat, plain_box
from cheaplip.attacks.queries import Queries
from cheaplip.attacks.search import output_of
from cheaplip.modes import Model
from cheaplip.norms import per_sample

# How much further to push a point that rounding put on the wrong side of the boundary.
_STRETCHES = (0.0, 1e-5, 1e-4, 1e-3, 1e-2)


@final
@dataclass(frozen=True)
class Task:
    """What a library gets: images that are classified right, in the unit box, and the model on them."""

    logits: Logits
    unit: Tensor  # (n, *shape), float32
    y: Tensor  # (n,)
    rows: Tensor  # (n,): which images of the batch they are
    frame: Frame
    classes: int
    seed: int


class Stage(Protocol):
    """A library's part: from a task to points of the unit box, one per image."""

    def __call__(self, task: Task) -> Tensor:
        """Return changed images."""
        ...


def break_within(
    threat: Threat,
    generator: torch.Generator | None,
    model: Model,
    x: Tensor,
    y: Tensor,
    stages: Callable[[int], Sequence[Stage]],
) -> Tensor:
    """Run stages one after the other, each on the images that no one before it broke.

    Args:
        threat: the ball and the box.
        generator: where the seed is drawn.
        model: the user's model.
        x: images.
        y: labels.
        stages: from the number of classes to the stages.

    Returns:
        Images in the ball and the box; those that are not broken, as they were.
    """
    y, x = check_call(model, x, y), x.detach()
    if not len(x):
        return x.clone()
    frame = Frame(x, threat.norm or 2.0, threat.eps, plain_box(threat.box))
    z = output_of(model, x, y, regression=False)
    logits = logits_of(model, frame, z.shape[1])
    left, best = z.argmax(1) == y, x.clone()
    with set_aside(generator) as seed:
        for stage in stages(z.shape[1]):
            rows = left.nonzero().squeeze(1)
            if not len(rows):
                break
            task = Task(logits, frame.unit(x[rows]), y[rows], rows, frame, z.shape[1], seed)
            adv = frame.admitted(x[rows], frame.image(stage(task).detach()))
            broken = output_of(model, adv, y[rows], regression=False).argmax(1) != y[rows]
            best[rows[broken]], left[rows[broken]] = adv[broken], False
    return best


def smallest_change(
    threat: Threat, generator: torch.Generator | None, model: Model, x: Tensor, y: Tensor, stage: Stage
) -> Tensor:
    """Run an open-box attack that looks for the smallest change, and confirm what it found.

    Returns:
        The changed images, misclassified; where none was found, and where the image is misclassified, the image.
    """
    y, x = check_call(model, x, y), x.detach()
    if not len(x):
        return x.clone()
    frame = Frame(x, threat.norm or 2.0, None, plain_box(threat.box))
    z = output_of(model, x, y, regression=False)
    rows = (z.argmax(1) == y).nonzero().squeeze(1)
    found = x.clone()
    if len(rows):
        with set_aside(generator) as seed:
            task = Task(
                logits_of(model, frame, z.shape[1]), frame.unit(x[rows]), y[rows], rows, frame, z.shape[1], seed
            )
            found[rows] = frame.admitted(x[rows], frame.image(stage(task).detach()))
    return confirmed(lambda points: output_of(model, points, y, regression=False).argmax(1), frame, x, y, found)


def confirmed(ask: Callable[[Tensor], Tensor], frame: Frame, x: Tensor, y: Tensor, found: Tensor) -> Tensor:
    """Return what was found where the model, asked anew about the whole batch, errs; the image elsewhere.

    A point on the boundary may fall back by a rounding, so it is tried a little further out as well.

    Args:
        ask: maps points ``(n, *shape)`` to class numbers ``(n,)``.
        frame: the box.
        x: images.
        y: labels.
        found: changed images; those without a change are left out.
    """
    kept, todo = x.clone(), (found != x).flatten(1).any(1)
    for stretch in _STRETCHES:
        if not bool(todo.any()):
            break
        points = frame.cut(x + (found - x) * (1 + stretch)) if stretch else found
        broken = todo & (ask(points) != y)
        kept, todo = torch.where(per_sample(broken, x), points, kept), todo & ~broken
    return kept


def right_rows(queries: Queries, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Ask a closed box about the images: its answers, and which images are classified right."""
    answers = queries(x)
    if answers.dim() == 2:
        check_classes(answers, y)
    classes = answers if answers.dim() == 1 else answers.argmax(1)
    return answers, (classes == y).nonzero().squeeze(1)
