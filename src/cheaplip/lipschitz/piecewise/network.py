"""A piecewise-linear network: its affine functions in exact arithmetic, and bounds on its Jacobian for given slopes."""

from __future__ import annotations

import itertools
import math
from typing import TypeAlias, final

import numpy as np
import torch
from numpy.typing import NDArray

from cheaplip.lipschitz.piecewise.integers import EPS, Bools, Floats, Integers, integers, places
from cheaplip.lipschitz.system import Matrices, Pieces, System

Matrix: TypeAlias = "Floats | None"
# Integers, and by which power of two they are too large.
Scaled: TypeAlias = "tuple[Integers, int]"
Whole: TypeAlias = "NDArray[np.int_]"


@final
class Network:
    """What the search asks of a network; its units are numbered through all layers.

    Args:
        system: the network, every layer with its pieces.

    Attributes:
        breaks: of each unit, those that change its slope, ``(units, m)``, filled up with inf.
        counts: how many these are, ``(units,)``.
        matters: whether the output sees the unit, ``(units,)``.
    """

    def __init__(self, system: System) -> None:
        self.system = system
        matrices = [*(layer.weights for layer in system.units), system.weights]
        self.weights = [_arrays(weights) for weights in matrices]
        known = [*(layer.sizes for layer in system.units), system.sizes]
        self.sizes = [_sizes(one, sizes) for one, sizes in zip(self.weights, known, strict=True)]
        ends = np.cumsum([0, *map(len, system.units)]).tolist()
        self.spans = [slice(start, end) for start, end in itertools.pairwise(ends)]
        self.widths = [system.inputs, *map(len, system.units), len(system.offset)]
        kinks = [kink for layer in system.units for kink in _kinks(layer.pieces)]
        self.counts = np.array([len(breaks) for breaks, _ in kinks], dtype=int)
        most = int(self.counts.max(initial=0))
        self.breaks = np.array([[*b, *[math.inf] * (most - len(b))] for b, _ in kinks]).reshape(len(kinks), most)
        self.slopes = np.array([[*s, *[s[-1]] * (most - len(s) + 1)] for _, s in kinks]).reshape(len(kinks), most + 1)
        self.offsets = [layer.offset.detach().numpy() for layer in system.units]
        self._prepare_integers()
        self.matters = self._matters()

    def _prepare_integers(self) -> None:
        at = np.where(self.counts > 0, self.breaks[:, 0], 0.0) if self.breaks.shape[1] else np.zeros(len(self.counts))
        starts = [
            layer.function(torch.from_numpy(at[span])).numpy()
            for layer, span in zip(self.system.units, self.spans, strict=True)
        ]
        start = np.concatenate([np.zeros(0), *starts])
        breaks = np.where(np.isfinite(self.breaks), self.breaks, 0.0)
        dense = [weight.ravel() for weights in self.weights for weight in weights if weight is not None]
        all_of_them = [*dense, *self.offsets, self.slopes.ravel(), breaks.ravel(), start]
        self.shift = places(np.concatenate(all_of_them))
        self.whole_weights = [
            [None if weight is None else integers(weight, self.shift) for weight in weights] for weights in self.weights
        ]
        self.whole_offsets = [integers(offset, self.shift) for offset in self.offsets]
        self.whole_slopes, self.whole_breaks = integers(self.slopes, self.shift), integers(breaks, self.shift)
        # What a piece adds to slope · z, such that the function is continuous.
        heights = [(integers(start, self.shift) << self.shift) - self.whole_slopes[:, 0] * integers(at, self.shift)]
        for k in range(self.breaks.shape[1]):
            jump = (self.whole_slopes[:, k] - self.whole_slopes[:, k + 1]) * self.whole_breaks[:, k]
            heights.append(heights[-1] + jump)
        self.whole_heights = np.stack(heights, 1)

    def _matters(self) -> Bools:
        matters = np.zeros(len(self.counts), dtype=bool)
        for k, sizes in reversed(list(enumerate(self.sizes))):
            rows = slice(None) if k == len(self.spans) else matters[self.spans[k]]
            for span, size in zip(self.spans, sizes[1:], strict=False):
                if size is not None:
                    matters[span] |= (size[rows] != 0).any(0)
        return matters

    def entries(self, columns: Whole) -> list[Scaled]:
        """Return what each layer's pre-activations get from some coordinates of the input and from the offset."""
        found = []
        for weights, offset in zip(self.whole_weights[:-1], self.whole_offsets, strict=True):
            rows = np.zeros((len(offset), len(columns) + 1), dtype=object)
            if weights[0] is not None:
                rows[:, :-1] = weights[0][:, columns]
            rows[:, -1] = offset
            found.append((rows, self.shift))
        return found

    def forms(self, entry: Scaled, weights: list[Integers | None], values: list[Scaled]) -> Scaled:
        """Return a layer's pre-activations as affine functions of the input.

        Args:
            entry: what the input and the offset give.
            weights: the matrices from the layers before.
            values: the layers before.
        """
        top = max([entry[1] - self.shift, *(scale for _, scale in values)])
        total = entry[0] << (top + self.shift - entry[1])
        for weight, (value, own) in zip(weights, values, strict=True):
            if weight is not None:
                total = total + weight @ (value << (top - own))
        return total, top + self.shift

    def activate(self, k: int, forms: Scaled, pieces: Whole) -> Scaled:
        """Return layer k's values on the given pieces of its units, ``(all units,)``."""
        rows, scale = forms
        units = np.arange(len(self.counts))[self.spans[k]]
        values = rows * self.whole_slopes[units, pieces[units]][:, None]
        values[:, -1] += self.whole_heights[units, pieces[units]] << (scale - self.shift)
        return values, scale + self.shift

    def behind(self, k: int, forms: Scaled, unit: int, piece: int) -> Integers:
        """Return the form that is positive where a unit of layer k is right of a piece."""
        rows, scale = forms
        form: Integers = rows[unit - self.spans[k].start].copy()
        form[-1] -= self.whole_breaks[unit, piece] << (scale - self.shift)
        return form

    def holds(self, x: Floats, pieces: Whole, entries: list[Scaled]) -> bool:
        """Tell whether each unit is in the interior of its piece at an input, or constant, in exact arithmetic."""
        scale = places(x)
        at, values = np.append(integers(x, scale), 1 << scale), list[Scaled]()
        for k, entry in enumerate(entries):
            forms = self.forms(entry, self.whole_weights[k][1:], values)
            for unit, piece in enumerate(pieces[self.spans[k]].tolist(), self.spans[k].start):
                for side, place in ((1, piece - 1), (-1, piece)):
                    if 0 <= place < self.counts[unit]:
                        form = side * self.behind(k, forms, unit, place)
                        value = form @ at
                        if value < 0 or (value == 0 and form[:-1].any()):
                            return False
            values.append(self.activate(k, forms, pieces))
        return True

    def within(self, k: int, low: Floats, high: Floats) -> tuple[Floats, Floats]:
        """Return bounds on layer k's values from bounds on its pre-activations."""
        places = [low, high, *(np.clip(at, low, high) for at in self.breaks[self.spans[k]].T)]
        function, steep = self.system.units[k].function, np.abs(self.slopes[self.spans[k]]).max(1)
        values = np.stack([function(torch.from_numpy(at)).numpy() for at in places])
        lost = 8 * EPS * (np.abs(values).max(0) + steep * np.maximum(np.abs(low), np.abs(high)))
        return values.min(0) - lost, values.max(0) + lost

    def foresee(self, k: int, ranges: list[tuple[Floats, Floats]], first: Whole, last: Whole) -> None:
        """Leave the units from layer k on the pieces that they may be on, given bounds on the input and all before."""
        ranges = list(ranges)
        for layer in range(k, len(self.spans)):
            span = self.spans[layer]
            middle, radius = self.offsets[layer], np.zeros(len(self.offsets[layer]))
            for weight, (low, high) in zip(self.weights[layer], ranges, strict=True):
                if weight is not None:
                    half = (high - low) / 2
                    lost = 4 * sum(self.widths) * EPS * (np.abs(low) + np.abs(high))
                    middle, radius = middle + weight @ (low + half), radius + np.abs(weight) @ (half + lost)
            radius = radius + 4 * EPS * (np.abs(middle) + np.abs(self.offsets[layer]))
            low, high = middle - radius, middle + radius
            breaks, matters = self.breaks[span], self.matters[span]
            left, right = (breaks <= low[:, None]).sum(1), (breaks < high[:, None]).sum(1)
            first[span] = np.where(matters, np.maximum(first[span], left), first[span])
            last[span] = np.where(matters, np.maximum(np.minimum(last[span], right), first[span]), last[span])
            ranges.append(self.within(layer, low, high))

    def pieces(self, x: Floats) -> Whole:
        """Return on which piece each unit is at the inputs, ``(n, inputs)``: ``(n, units)``, up to rounding."""
        values, found = [torch.from_numpy(x)], [np.zeros((len(x), 0), dtype=int)]
        for k, layer in enumerate(self.system.units):
            z = np.zeros((len(x), len(layer))) + self.offsets[k]
            for weight, value in zip(self.weights[k], values, strict=True):
                if weight is not None:
                    z = z + value.numpy() @ weight.T
            found.append((z[:, :, None] > self.breaks[self.spans[k]]).sum(2))
            values.append(layer.function(torch.from_numpy(z)))
        return np.concatenate(found, 1)

    def slopes_between(self, first: Whole, last: Whole) -> tuple[Floats, Floats]:
        """Return the least and the largest slope of each unit on a range of pieces."""
        index = np.arange(self.slopes.shape[1])
        inside = (index >= first[:, None]) & (index <= last[:, None])
        low = np.where(inside, self.slopes, math.inf).min(1, initial=math.inf)
        return low, np.where(inside, self.slopes, -math.inf).max(1, initial=-math.inf)


