"""Where pairs start, and where a renewed pair starts again."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

STARTS = ("noise", "samples", "uniform")
# Half the data's scale: far enough that a pair sees more than one point's neighbourhood.
NOISE = 0.5


def check_points(x: Tensor, name: str) -> None:
    """Raise unless ``x`` is a non-empty batch of finite floating samples."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = f"dtype {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name} must be a floating tensor (n, *input); got {got}: convert it with .float()")
    if x.dim() < 2 or x.numel() == 0:
        raise ValueError(f"{name} must hold at least one sample, shape (n, *input); got {tuple(x.shape)}")
    if not bool(torch.isfinite(x).all()):
        raise ValueError(f"{name} must be finite; got NaN or infinite entries")


def scale_of(x: Tensor, samples: int = 200) -> float:
    """Return the typical distance between two samples, the unit in which steps and distances are chosen.

    Args:
        x: samples ``(n, *shape)``.
        samples: how many of them to look at; they are spread evenly over ``x``.

    Returns:
        The median 2-norm of the differences; of a single sample, or of equal ones, its norm or else 1.

    Example:
        >>> scale_of(torch.tensor([[0.0], [2.0]]))
        2.0
    """
    flat = x[:: max(1, len(x) // samples)].flatten(1).double()
    distances = torch.nn.functional.pdist(flat)
    positive = distances[distances > 0]
    if len(positive):
        return float(positive.median())
    return float(torch.linalg.vector_norm(flat[0])) or 1.0


class Start(nn.Module):
    """A pool of data from which pairs start, with its own reproducible randomness.

    Args:
        pool: samples ``(n, *shape)`` to start from.
        partners: the second point of each pair, the shape of ``pool``; by default ``kind`` makes it.
        kind: ``"noise"``, a sample and its noisy copy (the paper); ``"samples"``, two different samples;
            ``"uniform"``, two random points within the range of the data, coordinate by coordinate.
        noise: the 2-norm of the noise, in units of the data's scale (:func:`scale_of`).
        seed: the seed of all draws; draw number k depends on it and on k alone.

    Raises:
        ValueError: for an unknown kind or one that the pool is too small for.

    Example:
        >>> start = Start(torch.zeros(4, 3), seed=1)
        >>> u, v = start.draw(2)
        >>> u.shape, bool((u != v).all())
        (torch.Size([2, 3]), True)
    """

    pool: Tensor
    partners: Tensor | None

    def __init__(
        self,
        pool: Tensor,
        partners: Tensor | None = None,
        *,
        kind: str = "noise",
        noise: float = NOISE,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_points(pool, "x")
        if kind not in STARTS:
            raise ValueError(f"start must be one of {', '.join(STARTS)}; got {kind!r}")
        if kind == "samples" and len(pool) < 2:
            raise ValueError('start="samples" needs at least 2 samples; got 1: use start="noise"')
        if not 0 < noise < math.inf:
            raise ValueError(f"noise must be a finite number above 0, in units of the data's scale; got {noise!r}")
        self.register_buffer("pool", pool.detach().clone())
        self.register_buffer("partners", None if partners is None else partners.detach().clone())
        self.kind, self.seed, self.draws = kind, seed, 0
        self.radius = noise * scale_of(pool)

    def draw(self, count: int, at: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Draw pairs, ``(count, *shape)`` each.

        Args:
            count: how many.
            at: which of the pool to start from; by default drawn at random (different ones, while they last).
        """
        # One generator a draw: its whole state is the number of draws, and copies need no care.
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.draws)
        self.draws += 1
        if self.kind == "uniform":
            low, high = self.pool.amin(0), self.pool.amax(0)
            u, v = (low + (high - low) * self._random(torch.rand, count, generator) for _ in range(2))
            return u, v
        if at is None:
            at = self._indices(count, generator)
        u = self.pool[at]
        if self.kind == "samples":
            shift = torch.randint(1, len(self.pool), (count,), generator=generator).to(at.device)
            return u, self.pool[(at + shift) % len(self.pool)]
        noise = self._random(torch.randn, count, generator)
        noise *= self.radius / math.sqrt(max(1, noise[0].numel()))
        return u, (u if self.partners is None else self.partners[at]) + noise

    def _indices(self, count: int, generator: torch.Generator) -> Tensor:
        size = len(self.pool)
        if 4 * count > size:  # a permutation has no repeats but costs the whole pool
            order = torch.randperm(size, generator=generator).repeat(-(-count // size))[:count]
        else:
            order = torch.randint(size, (count,), generator=generator)
        return order.to(self.pool.device)

    def _random(self, sampler: Any, count: int, generator: torch.Generator) -> Tensor:
        # Drawn on the host, so that the same seed gives the same bits on every device.
        drawn: Tensor = sampler((count, *self.pool.shape[1:]), generator=generator, dtype=torch.float32)
        return drawn.to(self.pool)

    def get_extra_state(self) -> Tensor:
        """Return the number of draws so far."""
        return torch.tensor(self.draws)

    def set_extra_state(self, state: Any) -> None:
        """Set the number of draws so far."""
        self.draws = int(state)
