"""Compare what was read with what the model does: call by call, on other samples than it was read with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cheaplip.lipschitz.network.graph import Graph, Node
from cheaplip.lipschitz.network.rules import Rule
from cheaplip.lipschitz.network.running import SAMPLES, called
from cheaplip.lipschitz.network.tracing import REMEDY, Root

# Of so many numbers in all, but at least 2 samples and at most 32; never as many as it was read with.
NUMBERS, LEAST, MOST = 2**14, 2, 32
EXPONENTS, NEAR = (0, 1, -1, 2, -2), 1e-2
DIFFERENT = "does something else with other numbers, or more samples, than it should: it is not understood"


def verify(root: Root, calls: fx.Graph, graph: Graph, places: Mapping[fx.Node, int]) -> None:
    """Raise unless every call does what its rule says, at random points, and the model does what its calls do.

    This is no proof of a rule, and none is needed where a function is what it is called; it is there for functions
    that are not.

    Raises:
        ValueError: naming the call, or if the model does not give what its calls give, to the last bit.
    """
    shape = graph.nodes[0].shape
    count = min(MOST, max(LEAST, NUMBERS // math.prod(shape)))
    count += count == SAMPLES
    sizes = torch.tensor([10.0 ** EXPONENTS[k // 2 % len(EXPONENTS)] for k in range(count)]).view(-1, *[1] * len(shape))
    drawn = sizes * torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))
    drawn[1::2] = drawn[0 : count - 1 : 2] + NEAR * drawn[1::2]  # every second one is near the one before
    x = root.inputs(drawn)
    result = _Compared(root, calls, x.clone(), graph, places).result
    try:
        expected = root(x.clone())  # not below, where torch may take other ways to the same numbers
        with Operations(x) as own:
            root(own.seen)
    except Exception as error:  # whatever a forward raises that remembers what it was traced with
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"the model's forward does not work a second time: {reason}") from error
    with Operations(x) as read:
        fx.Interpreter(root, graph=calls).run(read.seen)
    if own.names != read.names:
        odd = next((name for name in own.names if name not in read.names), "others")
        raise ValueError(
            f"the model's forward does not do what was read of it ({odd}): it looks at numbers, or asks whether it is "
            f"traced; an upper bound needs one that does not: {REMEDY}"
        )
    if not isinstance(expected, Tensor) or not torch.equal(result.nan_to_num(), expected.nan_to_num()):
        raise ValueError(
            "the model's outputs are not those of the layers that were read: it is random, or does something that "
            "depends on more than its input"
        )


@final
class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within it, the operations are noted that are done to what depends on a tensor.

    Args:
        x: of which ``seen`` is a copy, to be used inside.

    Example:
        >>> with Operations(torch.ones(2)) as noted:
        ...     _ = torch.relu(noted.seen) + torch.ones(2).exp()
        >>> noted.names
        ['aten.relu.default', 'aten.add.Tensor']
    """

    def __init__(self, x: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen = x.clone()
        self.names: list[str] = []
        self._held = [self.seen]  # lest their memory be given to others
        self._memory = {_place(self.seen)}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do it, and note it if it is done to what depends on the tensor."""
        result = func(*args, **(kwargs or {}))
        if any(isinstance(t, Tensor) and _place(t) in self._memory for t in tree_leaves((args, kwargs))):
            # torch.fx takes `x += y` for `x = x + y`.
            self.names.append(str(func).replace("_.", "."))
            made = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
            self._held += made
            self._memory |= set(map(_place, made))
        return result


def _place(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata) if tensor.layout is torch.strided else id(tensor)


@final
class _Compared(fx.Interpreter):
    """Makes all calls, and compares each with its rule."""

    def __init__(self, root: nn.Module, calls: fx.Graph, x: Tensor, graph: Graph, places: Mapping[fx.Node, int]):
        super().__init__(root, garbage_collect_values=False, graph=calls)
        self.extra_traceback = False
        self.nodes, self.places, self.count = graph.nodes, places, len(x)
        self.calls = {place: n for n, place in places.items()}
        self.result: Any = self.run(x)

    def run_node(self, n: fx.Node) -> Any:
        """Make one call, and compare."""
        node = self.nodes[self.places[n]] if n in self.places else None
        sources = [self.env[self.calls[source]] for source in node.sources] if node else []
        given = [value.detach().to("cpu", torch.float64, copy=True) for value in sources]  # it may change in place
        eps = max((_eps(value) for value in sources), default=0.0)
        try:
            value = super().run_node(n)
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(f"the model works for some numbers of samples only: {reason}") from error
        try:
            wrong_there = node is not None and node.sources and not self._agrees(node, given, value, eps)
        except RuntimeError:  # a rule that cannot do in float64 what the call does, such as a look at the bits
            wrong_there = True
        if node is not None and wrong_there:
            registered = all(rule == Rule(rule.constant) for rule in node.rules)
            wrong = "is steeper than the constant that is registered for it" if registered else DIFFERENT
            raise ValueError(f"{called(self.module, n)} {wrong}")
        return value

    def _agrees(self, node: Node, given: list[Tensor], value: Any, eps: float) -> bool:
        if not isinstance(value, Tensor) or value.shape != (self.count, *node.shape):
            return False
        eps, tiny, largest = max(eps, _eps(value)), *_range(value.dtype)
        top = max((float(x.abs().max()) for x in given if x.numel()), default=0.0)
        if not top < 1e-3 * math.sqrt(largest):
            return True  # what overflows says nothing
        there = value.detach().cpu().double()
        parts = [_by_rule(rule, x, there) for rule, x in zip(node.rules, given, strict=True)]
        expected, size = (torch.stack(terms).sum(0) for terms in zip(*parts, strict=True))
        terms = max(math.prod(x.shape[1:]) for x in given)
        room = eps * (64 + 4 * math.sqrt(terms)) * size + tiny * (1 + terms) * (1 + top)
        known = torch.isfinite(expected) & (size < 1e-3 * largest)
        if not bool((((there - expected).abs() <= room) | ~known).all()):
            return False
        return node.is_linear or not bool(known.all()) or _is_slow(node.rules[0], given[0], there, room)


def _eps(value: Tensor) -> float:
    own = torch.finfo(value.dtype).eps
    return own if value.device.type == "cpu" else max(own, 1e-3)  # an accelerator may round more


def _range(dtype: torch.dtype) -> tuple[float, float]:
    return torch.finfo(dtype).tiny, torch.finfo(dtype).max


def _by_rule(rule: Rule, x: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a layer gives by its rule, and the size of what was rounded on the way."""
    if rule.linear is not None:
        value, size = rule.linear.apply(x), rule.linear.magnitude(x.abs())
        if rule.linear.offset is not None:
            value, size = value + rule.linear.offset, size + rule.linear.offset_size()
        return value, size
    if rule.elementwise is not None:
        value = rule.elementwise.function(x)
        return value, value.abs() + rule.constant(math.inf) * x.abs()
    value = there if rule.function is None else rule.function(x)  # a registered constant says nothing of the values
    largest = x.abs().reshape(len(x), -1).amax(1) if x.numel() else x.new_zeros(len(x))
    return value, value.abs() + _constant(rule, math.inf, 1.0) * largest.view(-1, *[1] * (value.dim() - 1))


def _constant(rule: Rule, p: float, otherwise: float) -> float:
    try:
        return rule.constant(p)
    except Exception:  # a user's constant may know some norms only
        return otherwise


def _is_slow(rule: Rule, x: Tensor, there: Tensor, room: Tensor) -> bool:
    """Tell whether the samples, one after the other, are as near to each other behind a layer as its constants say."""
    if not x.numel() or not there.numel():
        return True
    before, after = ((part[1:] - part[:-1]).reshape(len(part) - 1, -1) for part in (x, there))
    for p in (1.0, 2.0, math.inf):
        near, far = (torch.linalg.vector_norm(part, p, dim=1) for part in (before, after))
        lost = torch.linalg.vector_norm(room.reshape(len(room), -1), p, dim=1)
        if bool((far > _constant(rule, p, math.inf) * near + lost[1:] + lost[:-1]).any()):
            return False
    return True
