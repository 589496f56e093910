"""What the units of a network can see while its input stays in a box: intervals, sent through layer by layer."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping

import torch
from torch import Tensor

from cheaplip.lipschitz.dense import Slopes
from cheaplip.lipschitz.network import Graph, Node
from cheaplip.lipschitz.network.rules import Rule
from cheaplip.norms import Box, box_tensors

EPS = sys.float_info.epsilon


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
    intervals = [_outward(low.expand(shape).clone(), high.expand(shape).clone(), 0.0)]
    found: dict[int, Slopes] = {}
    for place, node in enumerate(graph.nodes[1:], 1):
        parts = [_through(rule, *intervals[source]) for source, rule in zip(node.sources, node.rules, strict=True)]
        rule = _units(node)
        if rule is not None and rule.elementwise is not None:
            found[place] = rule.elementwise.slopes(*intervals[node.sources[0]])
        low = torch.stack([part[0] for part in parts]).sum(0)
        high = torch.stack([part[1] for part in parts]).sum(0)
        intervals.append(_outward(low, high, 4 * EPS * len(parts)) if len(parts) > 1 else (low, high))
    return found


def _outward(low: Tensor, high: Tensor, share: float) -> Slopes:
    room = share * torch.maximum(low.abs(), high.abs())
    return low - room, high + room


def _through(rule: Rule, low: Tensor, high: Tensor) -> Slopes:
    """Return bounds of what a layer gives for inputs between bounds."""
    centre, radius = (low + high) / 2, (high - low) / 2
    if rule.linear is not None:
        middle = rule.linear.apply(centre.unsqueeze(0))[0]
        spread = rule.linear.magnitude(radius.unsqueeze(0))[0]
        lost = rule.linear.magnitude(centre.abs().unsqueeze(0))[0] + spread
        if rule.linear.offset is not None:
            middle, lost = middle + rule.linear.offset, lost + rule.linear.offset.abs()
        room = spread + 8 * (low.numel() + 8) * EPS * lost
        return middle - room, middle + room
    if rule.elementwise is not None:
        return _units_between(rule, low, high)
    if rule.function is None:
        raise ValueError("a layer with a registered constant has no bounds inside a box: use domain='all'")
    # Every output stays within the constant times the largest change of any input.
    middle = rule.function(centre.unsqueeze(0))[0]
    room = rule.constant(math.inf) * float(radius.max()) * (1 + 8 * EPS) + 64 * EPS * middle.abs()
    return middle - room, middle + room


def _units_between(rule: Rule, low: Tensor, high: Tensor) -> Slopes:
    if rule.elementwise is None:
        raise ValueError("it does not work unit by unit")
    function = rule.elementwise.function
    least, most = rule.elementwise.slopes(low, high)
    ends = function(torch.stack([low, high]))
    top = torch.maximum(least.abs(), most.abs())
    centre = function(((low + high) / 2).unsqueeze(0))[0]
    room = top * (high - low) / 2 * (1 + 4 * EPS)
    # Where the function rises throughout, or falls, its ends are its bounds.
    rises, falls = least >= 0, most <= 0
    bottom = torch.where(rises, ends[0], torch.where(falls, ends[1], centre - room))
    ceiling = torch.where(rises, ends[1], torch.where(falls, ends[0], centre + room))
    lost = 64 * EPS * torch.maximum(bottom.abs(), ceiling.abs())
    return bottom - lost, ceiling + lost


def tops_of(slopes: Mapping[int, Slopes]) -> dict[int, float]:
    """Return the largest absolute slope of each node of units."""
    return {
        place: float(torch.maximum(low.abs(), high.abs()).max()) if low.numel() else 0.0
        for place, (low, high) in slopes.items()
    }
