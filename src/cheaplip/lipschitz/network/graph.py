"""A network as a graph of layers: every call is a node, with what is known about it."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from typing import Literal, final

from cheaplip.lipschitz.network.rules import Rule, Shape


@final
@dataclass(frozen=True)
class Node:
    """One value inside a network.

    Args:
        name: of the module or function that gives it.
        kind: its type, for people.
        shape: of one sample.
        sources: which nodes it is made from; none for the input.
        rules: what happens to each of them.
        join: how several become one: their sum, or each in places of its own.
    """

    name: str
    kind: str
    shape: Shape
    sources: tuple[int, ...] = ()
    rules: tuple[Rule, ...] = field(default=(), repr=False)
    join: Literal["sum", "apart"] = "sum"

    @property
    def called(self) -> str:
        """How an error calls it."""
        return f"{self.name!r} ({self.kind})" if self.name else f"the model ({self.kind})"

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    @property
    def is_linear(self) -> bool:
        """Whether it is linear in its sources, up to an offset."""
        return all(rule.linear is not None for rule in self.rules)


@final
@dataclass(frozen=True)
class Graph:
    """All nodes, each after its sources; the first is the input, the last the output."""

    nodes: tuple[Node, ...]

    def users(self) -> list[int]:
        """Return how many nodes use each node."""
        counts = [0] * len(self.nodes)
        for node in self.nodes:
            for source in node.sources:
                counts[source] += 1
        return counts

    def waists(self) -> list[int]:
        """Return the nodes through which all of the network passes, from the input to the output."""
        found, reach = [], 0
        last = self._last_uses()
        for place in range(len(self.nodes)):
            # Nothing before this node is used after it.
            if reach <= place:
                found.append(place)
            reach = max(reach, last[place])
        return found

    def _last_uses(self) -> list[int]:
        last = list(range(len(self.nodes)))
        for place, node in enumerate(self.nodes):
            for source in node.sources:
                last[source] = max(last[source], place)
        return last


def joined(constants: list[float], join: str, p: float) -> float:
    """Return the constant of several maps of one input, summed up or side by side, rounded up."""
    if len(constants) == 1:
        return constants[0]
    if join == "sum" or p == 1:
        return up(sum(constants) * (1 + len(constants) * sys.float_info.epsilon))
    if p == math.inf:
        return max(constants)
    return up(math.hypot(*constants))


def up(value: float) -> float:
    """Round up, by more than the few operations behind a number can have lost; zero and infinity stay."""
    if value == 0 or math.isinf(value):
        return value
    return max(value * (1 + 4 * sys.float_info.epsilon), sys.float_info.min)


def times(value: float, constant: float) -> float:
    """Multiply and round up; a product that leaves the range of floats becomes its end, never zero or NaN."""
    if value == 0 or constant == 0:
        return 0.0
    if constant == 1:
        return value
    if value == 1:
        return constant
    return up(max(value * constant, sys.float_info.min))
