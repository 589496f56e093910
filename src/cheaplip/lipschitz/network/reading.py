"""Read the layers of a model and how they are joined.

Python's own branches and loops are followed as they run; a branch that looks at numbers cannot be, and raises. What was
read is compared with the model, call by call on other samples, and all calls with its outputs to the last bit.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, final

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

from cheaplip.lipschitz.network import functions, naming
from cheaplip.lipschitz.network.graph import Graph, Node
from cheaplip.lipschitz.network.joins import SIDE_BY_SIDE, SUMS, side_by_side, sum_of
from cheaplip.lipschitz.network.linear import moved, unchanged
from cheaplip.lipschitz.network.registry import RULES
from cheaplip.lipschitz.network.rules import Shape
from cheaplip.lipschitz.network.running import SAMPLES, Run, label
from cheaplip.lipschitz.network.sizes import Sizes
from cheaplip.lipschitz.network.tracing import REMEDY, Root, module_of, trace, untouched
from cheaplip.lipschitz.network.verifying import verify
from cheaplip.modes import Model

_PRODUCTS = {*functions.PRODUCTS, "matmul", "mm", "bmm", "baddbmm", "pow", "einsum", "scaled_dot_product_attention"}
UNKNOWN = "is not understood"
_COMBINED = "combines values of the network and "
_PRODUCT = "combines values of the network by a product or quotient, which is not Lipschitz over all space, and "
_LIKE = {"expand_as", "view_as", "reshape_as"}
_TUPLES = {"chunk", "split", "unbind", "tensor_split"}
NAMES = {*functions.NAMES, *SUMS, *SIDE_BY_SIDE, *_TUPLES}
_KNOWN = naming.table(NAMES)


def read(model: Model, shape: Shape) -> Graph:
    """Return the graph of a model for inputs of a shape.

    Args:
        model: a module, in eval mode.
        shape: of one input.

    Raises:
        TypeError: naming the module or function that is not understood.
        ValueError: naming the one that is understood only otherwise, has weights that are not finite, or mixes samples.
    """
    inner = module_of(model)
    graph, computes = _read(inner, shape)
    if not computes or all(p.dtype == torch.float64 for p in inner.parameters() if p.is_floating_point()):
        return graph
    # The numbers that its forward makes of its parameters are those of float64, as in a search.
    try:
        wide, _ = _read(copy.deepcopy(inner).cpu().double(), shape)
    except (TypeError, ValueError, RuntimeError):
        return graph  # it casts to another dtype itself
    return wide if _form(wide) == _form(graph) else graph


def _read(inner: nn.Module, shape: Shape) -> tuple[Graph, bool]:
    """Return the graph, and whether the forward uses tensors beside its layers."""
    root = Root(inner)
    plain = (torch.inference_mode(False), torch.no_grad(), torch.autocast("cpu", enabled=False))
    with plain[0], plain[1], plain[2], torch.autocast("cuda", enabled=False), untouched(root):
        calls = trace(root)
        x = root.inputs(torch.randn(SAMPLES, *shape, generator=torch.Generator().manual_seed(0)))
        reader = _Reader(Run(root, calls, x))
        graph = reader.graph()
        verify(root, calls, graph, reader.places)
    return graph, any(n.op == "get_attr" for n in calls.nodes)


def _form(graph: Graph) -> list[tuple[object, ...]]:
    return [(node.kind, node.shape, node.sources, node.join) for node in graph.nodes]


@final
class _Reader:
    """Turns the calls that depend on the input into nodes."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.nodes: list[Node] = []
        self.depends: set[fx.Node] = set()
        self.places: dict[fx.Node, int] = {}
        self.shapes: dict[fx.Node, Shape] = {}
        # Tuples of values, such as chunk gives, and the value they are parts of.
        self.tuples: dict[fx.Node, fx.Node] = {}
        self.sizes = Sizes(run.value, {*SUMS, *SIDE_BY_SIDE, *functions.PRODUCTS, *_LIKE})

    def graph(self) -> Graph:
        for n in self.run.calls:
            if n.op == "placeholder":
                self.depends.add(n)
                self._append(n, Node("", "input", tuple(self.run.value(n).shape[1:])))
            elif n.op == "output":
                self._end(n)
            else:
                self._read(n)
        return Graph(tuple(self.nodes))

    def _append(self, n: fx.Node, node: Node) -> None:
        for rule in node.rules:
            offset = None if rule.linear is None else rule.linear.offset
            if offset is not None and not bool(torch.isfinite(offset).all()):
                raise ValueError("it adds numbers that are not finite")
        self.places[n], self.shapes[n] = len(self.nodes), node.shape
        self.nodes.append(node)

    def _end(self, n: fx.Node) -> None:
        """Make the output the last node, also where it is used again."""
        result = n.args[0]
        value = self.run.value(result) if isinstance(result, fx.Node) else result
        if not isinstance(result, fx.Node) or not isinstance(value, Tensor):
            raise TypeError(f"the model must return one floating tensor; got {type(value).__name__}")
        if result not in self.places:
            raise ValueError("the model's output does not depend on its input")
        if self.places[result] != len(self.nodes) - 1:
            shape = self.shapes[result]
            self.nodes.append(Node("", "output", shape, (self.places[result],), (unchanged(None, shape),)))

    def _read(self, n: fx.Node) -> None:
        sources = [source for source in n.all_input_nodes if source in self.depends]
        self.run.check_memory(n, self.depends)
        if not sources or naming.is_about(n):
            self.sizes.follow(n, self.depends)
            return  # a constant, or a shape
        value, called = self.run.value(n), self.run.called(n)
        self.depends.add(n)
        try:
            self._understand(n, sources, value)
        except _UnknownError as error:
            raise TypeError(f"{called} {error}: {REMEDY}") from None
        except Exception as error:  # whatever a function raises on arguments that no rule thought of
            reason = str(error).strip().partition("\n")[0]
            shapes = ", ".join(str(self.shapes[source]) for source in sources if source in self.shapes)
            raise ValueError(f"{called}, given inputs of shape {shapes}: {reason}") from error

    def _understand(self, n: fx.Node, sources: list[fx.Node], value: Any) -> None:
        name = naming.known_name(n, NAMES, _KNOWN) if n.op != "call_module" else ""
        if name is None:
            several = len([a for a in _flat((n.args, n.kwargs)) if a in sources]) > 1
            raise _UnknownError((_PRODUCT if several and naming.name_of(n.target) in _PRODUCTS else "") + UNKNOWN)
        self.sizes.check(n, name)
        if name in _TUPLES and isinstance(value, (tuple, list)):
            self.tuples[n] = sources[0]
            return
        if not isinstance(value, Tensor):
            raise ValueError(f"it must give one tensor; got {type(value).__name__}")
        if not value.is_floating_point():
            raise _UnknownError(f"gives {value.dtype} numbers, which have no Lipschitz constant, and is not understood")
        if value.dim() == 0 or len(value) != SAMPLES:
            raise ValueError("it mixes samples: keep the first dimension as it is")
        shape = tuple(value.shape[1:])
        if n.op == "call_module":
            self._append(n, self._of_module(n, sources[0], shape))
        elif name == "getitem" and sources[0] in self.tuples:
            self._append(n, self._of_part(n, sources[0], shape))
        elif name in SIDE_BY_SIDE:
            self._append(n, side_by_side(self.run, n, self.places, self.shapes, shape))
        elif name in SUMS:
            self._append(n, sum_of(self.run, n, SUMS[name], self.places, self.shapes, shape))
        else:
            self._append(n, self._of_function(n, name, shape))

    def _of_module(self, n: fx.Node, source: fx.Node, shape: Shape) -> Node:
        name, kind = label(self.run.module, n)
        layer = self.run.layer(n)
        if n.args != (source,) or n.kwargs:
            raise ValueError("it needs one input and no other arguments")
        if is_parametrized(layer):
            layer = _widened(layer)
        rule = RULES[type_before_parametrizations(layer)](layer, self.shapes[source])
        return Node(name, kind, shape, (self.places[source],), (rule,))

    def _of_part(self, n: fx.Node, parts: fx.Node, shape: Shape) -> Node:
        source, which = self.tuples[parts], n.args[1]
        if not isinstance(which, int):
            raise ValueError("it must pick one of the parts")
        call = self.run.of_one(parts, source)
        rule = moved(lambda x: call(x)[which], self.shapes[source])
        return Node(n.name, "part", shape, (self.places[source],), (rule,))

    def _of_function(self, n: fx.Node, name: str, shape: Shape) -> Node:
        used = [a for a in _flat((n.args, n.kwargs)) if isinstance(a, fx.Node) and a in self.depends]
        if len(used) > 1:
            raise _UnknownError((_PRODUCT if name in _PRODUCTS else _COMBINED) + UNKNOWN)
        source = used[0]
        behind = (n.args[0] if n.args else n.kwargs.get("input")) is not source
        if behind and name not in ("mul", "imul", "multiply"):
            raise _UnknownError("is not understood with the network's value in second place")
        arguments = [self.run.constant(a) for a in n.args[0 if behind else 1 :] if a is not source]
        named = {key: self.run.constant(a) for key, a in n.kwargs.items() if a is not source}
        call = self.run.of_one(n, source)
        rule = functions.alone(name, arguments, named, call, self.shapes[source])
        if rule is None:
            raise _UnknownError(UNKNOWN)
        return Node(n.name, name, shape, (self.places[source],), (rule,))


def _widened(layer: Any) -> Any:
    """Return a layer whose weights are computed, with those of float64, as in a search; as it is if it takes none."""
    try:
        wide = copy.deepcopy(layer).cpu().double()
        for name in wide.parametrizations:
            getattr(wide, name)
    except (TypeError, ValueError, RuntimeError):
        return layer
    return wide


@final
class _UnknownError(Exception):
    """A function that no rule is known for."""


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, slice):
        value = [value.start, value.stop, value.step]
    if isinstance(value, (tuple, list)):
        for entry in value:
            yield from _flat(entry)
    else:
        yield value
