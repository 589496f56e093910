"""Where pairs start, and where a renewed pair starts again."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor, nn

from cheaplip.checks import number, whole_number
from cheaplip.norms import Box, box_tensors

# By how much of its width samples may leave a box, as where both were normalised and the box was rounded.
ROUNDED = 1e-2
STARTS = ("noise", "samples", "uniform")
# Half the data's scale: far enough that a pair sees more than one point's neighbourhood.
NOISE = 0.5
# Renewal takes a few pairs at almost every step: they are drawn in larger lots, within a few megabytes.
MOST_AT_ONCE, FLOATS_AT_ONCE = 64, 2**18

# From the seed of one process to that of the next: beyond all seeds that people give.
STRIDE = 1_000_003


def check_points(x: Tensor, name: str) -> None:
    """Raise unless ``x`` is a non-empty batch of finite floating samples."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got, remedy = type(x).__name__, "convert arrays with torch.from_numpy, and stack samples with torch.stack"
        if isinstance(x, Tensor):
            got = f"dtype {x.dtype}"
            remedy = "give it as torch.view_as_real" if x.is_complex() else "convert it with .float()"
        raise TypeError(f"{name} must be a floating tensor (n, *input); got {got}: {remedy}")
    if x.dim() < 2 or x.numel() == 0:
        raise ValueError(f"{name} must hold at least one sample, shape (n, *input); got {tuple(x.shape)}")
    if x.is_meta:
        raise ValueError(f"{name} must hold numbers; got a tensor on the device meta, which has none")
    if not bool(torch.isfinite(x).all()):
        raise ValueError(f"{name} must be finite; got NaN or infinite entries")


def _check_inside(x: Tensor, box: Box | None) -> None:
    """Raise unless samples keep to a box, but for what rounding does: outside it all would be moved onto its walls."""
    if box is None:
        return
    low, high = box_tensors(box, x)
    wide = high - low
    room = torch.where(wide.isfinite(), max(ROUNDED, 8 * torch.finfo(x.dtype).eps) * wide, 0.0)
    if not bool(((x >= low - room) & (x <= high + room)).all()):
        raise ValueError(
            f"x must keep to the box {box}; got values from {float(x.min()):g} to {float(x.max()):g}: give the box in "
            "the units of x, one number per channel for normalised images, or none"
        )


def check_pairs(u: Tensor, v: Tensor) -> None:
    """Raise unless ``u`` and ``v`` are finite floating samples that fit each other."""
    check_points(u, "u")
    check_points(v, "v")
    if u.shape != v.shape or u.dtype != v.dtype or u.device != v.device:
        raise ValueError(
            "u and v must have the same shape (pairs, *input), device and dtype; "
            f"got {tuple(u.shape)} {u.device} {u.dtype} and {tuple(v.shape)} {v.device} {v.dtype}"
        )


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


