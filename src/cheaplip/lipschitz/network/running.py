"""Run the calls of a model one by one, and keep all values, and whose memory is changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from torch import Tensor, fx
from torch.nn.utils.parametrize import type_before_parametrizations

from cheaplip.lipschitz.network.functions import name_of
from cheaplip.lipschitz.network.tracing import REMEDY, called_by, called_in, check_finite


@final
class Run(fx.Interpreter):
    """The calls of a model on one input.

    Args:
        traced: the calls.
        x: the input.
    """

    def __init__(self, traced: fx.GraphModule, x: Tensor) -> None:
        super().__init__(traced, garbage_collect_values=False)
        self.calls: list[fx.Node] = list(traced.graph.nodes)
        self.changed: dict[fx.Node, list[fx.Node]] = {}
        self.result: Any = self.run(x)

    def value(self, n: fx.Node) -> Any:
        """Return what a call gave; None for what is no call."""
        return self.env.get(n)

    def layer(self, n: fx.Node) -> Any:
        """Return the module that is called."""
        return self.module.get_submodule(str(n.target))

    def label(self, n: fx.Node) -> tuple[str, str]:
        """Return the name and the type of what is called."""
        if n.op == "call_module":
            return called_in(str(n.target)), type_before_parametrizations(self.layer(n)).__name__
        return n.name, name_of(n.target)

    def called(self, n: fx.Node) -> str:
        """Return how an error calls it."""
        name, kind = self.label(n)
        return called_by(name, kind) if n.op == "call_module" else f"function {name!r} ({kind})"

    def run_node(self, n: fx.Node) -> Any:
        """Make one call, and remember whose memory it changes."""
        before = [
            (source, self.env[source], self.env[source]._version)
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
        for source, value, version in before:
            if value._version != version:
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
            before = {call for call in self.calls[:here] if _memory(self.value(call)) == memory}
            for other in self.calls[here + 1 :]:
                if before.intersection(other.all_input_nodes):
                    raise TypeError(
                        f"{self.called(n)} changes a value in place that {other.name!r} uses afterwards: use a form "
                        "that does not"
                    )


def _memory(value: Any) -> int | None:
    return value.untyped_storage().data_ptr() if isinstance(value, Tensor) else None