def _arrays(weights: Matrices) -> list[Matrix]:
    return [None if weight is None else weight.detach().numpy() for weight in weights]


def _sizes(weights: list[Matrix], known: Matrices | None) -> list[Matrix]:
    """Return bounds on the absolute values, and on what rounding is in proportion to."""
    sizes = known or [None] * len(weights)
    return [
        None
        if weight is None
        else np.abs(weight)
        if size is None
        else np.maximum(np.abs(weight), size.detach().numpy())
        for weight, size in zip(weights, sizes, strict=True)
    ]


def _kinks(pieces: Pieces | None) -> list[tuple[list[float], list[float]]]:
    """Return, of each unit, the breaks where its slope does change, and its slopes."""
    if pieces is None:
        raise ValueError("pieces")
    return [
        _kinks_of(breaks, slopes) for breaks, slopes in zip(pieces.breaks.tolist(), pieces.slopes.tolist(), strict=True)
    ]


def _kinks_of(breaks: list[float], slopes: list[float]) -> tuple[list[float], list[float]]:
    at: list[float] = []
    kept = [slopes[0]]
    for place, slope in zip(breaks, slopes[1:], strict=True):
        # What lies left of -inf, right of inf or between two equal breaks is nowhere.
        if place == -math.inf:
            kept = [slope]
            continue
        if at and place == at[-1]:
            at.pop()
            kept.pop()
        if place < math.inf and slope != kept[-1]:
            at.append(place)
            kept.append(slope)
    return at, kept
