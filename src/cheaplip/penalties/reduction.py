"""How the quotients of all pairs become one number."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from cheaplip.norms import Norm, vector_norm
from cheaplip.pairs import Measurement
from cheaplip.pairs.steepness import quotient, widen


@final
class Reduction(NamedTuple):
    """The largest quotient, the mean, or what lies between.

    Attributes:
        name: ``"max"``, ``"mean"`` or ``"softmax"``.
        temperature: T of the soft maximum T log mean exp(L / T): 0 is the maximum, infinity the mean.
    """

    name: str
    temperature: float = 1.0

    def quotients(self, output_u: Tensor, output_v: Tensor, distance: Tensor, p_out: Norm) -> Tensor:
        """Return the reduced quotients of outputs, a scalar.

        Args:
            output_u: outputs at the first points, ``(P, ...)``; of the steepest pair, ``(1, ...)``, for ``"max"``.
            output_v: at the second points, likewise.
            distance: the pairs' distances, ``(P,)``; of the steepest one, ``()``, for ``"max"``.
            p_out: the norm of outputs.
        """
        if self.name != "max":
            return self(quotient(output_u, output_v, distance, p_out), distance)
        # Of one pair in as few operations as can be: they are felt in the step of a small network.
        change = widen(output_u) - widen(output_v)
        size = vector_norm(change, p_out).squeeze(0) if callable(p_out) else torch.linalg.vector_norm(change, p_out)
        return size / distance

    def chosen(self, points: Tensor, measured: Measurement) -> tuple[Tensor, Tensor]:
        """Return the points that this reduction needs, first all u then all v, and the distances of these pairs.

        Args:
            points: of all pairs, ``(2P, *shape)``.
            measured: what was measured there.
        """
        largest, distance = measured.steepest, measured.distance
        if self.name == "max":
            return points[largest :: len(measured.values)], distance[largest]
        wrong = sorted(set(range(len(measured.values))).difference(measured.usable))
        if wrong:
            # Their place is taken by a point whose output is finite, twice, at a distance that makes it count for 0.
            points, distance = points.clone(), distance.clone()
            u, v = points.chunk(2)
            u[wrong] = v[wrong] = u[largest].clone()
            distance[wrong] = math.inf
        return points, distance

    def __call__(self, value: Tensor, distance: Tensor) -> Tensor:
        """Return the mean or soft maximum of quotients, a scalar.

        Args:
            value: the quotients, ``(P,)``.
            distance: the pairs' distances; a pair at distance inf is too close to count, or went wrong.
        """
        counted = torch.isfinite(distance)
        value = value[counted] if bool(counted.any()) else value
        if self.name == "mean":
            return value.mean()
        return self.temperature * (torch.logsumexp(value / self.temperature, 0) - math.log(len(value)))


def check_reduce(reduce: Any) -> Reduction:
    """Return the reduction of an argument.

    Raises:
        ValueError: for anything but ``"max"``, ``"mean"`` and ``("softmax", T)`` with T above 0.

    Example:
        >>> check_reduce(("softmax", 0.1))
        Reduction(name='softmax', temperature=0.1)
    """
    if isinstance(reduce, str) and reduce in ("max", "mean"):
        return Reduction(reduce)
    if isinstance(reduce, (tuple, list)) and len(reduce) == 2 and reduce[0] == "softmax":
        temperature = reduce[1]
        if isinstance(temperature, (int, float)) and 0 < temperature < math.inf:
            return Reduction("softmax", float(temperature))
    raise ValueError(f'reduce must be "max", "mean" or ("softmax", temperature above 0); got {reduce!r}')
