"""Certified robustness: around which images no small change can alter the class."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from cheaplip.counting import wilson
from cheaplip.lipschitz.margins import by_one, by_pair
from cheaplip.lipschitz.network.tracing import module_of
from cheaplip.lipschitz.problem import problem_of, shape_of
from cheaplip.lipschitz.upper import checked
from cheaplip.lipschitz.witness import PLACES, Largest
from cheaplip.modes import Model
from cheaplip.norms import Box, Norm, box_tensors

METHODS = ("pairs", "pairs-fast", "global")
# What outputs in float64 can be off by, relative to the largest of a sample.
ROUNDING = 1e-9
BATCH = 1000


@final
@dataclass(frozen=True, eq=False)
class Certified:
    """Which radius is certified for each sample.

    Args:
        radius: in units of the input, ``(n,)``, float64: no change of p-norm up to it alters the class; 0 where the
            sample is misclassified.
        constants: the proven bounds of Lip(f_i - f_j) behind it, ``(classes, classes)``.
        p: the norm.
        method: how the bounds were found.
        domain: ``"all"``, or ``"box"`` where the changed sample has to stay in the box.
        seconds: how long it took.
    """

    radius: Tensor
    constants: Tensor = field(repr=False)
    p: float
    method: str
    domain: str
    seconds: float

    def certified(self, eps: float) -> Tensor:
        """Tell for each sample whether it is right, and stays so within a radius, ``(n,)``.

        Args:
            eps: the radius in units of the input, 0 or more.

        Raises:
            ValueError: for another one.
        """
        if not (isinstance(eps, (int, float)) and 0 <= eps < math.inf):
            raise ValueError(f"eps must be a finite number of at least 0; got {eps!r}")
        return (self.radius >= eps) & (self.radius > 0)

    def accuracy(self, eps: float) -> float:
        """Return the fraction of samples that is certified at a radius."""
        return float(self.certified(eps).double().mean())

    def interval(self, eps: float) -> tuple[float, float]:
        """Return the 95 % interval of :meth:`accuracy`, by Wilson's score."""
        return wilson(int(self.certified(eps).sum()), len(self.radius))


def certify(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    p: Norm = 2,
    method: str = "pairs",
    domain: str = "all",
    box: Box = (0.0, 1.0),
    seconds: float = 120.0,
) -> Certified:
    """Certify for each sample a radius within which its class cannot change.

    With m the margin ``f_y(x) - f_j(x)`` no change shorter than ``m / Lip(f_y - f_j)`` lets class j pass class y. The
    radius is the least of these over all j, by proven upper bounds of the constants.

    Args:
        model: as in :func:`upper`, with one output for each class.
        x: samples ``(n, *input)``, floating, finite.
        y: their labels, whole numbers ``(n,)``.
        p: the norm of changes: 1, 2 or inf.
        method: ``"pairs"`` bounds Lip(f_i - f_j) for each pair of classes, for p = 2 by LipSDP each; ``"pairs-fast"``
            likewise, with the multipliers of the whole network for all; ``"global"`` takes one bound of Lip(f).
        domain: ``"all"`` space, or ``"box"``: then changed samples stay in the box, and ``x`` has to lie in it.
        box: ``(low, high)``, numbers or one per channel; used with ``domain="box"``.
        seconds: when the bounds are no longer improved; what is reached by then is proven as well.

    Returns:
        The radii.

    Raises:
        TypeError: naming the module that is not understood; if ``y`` holds no whole numbers.
        ValueError: as :func:`upper`; if ``x`` and ``y`` are not as many, empty, not finite, outside the box, or no
            classes of the model.

    Reference: Tsuzuku, Sato, Sugiyama 2018, "Lipschitz-margin training"; for pairs of classes Leino, Wang, Fredrikson
    2021, "Globally-robust neural networks".

    Example:
        >>> net = torch.nn.Linear(2, 2, bias=False)
        >>> net.weight.data = torch.eye(2)
        >>> result = certify(net, torch.tensor([[3.0, 1.0], [1.0, 2.0]]), torch.tensor([0, 0]))
        >>> [round(radius, 4) for radius in result.radius.tolist()]  # the distance to the line x_1 = x_2
        [1.4142, 0.0]
        >>> result.accuracy(1.0)
        0.5
    """
    begun = time.monotonic()
    norm = checked(p, "auto", domain)
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    if not (isinstance(seconds, (int, float)) and seconds >= 0):
        raise ValueError(f"seconds must be a number of at least 0; got {seconds!r}")
    shape = shape_of(x)
    within = box if domain == "box" else None
    _check_samples(x, y, within)
    problem = problem_of(model, shape, norm, within)
    if len(problem.graph.nodes[-1].shape) != 1:
        raise ValueError(
            f"certify needs outputs of shape (n, classes); got {problem.graph.nodes[-1].shape} for each sample"
        )
    with torch.no_grad():
        outputs, lost = _outputs(model, x)
        classes = outputs.shape[1]
        if int(y.min()) < 0 or int(y.max()) >= classes:
            raise ValueError(
                f"labels must be 0 to {classes - 1}, as the model has {classes} outputs; got {int(y.max())}"
            )
        if method == "global":
            constants, how = by_one(problem, begun + seconds)
        else:
            constants, how = by_pair(problem, "sdp" if method == "pairs" else "shared", begun + seconds)
    radius = radii(outputs, y.cpu(), constants, lost)
    return Certified(radius, constants, norm, how, domain, time.monotonic() - begun)


