"""From a part of a graph to its equations: all that is linear between the units becomes matrices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from cheaplip.lipschitz.network import Graph, Node
from cheaplip.lipschitz.network.rules import LinearMap
from cheaplip.lipschitz.system import System, Units

# Slopes of the units of a node, (*shape) each.
Slopes: TypeAlias = "tuple[Tensor, Tensor]"
# With more numbers than this a part's matrices are not written down.
NUMBERS = 2**27
# Below this, products may have lost digits, which show again when everything is so many times larger.
VANISHING, LARGER = 1e-290, 2.0**500


def is_dense(graph: Graph, start: int, end: int, units: int) -> bool:
    """Tell whether a part is made of linear layers and of at most so many units, and its matrices can be written down.

    Args:
        graph: of the network.
        start: the node that is the part's input.
        end: the node that is its output.
        units: the largest number of units.
    """
    nodes = graph.nodes[start + 1 : end + 1]
    layers = [node for node in nodes if _is_units(node)]
    if not all(node.is_linear or _is_units(node) for node in nodes) or sum(node.size for node in layers) > units:
        return False
    widest = max(node.size for node in graph.nodes[start : end + 1])
    return sum(node.size for node in (graph.nodes[start], *layers)) * widest <= NUMBERS


def _is_units(node: Node) -> bool:
    return len(node.rules) == 1 and node.rules[0].elementwise is not None


def system_of(graph: Graph, start: int, end: int, slopes: Mapping[int, Slopes]) -> System:
    """Return the equations of the part from one node to another.

    Args:
        graph: of the network.
        start: the node that is the part's input, a waist of the graph.
        end: the node that is its output, likewise.
        slopes: of each node of units.
    """
    layers = [place for place in range(start + 1, end + 1) if _is_units(graph.nodes[place])]
    sources = [start, *layers]
    passes = [_push(graph, start, end, source) for source in sources]
    offsets = _push(graph, start, end, None)[0]
    units = []
    for number, place in enumerate(layers):
        node, fed = graph.nodes[place], graph.nodes[place].sources[0]
        rule = node.rules[0].elementwise
        if rule is None:
            raise ValueError(f"{node.called} has no units")
        low, high = slopes[place]
        shape, function = node.shape, rule.function
        units.append(
            Units(
                node.name,
                _columns([values[fed] for values, _ in passes[: number + 1]], node.size),
                _row(offsets[fed], node.size),
                low.flatten(),
                high.flatten(),
                lambda z, f=function, s=shape: f(z.view(-1, *s)).view(z.shape),  # type: ignore[misc]
                rule.pieces,
                _columns([sizes[fed] for _, sizes in passes[: number + 1]], node.size),
            )
        )
    size = graph.nodes[end].size
    return System(
        graph.nodes[start].size,
        tuple(units),
        _columns([values[end] for values, _ in passes], size),
        _row(offsets[end], size),
        _columns([sizes[end] for _, sizes in passes], size),
        _terms(graph, start, end),
    )


def _push(graph: Graph, start: int, end: int, source: int | None) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """Send the identity from one source through all that is linear; from none, the offsets.

    Returns:
        For each node what arrives there, None for zero, and the same with absolute values of all weights.
    """
    values: list[Tensor | None] = [None] * (end + 1)
    sizes: list[Tensor | None] = [None] * (end + 1)
    for place in range(start, end + 1):
        node = graph.nodes[place]
        if place == source:
            values[place] = sizes[place] = torch.eye(node.size, dtype=torch.float64).view(-1, *node.shape)
        elif place > start and not _is_units(node):
            for before, rule in zip(node.sources, node.rules, strict=True):
                linear, value, size = rule.linear, values[before], sizes[before]
                if linear is None:
                    raise ValueError(f"{node.called} is not linear")
                terms = [] if value is None else [linear.apply(value)]
                if source is None and linear.offset is not None:
                    terms.append(linear.offset.unsqueeze(0))
                for term in terms:
                    values[place] = _added(values[place], term)
                if size is not None:
                    sizes[place] = _added(sizes[place], _kept(linear, size))
    return values, sizes


def _kept(linear: LinearMap, size: Tensor) -> Tensor:
    """Return how large entries become behind a linear map: infinite where they lose digits near zero, or vanish."""
    made = linear.magnitude(size)
    small = made < VANISHING
    if not linear.moves and bool(small.any()):
        made = torch.where(small & (linear.magnitude(size * LARGER) > 0), math.inf, made)
    return made


def _added(one: Tensor | None, other: Tensor) -> Tensor:
    return other if one is None else one + other


def _columns(parts: Sequence[Tensor | None], size: int) -> tuple[Tensor | None, ...]:
    return tuple(None if part is None else part.reshape(len(part), size).T.contiguous() for part in parts)


def _row(part: Tensor | None, size: int) -> Tensor:
    return torch.zeros(size, dtype=torch.float64) if part is None else part.reshape(size)


def _terms(graph: Graph, start: int, end: int) -> int:
    """Return how many roundings an entry of any matrix may have behind it; none where each is a weight as it is."""
    count = 0
    deep = [0] * (end + 1)
    for place in range(start + 1, end + 1):
        node = graph.nodes[place]
        if _is_units(node):
            continue
        for before, rule in zip(node.sources, node.rules, strict=True):
            moves = rule.linear is not None and rule.linear.moves
            exact = rule.linear is not None and rule.linear.exact and deep[before] == 0
            own = 0 if moves or exact else 2 * graph.nodes[before].size + 4
            deep[place] = max(deep[place], deep[before] + own + (0 if moves else 1) + (len(node.sources) > 1))
        count = max(count, deep[place])
    return 0 if count <= 1 else count + math.ceil(math.log2(count))
