"""Random noise: the attack that does not look."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from cheaplip.attacks.losses import check_images
from cheaplip.attacks.protocol import Threat
from cheaplip.attacks.region import normal_like
from cheaplip.modes import Model


@final
@dataclass(frozen=True)
class Gaussian:
    """Independent Gaussian noise on every coordinate.

    Args:
        sigma: its standard deviation, in units of the input, above 0.
        clamp: cut the noisy images to [0, 1].
        generator: where the noise is drawn; None for torch's global generator.

    Raises:
        ValueError: for a sigma out of range.

    Example:
        >>> noisy = Gaussian(sigma=0.5, clamp=True)(torch.nn.Identity(), torch.rand(5, 3), torch.zeros(5))
        >>> bool(((noisy >= 0) & (noisy <= 1)).all())
        True
    """

    sigma: float = 1.0
    clamp: bool = False
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.sigma, (int, float)) or not 0 < self.sigma < math.inf:
            raise ValueError(f"sigma must be a finite number above 0; got {self.sigma!r}")

    @property
    def threat(self) -> Threat:
        """No bound on the change; a box where noisy images are cut to it."""
        return Threat(2.0, None, (0.0, 1.0) if self.clamp else None)

    @property
    def label(self) -> str:
        """What tables call it."""
        return f"Gaussian noise, σ = {self.sigma:g}" + (", cut to [0, 1]" if self.clamp else "")

    def __call__(self, model: Model, x: Tensor, y: Tensor) -> Tensor:
        """Return noisy images; model and labels are not looked at."""
        check_images(x)
        noisy = normal_like(x, self.generator).mul_(self.sigma).add_(x.detach())
        return noisy.clamp_(0.0, 1.0) if self.clamp else noisy
