"""What the units of a network can see while its input stays in a box: intervals, sent through layer by layer."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping

import torch
from torch import Tensor

from cheaplip.lipschitz.dense import Slopes
from cheaplip.lipschitz.network import Graph, Node
from cheaplip.lipschitz.network.rules import Elementwise, LinearMap, Rule
from cheaplip.norms import Box, box_tensors

EPS, SMALLEST = sys.float_info.epsilon, sys.float_info.min


def slopes_of(graph: Graph, box: Box | None) -> dict[int, Slopes]:
    """Return the least and the largest slope of every unit of every node of units.

    Args:
        graph: of the network.
        box: where its input stays, numbers or one per channel; None for all space.

    Raises:
        ValueError: if the box does not fit the input.
    """
    layers = {place: _units(node) for place, node in enumerate(graph.nodes) if _units(node)}
    if box is None:
        found = {}
        for place, rule in layers.items():
            free = torch.full(graph.nodes[place].shape, math.inf, dtype=torch.float64)
            if rule is not None and rule.elementwise is not None:
                found[place] = rule.elementwise.slopes(-free, free)
        return found
    return _inside(graph, box)


def _units(node: Node) -> Rule | None:
    return node.rules[0] if len(node.rules) == 1 and node.rules[0].elementwise is not None else None


def _inside(graph: Graph, box: Box) -> dict[int, Slopes]:
    shape = graph.nodes[0].shape
    low, high = box_tensors(box, torch.zeros(1, *shape, dtype=torch.float64))
    if not bool(torch.isfinite(low).all() and torch.isfinite(high).all()):
        raise ValueError("the bounds of a box must be finite; leave the box out for all space")
    intervals = [(low.expand(shape).clone(), high.expand(shape).clone())]
    found: dict[int, Slopes] = {}
    for place, node in enumerate(graph.nodes[1:], 1):
        rule = _units(node)
        if rule is not None and rule.elementwise is not None:
            found[place] = rule.elementwise.slopes(*intervals[node.sources[0]])
        sources = [intervals[source] for source in node.sources]
        parts = [_through(rule, node, *source) for rule, source in zip(node.rules, sources, strict=True)]
        intervals.append(_known(*(_summed([part[side] for part in parts], sign) for side, sign in ((0, -1), (1, 1)))))
    return found


def _summed(parts: list[Tensor], sign: int) -> Tensor:
    """Return the sum of bounds, rounded outward."""
    if len(parts) == 1:
        return parts[0]
    terms = torch.stack(parts)
    return terms.sum(0) + sign * 4 * EPS * len(parts) * terms.abs().sum(0)


def _known(low: Tensor, high: Tensor) -> Slopes:
    """Return bounds without those that overflowed on the way."""
    lost = torch.isnan(low) | torch.isnan(high) | (low == math.inf) | (high == -math.inf)
    return torch.where(lost, -math.inf, low), torch.where(lost, math.inf, high)


def _through(rule: Rule, node: Node, low: Tensor, high: Tensor) -> Slopes:
    """Return bounds of what a layer gives for inputs between bounds."""
    if rule.elementwise is not None:
        return _units_between(rule.elementwise, low, high)
    if not bool(torch.isfinite(low).all() and torch.isfinite(high).all()) or (
        rule.linear is None and rule.function is None
    ):
        free = torch.full(node.shape, math.inf, dtype=torch.float64)
        return -free, free
    centre, radius = low / 2 + high / 2, high / 2 - low / 2
    if rule.linear is not None:
        return _linear_between(rule.linear, centre, radius)
    if rule.function is None:
        raise ValueError("it is not known what it gives")
    lost = 64 * EPS * rule.constant(math.inf) * float(torch.maximum(low.abs(), high.abs()).max())
    if rule.rises:
        bottom, ceiling = rule.function(torch.stack([low, high]))
    else:
        # Every output stays within the constant times the largest change of any input.
        # Two of them, as GroupNorm of one number asks for more than one sample.
        middle = rule.function(torch.stack([centre, centre]))[0]
        room = rule.constant(math.inf) * float(radius.max()) * (1 + 8 * EPS)
        bottom, ceiling = middle - room, middle + room
    return bottom - lost - 64 * EPS * bottom.abs(), ceiling + lost + 64 * EPS * ceiling.abs()


def _linear_between(linear: LinearMap, centre: Tensor, radius: Tensor) -> Slopes:
    middle = linear.apply(centre.unsqueeze(0))[0]
    spread = linear.magnitude(radius.unsqueeze(0))[0]
    lost = linear.magnitude(centre.abs().unsqueeze(0))[0] + spread
    if linear.offset is not None:
        middle, lost = middle + linear.offset, lost + linear.offset_size()
    room = spread + 8 * (centre.numel() + 8) * EPS * lost + SMALLEST * (centre.numel() + 8)
    return middle - room, middle + room


def _units_between(units: Elementwise, low: Tensor, high: Tensor) -> Slopes:
    least, most = units.slopes(low, high)
    ends = units.function(torch.stack([low, high]))
    top = torch.maximum(least.abs(), most.abs())
    centre = units.function((low / 2 + high / 2).unsqueeze(0))[0]
    room = top * (high / 2 - low / 2) * (1 + 4 * EPS)
    # Where the function rises throughout, or falls, its ends are its bounds.
    rises, falls = least >= 0, most <= 0
    bottom = torch.where(rises, ends[0], torch.where(falls, ends[1], centre - room))
    ceiling = torch.where(rises, ends[1], torch.where(falls, ends[0], centre + room))
    largest = torch.maximum(low.abs(), high.abs())
    lost = 64 * EPS * (torch.maximum(bottom.abs(), ceiling.abs()) + torch.where(top > 0, top * largest, 0.0))
    return bottom - lost, ceiling + lost


def tops_of(slopes: Mapping[int, Slopes]) -> dict[int, float]:
    """Return the largest absolute slope of each node of units."""
    return {
        place: float(torch.maximum(low.abs(), high.abs()).max()) if low.numel() else 0.0
        for place, (low, high) in slopes.items()
    }
