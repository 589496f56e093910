"""What an attack is, and what it may do to an image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, cast, final

import torch
from torch import Tensor

from cheaplip.checks import number
from cheaplip.modes import Model
from cheaplip.norms import Box, box_tensors, check_norm, vector_norm

PlainBound = float | tuple[float, ...]
PlainBox = tuple[PlainBound, PlainBound]


@final
@dataclass(frozen=True)
class Threat:
    """The set of changes that an attack may make to an image.

    Args:
        norm: 1, 2 or inf, the norm in which ``eps`` counts; None where the attack knows no norm.
        eps: the largest norm of the change, in units of the input; None where it is not bounded (noise).
        box: ``(low, high)``, numbers or one number per channel, in which images stay; None for no box.

    Raises:
        ValueError: for a value out of range.

    Example:
        >>> threat = Threat(norm=2, eps=0.5, box=(0.0, 1.0))
        >>> threat.admits(torch.zeros(2, 3), torch.tensor([[0.5, 0.0, 0.0], [0.5, 0.1, 0.0]]))
        tensor([ True, False])
    """

    norm: float | None = None
    eps: float | None = None
    box: Box | None = None

    def __post_init__(self) -> None:
        if self.norm is not None:
            object.__setattr__(self, "norm", checked_norm(self.norm))
        if self.eps is not None:
            object.__setattr__(self, "eps", checked_eps(self.eps))
            if self.norm is None:
                raise ValueError(f"a threat with eps={self.eps} needs the norm in which it counts: 1, 2 or inf")
        object.__setattr__(self, "box", plain_box(self.box))

    def admits(self, x: Tensor, x_adv: Tensor, tolerance: float = 1e-4) -> Tensor:
        """Tell for each sample whether the change from ``x`` to ``x_adv`` is allowed.

        Args:
            x: images ``(n, *shape)``.
            x_adv: the changed images, the same shape.
            tolerance: how far a bound may be exceeded, relative to ``eps`` and to the width of the box;
                the rounding of ``x`` itself is allowed on top.

        Returns:
            Booleans ``(n,)``; False for a change that is not finite.
        """
        if not isinstance(x, Tensor) or not isinstance(x_adv, Tensor):
            raise TypeError(f"images must be tensors; got {type(x).__name__} and {type(x_adv).__name__}")
        if x.shape != x_adv.shape or x.dim() < 2 or not (x.is_floating_point() and x_adv.is_floating_point()):
            raise ValueError(
                f"images must be floating and of one shape (n, *shape); got {x.dtype}, {tuple(x.shape)} and "
                f"{x_adv.dtype}, {tuple(x_adv.shape)}"
            )
        if x.device != x_adv.device:
            raise ValueError(f"images must lie on one device; got {x.device} and {x_adv.device}")
        number(tolerance, "tolerance", low=0)
        inside = torch.isfinite(x_adv).flatten(1).all(1)
        if self.eps is not None and self.norm is not None:
            rounding = 4 * torch.finfo(x.dtype).eps * vector_norm(x, self.norm)
            inside &= vector_norm(x_adv - x, self.norm) <= self.eps * (1 + tolerance) + rounding
        if self.box is not None:
            low, high = box_tensors(self.box, x)
            slack = tolerance * (high - low)
            inside &= ((x_adv >= low - slack) & (x_adv <= high + slack)).flatten(1).all(1)
        return inside

    def __str__(self) -> str:
        sign = {1.0: "₁", 2.0: "₂", math.inf: "∞", None: ""}[self.norm]
        parts = [] if self.eps is None else [f"‖δ‖{sign} ≤ {self.eps:g}"]
        if self.eps is not None and self.box is None:
            parts.append("no box")
        return ", ".join(parts)


class Attack(Protocol):
    """Anything that changes images to break a model, and says how far it may go.

    Called with the model, images ``(n, *shape)`` and their labels ``(n,)``, it returns images of the same shape.
    It takes the model as it stands (put it in eval mode first; :func:`cheaplip.evaluate` does) and leaves it alone.
    Where there are fields ``steps``, ``restarts``, ``weak`` and ``label``, results carry them.
    """

    @property
    def threat(self) -> Threat:
        """What the attack may do."""
        ...

    def __call__(self, model: Model, x: Tensor, y: Tensor) -> Tensor:
        """Return the changed images."""
        ...


def device_of(generator: torch.Generator | None, like: torch.device) -> torch.device:
    """Return where a generator draws; without one it is where the images are."""
    if generator is None:
        return like
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator, or None; got {type(generator).__name__}")
    return generator.device


def checked_norm(norm: float | str) -> float:
    """Return the norm of a ball as a float: 1, 2 or inf."""
    value = check_norm(norm, "norm")
    if callable(value):
        raise ValueError("the norm of an attack must be 1, 2 or inf; got a callable, on whose ball no one can project")
    return value


def checked_eps(eps: float, name: str = "eps") -> float:
    """Return a radius as a float: finite and above 0."""
    if isinstance(eps, bool) or not isinstance(eps, (int, float)) or not 0 < eps < math.inf:
        raise ValueError(f"{name} must be a finite number above 0; got {eps!r}")
    return float(eps)


def checked_count(count: int, name: str) -> int:
    """Return a number of steps or restarts: whole, at least 1."""
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"{name} must be a whole number of at least 1; got {count!r}")
    return count


def plain_box(box: Box | None) -> PlainBox | None:
    """Return a box as numbers and tuples, so that attacks can be compared and printed."""
    if box is None:
        return None
    try:
        low, high = box
        low_plain, high_plain = _plain_bound(low), _plain_bound(high)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(
            f"box must be a pair (low, high) of numbers, or of one number per channel, or None; got {box!r}"
        ) from None
    if not bool((torch.tensor(low_plain) < torch.tensor(high_plain)).all()):
        raise ValueError(f"box must have low < high in every channel; got {box!r}")
    return low_plain, high_plain


def _plain_bound(bound: object) -> PlainBound:
    values = torch.as_tensor(bound, dtype=torch.float64).tolist()
    return tuple(values) if isinstance(values, list) else cast("float", values)