@final
class Start(nn.Module):
    """A pool of data from which pairs start, with its own reproducible randomness.

    Args:
        pool: samples ``(n, *shape)`` to start from.
        partners: the second point of each pair, the shape of ``pool``; by default ``kind`` makes it.
        kind: ``"noise"``, a sample and its noisy copy (the paper); ``"samples"``, two different samples;
            ``"uniform"``, two random points within the range of the data, coordinate by coordinate.
        noise: the 2-norm of the noise, in units of the data's scale (:func:`scale_of`).
        seed: the seed of all draws, which depend on it and on how many pairs were drawn before, alone.
        box: which the pool has to keep to; what is drawn may leave it.

    Raises:
        ValueError: for an unknown kind or one that the pool is too small for, or a pool that leaves the box.

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
        box: Box | None = None,
    ) -> None:
        super().__init__()
        check_points(pool, "x")
        _check_inside(pool, box)
        if kind not in STARTS:
            raise ValueError(f"start must be one of {', '.join(STARTS)}; got {kind!r}")
        if kind == "samples" and len(pool) < 2:
            raise ValueError('start="samples" needs at least 2 samples; got 1: use start="noise"')
        if partners is not None and partners.shape != pool.shape:
            raise ValueError(f"partners must have the pool's shape {tuple(pool.shape)}; got {tuple(partners.shape)}")
        self.register_buffer("pool", pool.detach().clone())
        self.register_buffer("partners", None if partners is None else partners.detach().clone())
        self.kind, self.seed, self.draws = kind, whole_number(seed, "seed", low=0), 0
        self.radius = number(noise, "noise", above=0) * scale_of(pool)
        self._stock: tuple[int, tuple[Tensor, ...]] | None = None

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Draw pairs, ``(count, *shape)`` each, from all of the pool."""
        u, v = self._from_stock(count, self._draw)
        return u, v

    def _from_stock(self, count: int, make: Callable[[int, int], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Return the next ``count`` samples of what ``make`` draws in lots, lot by lot."""
        size = max(1, min(MOST_AT_ONCE, FLOATS_AT_ONCE // max(1, self.pool[0].numel())))
        if count > size:
            self.draws = -(-self.draws // size) * size + size
            return make(count, -self.draws)
        if self.draws % size + count > size:
            self.draws += size - self.draws % size
        number, first = divmod(self.draws, size)
        self.draws += count
        if self._stock is None or self._stock[0] != number:
            self._stock = (number, make(size, number))
        return tuple(lot[first : first + count] for lot in self._stock[1])

    def renew(self, at: slice | list[int]) -> tuple[Tensor, Tensor]:
        """Return new points for the pairs at these places: drawn, or their own start with fresh noise."""
        count = at.stop - at.start if isinstance(at, slice) else len(at)
        if self.partners is None:
            return self.draw(count)
        (noise,) = self._from_stock(count, self._noise)
        return self.pool[at], self.partners[at] + noise

    def keep(self, first: int, step: int) -> None:
        """Keep the starts of every ``step``-th pair from the ``first`` on, and draw as no other ``first`` does."""
        if self.partners is not None:
            self.pool, self.partners = self.pool[first::step].clone(), self.partners[first::step].clone()
        self.seed, self._stock = self.seed + first * STRIDE, None

    def _draw(self, count: int, number: int) -> tuple[Tensor, Tensor]:
        generator = self._generator(number)
        if self.kind == "uniform":
            low, high = self.pool.amin(0), self.pool.amax(0)
            if len(self.pool) == 1:  # no range to fill
                low, high = low - self.radius, high + self.radius
            u, v = (low + (high - low) * self._random(torch.rand, count, generator) for _ in range(2))
            return u, v
        at = self._indices(count, generator)
        u = self.pool[at]
        if self.kind == "samples":
            shift = torch.randint(1, len(self.pool), (count,), generator=generator).to(at.device)
            return u, self.pool[(at + shift) % len(self.pool)]
        return u, u + self._scaled(count, generator)

    def _noise(self, count: int, number: int) -> tuple[Tensor]:
        return (self._scaled(count, self._generator(number)),)

    def _scaled(self, count: int, generator: torch.Generator) -> Tensor:
        noise = self._random(torch.randn, count, generator)
        return noise.mul_(self.radius / math.sqrt(max(1, noise[0].numel())))

    def _generator(self, number: int) -> torch.Generator:
        # One generator a draw: the whole state is the number of draws, and copies need no care.
        return torch.Generator().manual_seed((self.seed * 1_000_003 + number) % 2**63)

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

    def _apply(self, function: Callable[..., Any], recurse: bool = True) -> Start:
        self._stock = None  # it has the old dtype and device
        super()._apply(function, recurse)  # type: ignore[no-untyped-call]
        return self

    def get_extra_state(self) -> Tensor:
        """Return what draws depend on beside the pool: seed, number of draws, size of the noise."""
        return torch.tensor([self.seed, self.draws, self.radius], dtype=torch.float64)

    def set_extra_state(self, state: Any) -> None:
        """Take over what :meth:`get_extra_state` returned."""
        seed, draws, self.radius = state.tolist()
        self.seed, self.draws, self._stock = int(seed), int(draws), None
