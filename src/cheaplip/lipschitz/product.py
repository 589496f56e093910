"""The product of the layers' constants, along a graph: sums of branches add up, side by side they join as a norm."""

from __future__ import annotations

import functools
import itertools
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import torch

from cheaplip.lipschitz.network import Graph, Node
from cheaplip.lipschitz.network.graph import joined, times, up
from cheaplip.lipschitz.network.linear import DENSE, matrix_norm, matrix_of
from cheaplip.lipschitz.network.rules import LinearMap, Rule, Shape

# Layers that are larger or smaller than this are not multiplied as matrices.
FAR = 1e50
# A product of two numbers of which less than this is left may have lost as much.
VANISHED = sys.float_info.min


@final
@dataclass
class Product:
    """Constants of the layers of a graph, and of parts of it.

    Linear layers in a row are one layer: its constant is at most the product of theirs, and less where a BatchNorm
    undoes what the layer before it did.

    Args:
        graph: of the network.
        p: the norm, 1, 2 or inf.
        tops: of each node of units, the largest absolute slope.
    """

    graph: Graph
    p: float
    tops: Mapping[int, float]
    known: dict[tuple[int, ...], float] = field(default_factory=dict)

    def between(self, start: int, end: int) -> float:
        """Return the constant of the part from one node to another, both waists of the graph."""
        inner = self._inner(end)
        reached: dict[int, float] = {start: 1.0}
        rows: dict[int, tuple[int, ...]] = {}
        for place in range(start + 1, end + 1):
            node = self.graph.nodes[place]
            if len(node.sources) == 1 and node.is_linear:
                rows[place] = (*rows.get(node.sources[0], ()), place) if node.sources[0] in inner else (place,)
                if place not in inner:
                    before = self.graph.nodes[rows[place][0]].sources[0]
                    reached[place] = times(reached[before], self.row(rows[place]))
            else:
                parts = [times(reached[s], self.own(place, k)) for k, s in enumerate(node.sources)]
                reached[place] = joined(parts, node.join, self.p)
        return reached[end]

    def _inner(self, end: int) -> set[int]:
        """Return the linear layers that are followed by a linear layer and by nothing else."""
        users: dict[int, list[Node]] = {}
        for node in self.graph.nodes[: end + 1]:
            for source in node.sources:
                users.setdefault(source, []).append(node)
        return {
            place
            for place, node in enumerate(self.graph.nodes)
            if len(node.sources) == 1
            and node.is_linear
            and len(after := users.get(place, [])) == 1
            and len(after[0].sources) == 1
            and after[0].is_linear
        }

    def own(self, place: int, which: int = 0) -> float:
        """Return the constant of one layer in what it does with one of its sources."""
        node = self.graph.nodes[place]
        if place in self.tops:
            return self.tops[place]
        key = (-1, place, which)
        if key not in self.known:
            self.known[key] = _asked(node, node.rules[which], self.p)
        return self.known[key]

    def row(self, places: tuple[int, ...]) -> float:
        """Return the constant of linear layers in a row."""
        if places not in self.known:
            nodes = [self.graph.nodes[place] for place in places]
            shape = self.graph.nodes[nodes[0].sources[0]].shape
            self.known[places] = _row(nodes, shape, self.p)
        return self.known[places]


def _asked(node: Node, rule: Rule, p: float) -> float:
    what = "module" if node.kind[:1].isupper() else "function"
    called = node.called if node.called.startswith("the model") else f"{what} {node.called}"
    try:
        constant = rule.constant(p)
    except ValueError as error:
        raise ValueError(f"{called}: {error}") from error
    if not 0 <= constant < math.inf:
        raise ValueError(f"{called} must have a finite Lipschitz constant; got {constant}: check its settings")
    return constant


def _row(nodes: Sequence[Node], shape: Shape, p: float) -> float:
    widest = max(node.size for node in nodes)
    rules: list[tuple[Rule, Node, float]] = []  # and what may have vanished while a rule was made
    for node in nodes:
        linear, before = node.rules[0].linear, rules[-1][0].linear if rules else None
        if linear is not None and linear.factors is not None and before is not None and before.rescaled is not None:
            # BatchNorm becomes part of the layer before it.
            rules[-1] = before.rescaled(linear.factors), rules[-1][1], rules[-1][2] + VANISHED * node.size * widest**2
        else:
            rules.append((node.rules[0], node, 0.0))
    asked = ((_asked(node, rule, p), vanished) for rule, node, vanished in rules)
    constants = [up(constant + vanished) if vanished else constant for constant, vanished in asked]
    product = functools.reduce(times, constants, 1.0)
    if not all(constant == 0 or 1 / FAR < constant < FAR for constant in constants):
        return product  # numbers of the matrix could vanish while it is made
    maps = [rule.linear for rule, _, _ in rules if rule.linear is not None]
    size = math.prod(shape)
    if sum(not linear.moves for linear in maps) <= 1 or size * nodes[-1].size > DENSE or size * widest > 64 * DENSE:
        return product
    # What vanishes behind a layer is enlarged by those behind it.
    behind = itertools.accumulate(reversed(constants), times, initial=1.0)
    vanished = VANISHED * size * widest * sum(behind)
    return min(product, up(_together(maps, shape, p) + vanished))


def _together(maps: Sequence[LinearMap], shape: Shape, p: float) -> float:
    """Return the norm of linear maps in a row by their matrix; what was rounded while making it is added."""

    def apply(x: torch.Tensor) -> torch.Tensor:
        for linear in maps:
            x = linear.apply(x)
        return x

    def magnitude(x: torch.Tensor) -> torch.Tensor:
        for linear in maps:
            x = linear.magnitude(x)
        return x

    matrix, sizes = (matrix_of(LinearMap(f, f), shape).T for f in (apply, magnitude))
    terms = sum(matrix.shape) + sum(2 * math.prod(shape) + 8 for _ in maps)
    lost = 4 * terms * sys.float_info.epsilon
    norm = math.inf if not bool(torch.isfinite(sizes).all()) else matrix_norm(sizes, p if p != 2 else "fro")
    return up(matrix_norm(matrix, p) + lost * norm) if math.isfinite(norm) else math.inf
