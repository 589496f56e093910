"""What a step of the code published with the paper computes for its pairs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def authors_penalty(u: Tensor, v: Tensor) -> Callable[[nn.Module], Tensor]:
    """Return a penalty that makes the same passes as the code published with the paper, once a step.

    All quotients before the move; once more, with a backward for the parameters' gradients too, which are thrown
    away; all quotients after the move, and moves that raised none are taken back; the steepest pair on its own.

    Args:
        u: the first points of the pairs, ``(P, channels, height, width)``.
        v: the second points, likewise.

    Reference: Bungert et al. 2021, Algorithms 1 and 2, and github.com/TimRoith/CLIP.
    """
    points, count = torch.cat([u, v]), len(u)
    sizes = torch.full((count,), 10.0, device=u.device)

    def penalty(model: nn.Module) -> Tensor:
        nonlocal points, sizes
        before = square_quotients(model, points)
        leaf = points.detach().requires_grad_()
        gradient, *_ = torch.autograd.grad(square_quotients(model, leaf).sum(), [leaf, *model.parameters()])
        moved = points + sizes.repeat(2).view(-1, 1, 1, 1) * gradient
        after = square_quotients(model, moved)
        rises = after > before
        sizes = torch.where(rises, sizes * 1.3, sizes / 1.3)
        points = torch.where(rises.repeat(2).view(-1, 1, 1, 1), moved, points)
        at = int(torch.where(rises, after, before).argmax())
        return square_quotients(model, points[at::count]).squeeze(0)

    return penalty


def square_quotients(model: nn.Module, points: Tensor) -> Tensor:
    """Return the squares of the difference quotients ``(P,)`` of points ``(2P, *input)``, first all u, then all v."""
    (of_u, of_v), (u, v) = model(points).chunk(2), points.flatten(1).chunk(2)
    quotients: Tensor = (of_u - of_v).square().sum(1) / (u - v).square().sum(1)
    return quotients
