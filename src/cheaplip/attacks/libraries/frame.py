"""Images as the libraries want them: float32 in the box [0, 1]."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from cheaplip.attacks.protocol import PlainBox, Threat, plain_box
from cheaplip.attacks.region import Region
from cheaplip.norms import Box, box_tensors, per_sample, vector_norm

# Norms as pyautoattack and as tables write them.
NORMS = {1.0: "L1", 2.0: "L2", math.inf: "Linf"}
SIGNS = {1.0: "‖δ‖₁", 2.0: "‖δ‖₂", math.inf: "‖δ‖∞"}


@final
class Frame:
    """The way from images to the unit box and back: one shift per channel and one width for all.

    One width, so that balls stay balls. Where channels have boxes of different widths, the narrower ones do not fill
    the unit box, and images are cut on the way back; a cut moves no image away from another in the box.
    Without a box the unit box holds all balls.

    Args:
        x: the images ``(n, *shape)``, floating.
        norm: 1, 2 or inf.
        eps: the radius, or None for attacks that look for the smallest change, which need a box.
        box: in which the images lie.

    Raises:
        ValueError: for images outside the box.

    Example:
        >>> frame = Frame(torch.tensor([[-1.0, 3.0]]), 2.0, 1.0, (-1.0, 3.0))
        >>> frame.unit(torch.tensor([[-1.0, 2.0]])), frame.eps
        (tensor([[0.0000, 0.7500]]), 0.25)
    """

    def __init__(self, x: Tensor, norm: float, eps: float | None, box: PlainBox | None) -> None:
        self.dtype, self.norm, self.radius = x.dtype, norm, eps
        if box is None:
            least, most = x.aminmax()
            room = 0.0 if eps is None else eps
            self.low, self.high = least - room, most + room
        else:
            Region(x, norm, 1.0, box)  # raises where the images do not lie in the box
            self.low, self.high = box_tensors(box, x)
        self.width = float((self.high - self.low).max())
        self.plain = self.width == 1 and not self.low.dim() and float(self.low) == 0  # nothing to compute or to round
        self.cuts = bool((self.high - self.low < self.width * (1 - 1e-6)).any())
        self.eps = None if eps is None else eps / self.width

    def unit(self, x: Tensor) -> Tensor:
        """Return images in the unit box, float32, contiguous."""
        inside = x if self.plain else (x - self.low) / self.width
        return inside.to(torch.float32, memory_format=torch.contiguous_format).clamp(0.0, 1.0)

    def image(self, unit: Tensor) -> Tensor:
        """Return the images, in their own dtype, of points of the unit box; differentiable."""
        inside = unit.to(self.dtype)
        image = inside if self.plain else inside * self.width + self.low
        return torch.clamp(image, self.low, self.high) if self.cuts else image

    def cut(self, image: Tensor) -> Tensor:
        """Return images cut to the box."""
        return torch.clamp(image, self.low, self.high)

    def distance(self, x: Tensor, x_adv: Tensor) -> Tensor:
        """Return the norm of the change of each image, ``(n,)``."""
        return vector_norm(x_adv - x, self.norm)

    def admitted(self, x: Tensor, x_adv: Tensor) -> Tensor:
        """Return changed images drawn back to the ball where rounding put them outside, and to ``x`` if not finite."""
        finite = torch.isfinite(x_adv).flatten(1).all(1)
        x_adv = torch.where(per_sample(finite, x), x_adv, x)
        if self.radius is None:
            return x_adv
        outside = ~Threat(self.norm, self.radius).admits(x, x_adv, tolerance=1e-5)
        share = (self.radius / self.distance(x, x_adv)).clamp_max(1.0)
        return torch.where(per_sample(outside, x), x + (x_adv - x) * per_sample(share, x), x_adv)


def needed_box(box: Box | None, name: str) -> PlainBox:
    """Return a box as numbers and tuples; raise where there is none.

    Example:
        >>> needed_box((0, 1), "DDN")
        (0.0, 1.0)
    """
    plain = plain_box(box)
    if plain is None:
        raise ValueError(f"{name} searches in a box: give one in which the data lie, box=(low, high); got None")
    return plain
