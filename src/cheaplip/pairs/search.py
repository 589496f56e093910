"""How pairs move uphill: the paper's step, a normalised ascent, power iteration, or a user's own search."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias

import torch
from torch import Tensor

from cheaplip.norms import Norm, check_norm, dual, norm_gradient, per_sample, vector_norm
from cheaplip.pairs.steepness import Ascent

Search: TypeAlias = "str | Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]"

SEARCHES = ("ascent", "paper", "power")
# A step that raised its pair's quotient grows, one that did not shrinks.
GROW, SHRINK = 1.25, 0.5
# Steps stay within these multiples of the first one, so that neither freezes a pair nor throws it far away.
SMALLEST, LARGEST = 1e-2, 1e2
# The share of its distance by which a pair gets closer or wider in one power iteration, at most.
NEARER = 0.25


def adapt(step: Tensor, value: Tensor, previous: Tensor, first: float) -> Tensor:
    """Return the steps ``(P,)``, larger where the last move raised the quotient, else smaller."""
    low, high = SMALLEST * first, LARGEST * first
    return torch.where(value > previous, step * GROW, step * SHRINK).clamp_(low, high)


@lru_cache
def _root_of_tiny(dtype: torch.dtype) -> float:
    return math.sqrt(torch.finfo(dtype).tiny)


def check_search(search: Search, p_in: Norm) -> Search:
    """Return the search, or raise: it must be a known one or a callable, and power iteration needs a norm with a dual.

    Raises:
        ValueError: otherwise.
    """
    if not callable(search) and search not in SEARCHES:
        raise ValueError(f"search must be {' or '.join(SEARCHES)}, or a callable; got {search!r}")
    if search == "power" and callable(p_in):
        raise ValueError('search="power" needs p_in = 1, 2 or inf; got a callable norm: use search="ascent"')
    return search


def move(search: Search, points: Tensor, climb: Ascent, step: Tensor, p_in: Norm = 2.0) -> None:
    """Move the points ``(2P, *shape)`` in place, both of a pair from their old values.

    Args:
        search: ``"paper"``, a step τ·L·∇L; ``"ascent"``, a step of length τ along ∇L; ``"power"``, a turn to where
            the function changes most, and a step of the centre; or a callable
            ``(u, v, gradient_u, gradient_v, quotient, step) -> (u, v)``.
        points: first all u, then all v.
        climb: the quotients and their gradients.
        step: the steps τ, ``(P,)``.
        p_in: the norm of inputs, for ``"power"``.

    Reference: Bungert et al. 2021, Algorithm 1, for ``"paper"``.

    Example:
        >>> points, one = torch.tensor([[0.0], [1.0]]), torch.ones(1)
        >>> move("ascent", points, Ascent(one, torch.tensor([[-2.0], [2.0]]), (one,)), step=one / 2)
        >>> points
        tensor([[-0.5000],
                [ 1.5000]])
    """
    value, direction, _ = climb
    if callable(search):
        half = len(step)
        gradient = direction * per_sample(climb.scale.repeat(2), direction)
        moved = search(points[:half], points[half:], gradient[:half], gradient[half:], value, step)
        points.copy_(torch.cat(_checked(moved, points[:half].shape)))
        return
    if search == "power":
        points.copy_(
            torch.cat(_turned(points, direction * per_sample(climb.scale.repeat(2), direction), value, step, p_in))
        )
        return
    if search == "paper":
        length = (step * value * climb.scale).expand(2, -1)
    else:
        # Below the root of the smallest number squares are lost: better a short step than a wild one.
        size = vector_norm(direction, 2.0).clamp_min_(_root_of_tiny(direction.dtype))
        length = step / size.view(2, -1)
    points.addcmul_(direction, per_sample(length, direction))


def _turned(points: Tensor, gradient: Tensor, value: Tensor, step: Tensor, p_in: Norm) -> tuple[Tensor, Tensor]:
    """Turn each pair by a power iteration, let its distance and its centre go where the quotient rises."""
    (u, v), (of_u, of_v) = points.chunk(2), gradient.chunk(2)
    apart, opening = u - v, of_u - of_v
    distance = vector_norm(apart, p_in)
    outward = norm_gradient(apart, p_in, distance)
    # Without the distance's own share, what is left of ∇L is the transposed Jacobian, applied to the change.
    pulled = opening + outward * per_sample(2 * value / distance, apart)
    widens = (opening * outward).flatten(1).sum(1).sign()
    distance = distance + widens * torch.minimum(step, NEARER * distance)
    norm = check_norm(p_in)
    half = norm_gradient(pulled, 2.0 if callable(norm) else dual(norm)) * per_sample(0.5 * distance, apart)
    uphill = of_u + of_v
    size = vector_norm(uphill).clamp_min_(_root_of_tiny(uphill.dtype))
    centre = (u + v) / 2 + uphill * per_sample(step / size, uphill)
    return centre + half, centre - half


def _checked(moved: Any, shape: torch.Size) -> tuple[Tensor, Tensor]:
    fits = isinstance(moved, (tuple, list)) and len(moved) == 2
    if not fits or not all(isinstance(part, Tensor) and part.shape == shape for part in moved):
        got = [tuple(getattr(part, "shape", ())) for part in moved] if fits else type(moved).__name__
        raise ValueError(f"search must return the moved (u, v), each of shape {tuple(shape)}; got {got}")
    return moved[0], moved[1]
