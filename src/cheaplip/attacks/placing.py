"""Where a patch lies on an image: at random places, sizes and angles, in whole on the image."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cheaplip.attacks.losses import check_images
from cheaplip.attacks.protocol import device_of
from cheaplip.checks import number
from cheaplip.norms import per_sample

SHAPES = ("round", "square")
AreaRange = tuple[float, float]


def lay(
    picture: Tensor,
    x: Tensor,
    shape: str,
    area: float | AreaRange,
    rotation: float,
    generator: torch.Generator | None,
) -> Tensor:
    """Lay a picture on images, at places drawn for each; differentiable in the picture.

    Args:
        picture: ``(channels, side, side)``.
        x: images ``(n, channels, height, width)``.
        shape: ``"round"`` or ``"square"``.
        area: share of the image, or the smallest and the largest.
        rotation: the largest angle to either side, in degrees.
        generator: where places are drawn; None for torch's global generator.
    """
    check_images(x)
    if x.dim() != 4 or x.shape[1] != picture.shape[0] or min(x.shape[2:]) < 2:
        raise ValueError(
            f"a patch of {picture.shape[0]} channels needs images (n, {picture.shape[0]}, height, width), 2 pixels "
            f"or more each way; got {tuple(x.shape)}"
        )
    if not len(x):
        return x.clone()
    grid, cover = placed(x, shape, area, rotation, generator)
    shown = F.grid_sample(
        picture.to(x).expand(len(x), -1, -1, -1), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return torch.lerp(x, shown, cover)


def placed(
    x: Tensor, shape: str, area: float | AreaRange, rotation: float, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Draw a place for each image; arguments as for :func:`lay`.

    Returns:
        Where each pixel lies in the patch, ``(n, height, width, 2)``, the patch reaching from -1 to 1; and how much of
        each pixel it covers, from 0 to 1, ``(n, 1, height, width)``.
    """
    n, _, height, width = x.shape
    device = device_of(generator, x.device)
    drawn = torch.rand(4, n, generator=generator, device=device, dtype=x.dtype).to(x.device)
    low, high = area_range(area)
    pixels = (low + (high - low) * drawn[0]) * height * width
    angle = math.radians(rotation) * (2 * drawn[1] - 1)
    cos, sin = angle.cos(), angle.sin()
    if shape == "round":
        half = (pixels / math.pi).sqrt()
        extent = half
    else:
        half = pixels.sqrt() / 2
        extent = half * (cos.abs() + sin.abs())
    # The whole patch on the image; in the middle, where it is too large for that.
    right, down = ((side / 2 - extent).clamp_min(0) * (2 * share - 1) for side, share in
                   ((width, drawn[2]), (height, drawn[3])))  # fmt: skip
    rows = [
        torch.stack([cos * width / 2, sin * height / 2, -(cos * right + sin * down)], 1),
        torch.stack([-sin * width / 2, cos * height / 2, sin * right - cos * down], 1),
    ]
    theta = torch.stack(rows, 1) / half[:, None, None]
    grid = F.affine_grid(theta, [n, 1, height, width], align_corners=False)
    away = torch.linalg.vector_norm(grid, ord=2 if shape == "round" else math.inf, dim=3)
    cover = ((1 - away) * per_sample(half, away) + 0.5).clamp(0, 1)  # an edge one pixel wide
    return grid, cover[:, None]


def area_range(area: Any) -> AreaRange:
    """Return the smallest and the largest share of an image that a patch covers."""
    low, high = area if isinstance(area, (tuple, list)) and len(area) == 2 else (area, area)
    if not 0 < number(low, "area", above=0) <= number(high, "area", above=0) <= 1:
        raise ValueError(f"area must be a share above 0 and at most 1, or (smallest, largest); got {area!r}")
    return float(low), float(high)
