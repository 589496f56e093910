"""Run the calls of a model one by one, and keep all values, and whose memory is changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from torch import Tensor, fx, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from cheaplip.lipschitz.network.naming import name_of
from cheaplip.lipschitz.network.tracing import REMEDY, Root, called_by, called_in, check_finite

# A model is read with so many samples at a time, so that what mixes them is seen.
SAMPLES = 3


def label(module: nn.Module, n: fx.Node) -> tuple[str, str]:
    """Return the name and the type of what is called."""
    if n.op == "call_module":
        target = str(n.target)
        return called_in(target), type_before_parametrizations(module.get_submodule(target)).__name__
    return n.name, f".{n.args[1]}" if n.target is getattr else name_of(n.target)


def called(module: nn.Module, n: fx.Node) -> str:
    """Return how an error calls it."""
    name, kind = label(module, n)
    return called_by(name, kind) if n.op == "call_module" else f"function {name!r} ({kind})"


@final
class Run(fx.Interpreter):
    """The calls of a model on one input.

    Args:
        root: the model.
        calls: that it makes.
        x: the input.
    """

    def __init__(self, root: Root, calls: fx.Graph, x: Tensor) -> None:
        super().__init__(root, garbage_collect_values=False, graph=calls)
        self.extra_traceback = False
        self.calls: list[fx.Node] = list(calls.nodes)
        self.changed: dict[fx.Node, list[fx.Node]] = {}
        self.result: Any = self.run(x)

    def value(self, n: fx.Node) -> Any:
        """Return what a call gave; None for what is no call."""
        return self.env.get(n)

    def layer(self, n: fx.Node) -> Any:
        """Return the module that is called."""
        return self.module.get_submodule(str(n.target))

    def called(self, n: fx.Node) -> str:
        """Return how an error calls it."""
        return called(self.module, n)

    def run_node(self, n: fx.Node) -> Any:
        """Make one call, and remember whose memory it changes."""
        before = [
            (source, self.env[source], _version(self.env[source]))
            for source in n.all_input_nodes
            if isinstance(self.env.get(source), Tensor)
        ]
        try:
            if n.op == "call_module":
                check_finite(self.layer(n))
            result = super().run_node(n)
        except Exception as error:  # whatever a layer raises on a shape that it was not made for
            reason = str(error).strip().partition("\n")[0]
            shapes = ", ".join(str(tuple(value.shape[1:])) for _, value, _ in before)
            raise ValueError(f"{self.called(n)}, given inputs of shape {shapes}: {reason}") from error
        if isinstance(result, Tensor) and type(result) not in (Tensor, nn.Parameter):
            raise TypeError(f"{self.called(n)} gives a {type(result).__name__}, which is no plain tensor: {REMEDY}")
        for source, value, version in before:
            if _version(value) != version:
                self.changed.setdefault(n, []).append(source)
        return result

    def constant(self, argument: Any) -> Any:
        """Return an argument with the values of the calls that are in it."""
        return fx.node.map_arg(argument, lambda a: self.env[a])

    def of_one(self, n: fx.Node, source: fx.Node) -> Callable[[Tensor], Any]:
        """Return a call as a function of one of its values, in float64, all else as it was."""

        def wide(a: fx.Node) -> Any:
            value = self.env[a]
            floating = isinstance(value, Tensor) and value.is_floating_point()
            return value.detach().cpu().double() if floating else value

        def call(x: Tensor) -> Any:
            arguments, named = fx.node.map_arg((n.args, n.kwargs), lambda a: x if a is source else wide(a))
            if n.op == "call_method":
                return getattr(arguments[0], str(n.target))(*arguments[1:], **named)
            return n.target(*arguments, **named)  # type: ignore[operator]

        return call

    def check_memory(self, n: fx.Node, depends: set[fx.Node]) -> None:
        """Raise where a value is changed in place, but by a call that gives it back and has it to itself.

        Args:
            n: the call.
            depends: the calls before it that depend on the input.

        Raises:
            TypeError: naming the call.
        """
        for source in self.changed.get(n, []):
            memory = _memory(self.env[source])
            if source not in depends or _memory(self.value(n)) != memory:
                raise TypeError(f"{self.called(n)} changes {source.name!r} in place and is not understood: {REMEDY}")
            here = self.calls.index(n)
            before = {call for call in self.calls[:here] if memory & _memory(self.value(call))}
            for other in self.calls[here + 1 :]:
                if before.intersection(other.all_input_nodes):
                    raise TypeError(
                        f"{self.called(n)} changes a value in place that {other.name!r} uses afterwards: use a form "
                        "that does not"
                    )


def _version(value: Tensor) -> int | None:
    return None if value.is_inference() else value._version  # which torch itself keeps from being changed


def _memory(value: Any) -> set[int]:
    """Return where the numbers of a tensor lie, or of all tensors in a tuple."""
    if isinstance(value, (tuple, list)):
        return set().union(*map(_memory, value))
    return {value.untyped_storage().data_ptr()} - {0} if isinstance(value, Tensor) else set()
