"""How pairs move uphill: the paper's step, a normalised ascent, or a user's own search."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from cheaplip.norms import per_sample, vector_norm
from cheaplip.pairs.steepness import Ascent

Search: TypeAlias = "str | Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]"

SEARCHES = ("ascent", "paper")
# A step that raised its pair's quotient grows, one that did not shrinks.
GROW, SHRINK = 1.25, 0.5
# Steps stay within these multiples of the first one, so that neither freezes a pair nor throws it far away.
SMALLEST, LARGEST = 1e-2, 1e2
FEW = 64


def adapt(step: Tensor, value: Tensor, previous: Tensor, first: float) -> Tensor:
    """Return the steps ``(P,)``, larger where the last move raised the quotient, else smaller."""
    low, high = SMALLEST * first, LARGEST * first
    if step.is_cpu and len(step) <= FEW:
        # The same by hand, rounded the same: for so few numbers faster than five kernels.
        numbers = zip(step.tolist(), value.tolist(), previous.tolist(), strict=True)
        return step.new_tensor([min(max(s * (GROW if q > p else SHRINK), low), high) for s, q, p in numbers])
    return torch.where(value > previous, step * GROW, step * SHRINK).clamp_(low, high)


def move(search: Search, points: Tensor, climb: Ascent, step: Tensor) -> None:
    """Move the points ``(2P, *shape)`` in place, both of a pair from their old values.

    Args:
        search: ``"paper"``, a step τ·L·∇L; ``"ascent"``, a step of length τ along ∇L; or a callable
            ``(u, v, gradient_u, gradient_v, quotient, step) -> (u, v)``.
        points: first all u, then all v.
        climb: the quotients and their gradients.
        step: the steps τ, ``(P,)``.

    Reference: Bungert et al. 2021, Algorithm 1, for ``"paper"``.

    Example:
        >>> points, one = torch.tensor([[0.0], [1.0]]), torch.ones(1)
        >>> move("ascent", points, Ascent(one, torch.tensor([[-2.0], [2.0]]), (one,)), step=one / 2)
        >>> points
        tensor([[-0.5000],
                [ 1.5000]])
    """
    value, direction, _ = climb
    half = len(step)
    if callable(search):
        gradient = direction * per_sample(climb.scale.repeat(2), direction)
        moved = search(points[:half], points[half:], gradient[:half], gradient[half:], value, step)
        points.copy_(torch.cat(_checked(moved, points[:half].shape)))
        return
    if search == "paper":
        length = (step * value * climb.scale).expand(2, -1)
    else:
        # Below the root of the smallest number squares are lost: better a short step than a wild one.
        size = vector_norm(direction).clamp_min_(torch.finfo(direction.dtype).tiny ** 0.5)
        length = step / size.view(2, -1)
    points.addcmul_(direction, per_sample(length.reshape(-1), direction))


def _checked(moved: Any, shape: torch.Size) -> tuple[Tensor, Tensor]:
    fits = isinstance(moved, (tuple, list)) and len(moved) == 2
    if not fits or not all(isinstance(part, Tensor) and part.shape == shape for part in moved):
        got = [tuple(getattr(part, "shape", ())) for part in moved] if fits else type(moved).__name__
        raise ValueError(f"search must return the moved (u, v), each of shape {tuple(shape)}; got {got}")
    return moved[0], moved[1]
