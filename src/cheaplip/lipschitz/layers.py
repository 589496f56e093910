"""The layers of a network one by one: the constant of each, and where their product loses."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from cheaplip.lipschitz.bound import Bound
from cheaplip.lipschitz.network import Graph
from cheaplip.lipschitz.network.graph import times
from cheaplip.lipschitz.problem import Problem, problem_of, shape_of
from cheaplip.lipschitz.product import Product
from cheaplip.lipschitz.upper import bounded, checked
from cheaplip.modes import Model
from cheaplip.norms import Box, Norm

# With more units than this a beginning is not bounded, or not by LipSDP: it is for a table.
UNITS = {"eclipse": 640, "sdp": 256}


@final
@dataclass(frozen=True)
class Layer:
    """One layer of a network.

    Args:
        name: of the module, or of the function that is called.
        kind: its type.
        shape: of its output, one sample.
        constant: its own Lipschitz constant; of several inputs, for the one that it stretches most.
        product: of the layers' constants from the input to here; None inside branches, where the network is in several
            places at once.
        proven: a bound from the input to here, that of the whole network at its end; None as before, and for norms
            that have none but the product.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    constant: float
    product: float | None = None
    proven: float | None = None

    @property
    def lost(self) -> float | None:
        """How many times larger than proven the product is up to here; 1 or more."""
        return self.product / self.proven if self.product is not None and self.proven else None


def layers(
    model: Model,
    x: Tensor,
    *,
    p: Norm = 2,
    method: str = "auto",
    domain: str = "all",
    box: Box = (0.0, 1.0),
    whole: Bound | None = None,
    seconds: float = 10.0,
) -> list[Layer]:
    """List the layers of a network, and what is lost where by multiplying their constants.

    Args:
        model: as in :func:`cheaplip.lipschitz.upper`.
        x: inputs ``(n, *input)``; only their shape counts.
        p: the norm of inputs and outputs: 1, 2 or inf.
        method: of the bounds, as in :func:`cheaplip.lipschitz.upper`.
        domain: ``"all"`` space, or ``"box"`` for inputs in a box.
        box: ``(low, high)``, numbers or one per channel; used with ``domain="box"``.
        whole: an upper bound of the whole network in this norm and domain, where one is known.
        seconds: for the bounds of the network's beginnings, from the input to each layer; at least 0. Where it runs
            out, or a beginning is large, the last one is continued by a product.

    Returns:
        The layers in the order of the calls, the input left out.

    Raises:
        TypeError: as :func:`cheaplip.lipschitz.upper`.
        ValueError: likewise.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.ReLU(), torch.nn.Linear(2, 1))
        >>> net[0].weight.data = torch.diag(torch.tensor([1.0, 4.0]))
        >>> net[2].weight.data = torch.tensor([[3.0, 0.0]])
        >>> [(layer.kind, round(layer.constant), round(layer.lost)) for layer in layers(net, torch.zeros(1, 2))]
        [('Linear', 4, 1), ('ReLU', 1, 1), ('Linear', 3, 4)]
    """
    norm = checked(p, method, domain)
    problem = problem_of(model, shape_of(x), norm, box if domain == "box" else None)
    nodes, waists = problem.graph.nodes, set(problem.graph.waists())
    deadline, before, proven = time.monotonic() + seconds, 0, 1.0
    rows: list[Layer] = []
    with torch.no_grad():
        for place, node in enumerate(nodes[1:], 1):
            own = max(problem.product.own(place, which) for which in range(len(node.sources)))
            product = None
            if place in waists:
                product = problem.product.between(0, place)
                proven = min(product, times(proven, problem.product.between(before, place)))
                if place == len(nodes) - 1 and whole is not None:
                    proven = min(product, whole.value)
                elif norm == 2 and method != "product" and place not in problem.slopes and own != 1:
                    proven = min(proven, _proven(problem, place, method, deadline))
                before = place
            told = proven if norm == 2 and method != "product" and product is not None else None
            rows.append(Layer(node.name or "model", node.kind, node.shape, own, product, told))
    return rows


def _proven(problem: Problem, end: int, method: str, deadline: float) -> float:
    """Bound the network from its input to a waist; inf where that would take too long."""
    units = sum(problem.graph.nodes[place].size for place in problem.slopes if place < end)
    now = time.monotonic()
    if not units or units > UNITS["eclipse"] or now >= deadline:
        return math.inf
    graph, product = Graph(problem.graph.nodes[: end + 1]), problem.product
    # What is known of the layers holds for this network too.
    known = Product(graph, product.p, product.tops, product.known)
    if units > UNITS["sdp"]:
        method = "eclipse"
    return bounded(Problem(graph, problem.shape, problem.slopes, known), method, deadline)[0]