def radii(outputs: Tensor, y: Tensor, constants: Tensor, lost: Tensor | float = 0.0) -> Tensor:
    """Return the certified radius of each sample, rounded down.

    Args:
        outputs: of the model in float64, ``(n, classes)``.
        y: labels, ``(n,)``.
        constants: bounds of Lip(f_i - f_j), ``(classes, classes)``.
        lost: what the outputs may be off by beside the usual, ``(n, 1)``, as by rounding of larger numbers inside.

    Example:
        >>> z = torch.tensor([[2.0, 0.0, 1.0]], dtype=torch.float64)
        >>> round(float(radii(z, torch.tensor([0]), torch.full((3, 3), 4.0, dtype=torch.float64))), 6)
        0.25
    """
    own = outputs.gather(1, y[:, None])
    margins = own - outputs - ROUNDING * outputs.abs().amax(1, keepdim=True) - lost
    others = torch.ones_like(outputs, dtype=torch.bool).scatter_(1, y[:, None], False)
    each = torch.where(margins > 0, margins / constants[y] * (1 - 1e-12), 0.0)
    # Equal outputs, whose difference cannot change, leave nothing to fear where they differ.
    return torch.where(others, each, math.inf).amin(1) if outputs.shape[1] > 1 else torch.full_like(own[:, 0], math.inf)


def _check_samples(x: Tensor, y: Tensor, box: Box | None) -> None:
    if not isinstance(y, Tensor) or y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        got = y.dtype if isinstance(y, Tensor) else type(y).__name__
        raise TypeError(f"y must be a tensor of whole numbers, the labels; got {got}")
    if not len(x) or y.shape != x.shape[:1]:
        raise ValueError(
            f"x and y must be equally many, at least one; got {len(x)} and labels of shape {tuple(y.shape)}"
        )
    if x.is_meta or y.device != x.device:
        raise ValueError(f"x and y must lie on one device and hold numbers; got {x.device} and {y.device}")
    if not bool(torch.isfinite(x).all()):
        raise ValueError("x must be finite; got NaN or infinite numbers")
    if box is not None:
        low, high = box_tensors(box, x)
        if bool(((x < low) | (x > high)).any()):
            raise ValueError("x must lie in the box, where the bound holds; clamp it, or use domain='all'")


def _outputs(model: Model, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the outputs in float64, and what they lost in it where numbers on the way were large."""
    inner = copy.deepcopy(module_of(model)).cpu().double().eval()
    found, lost = [], []
    for part in torch.split(x, BATCH):
        with Largest() as largest:
            found.append(inner(part.cpu().double()))
        lost.append(found[-1].new_full((len(part), 1), PLACES * torch.finfo(torch.float64).eps * largest.value))
    outputs = torch.cat(found)
    if not bool(torch.isfinite(outputs).all()):
        raise ValueError("the model's outputs must be finite; got NaN or infinite ones")
    return outputs, torch.cat(lost)
