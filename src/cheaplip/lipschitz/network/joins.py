"""Calls that make one value of several: sums, and values side by side."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from cheaplip.lipschitz.network.functions import constant_of
from cheaplip.lipschitz.network.graph import Node
from cheaplip.lipschitz.network.linear import diagonal, moved, outward, unchanged
from cheaplip.lipschitz.network.naming import name_of
from cheaplip.lipschitz.network.rules import LinearMap, Rule, Shape
from cheaplip.lipschitz.network.running import SAMPLES, Run

SUMS = {"add": 1.0, "iadd": 1.0, "sub": -1.0, "isub": -1.0, "subtract": -1.0}
SIDE_BY_SIDE = {"cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack"}


def sum_of(
    run: Run, n: fx.Node, sign: float, places: dict[fx.Node, int], shapes: dict[fx.Node, Shape], shape: Shape
) -> Node:
    """Return the node of a sum or difference of values and constants.

    Args:
        run: the calls and their values.
        n: the call.
        sign: of the second term.
        places: where values of the network stand in its graph.
        shapes: of one sample of each.
        shape: of one sample of the sum.
    """
    weights = (1.0, sign * float(run.constant(n.kwargs.get("alpha", 1))))
    named = tuple(n.kwargs[key] for key in ("input", "other") if key in n.kwargs)
    terms = (*named, *n.args) if "input" in n.kwargs else (*n.args, *named)
    sources, rules, offset = [], [], torch.zeros(shape, dtype=torch.float64)
    for term, weight in zip(terms, weights, strict=True):
        if isinstance(term, fx.Node) and term in places:
            sources.append(places[term])
            rules.append(_weighed(shapes[term], shape, weight))
            continue
        value = run.constant(term)
        if not isinstance(value, Tensor):
            value = torch.tensor(float(value), dtype=torch.float64)
        value = value.detach().cpu().double()
        offset = offset + weight * constant_of(value.expand(SAMPLES, *shape))
    rules[0] = _shifted(rules[0], offset)
    return Node(n.name, name_of(n.target), shape, tuple(sources), tuple(rules))


def side_by_side(run: Run, n: fx.Node, places: dict[fx.Node, int], shapes: dict[fx.Node, Shape], shape: Shape) -> Node:
    """Return the node of values and constants that are put side by side; the arguments are as of :func:`sum_of`."""
    parts = n.args[0] if n.args else n.kwargs.get("tensors")
    if not isinstance(parts, (tuple, list)):
        raise ValueError("its parts must be a list")
    others = run.constant(n.args[1:])
    named = {key: run.constant(value) for key, value in n.kwargs.items() if key != "tensors"}

    def joined(values: list[Tensor]) -> Tensor:
        result: Tensor = n.target(values, *others, **named)  # type: ignore[operator]
        return result

    own = [run.value(part).detach().cpu().double() for part in parts]
    zeros = [torch.zeros_like(value) for value in own]
    mine = [isinstance(part, fx.Node) and part in places for part in parts]
    offset = constant_of(joined([zero if m else value for m, zero, value in zip(mine, zeros, own, strict=True)]))
    sources, rules = [], []
    for k, part in enumerate(parts):
        if isinstance(part, fx.Node) and part in places:

            def alone(x: Tensor, k: int = k) -> Tensor:
                return joined([x if j == k else zero for j, zero in enumerate(zeros)])

            sources.append(places[part])
            rules.append(moved(alone, shapes[part]))
    rules[0] = _shifted(rules[0], offset)
    return Node(n.name, name_of(n.target), shape, tuple(sources), tuple(rules), join="apart")


def _weighed(shape: Shape, wanted: Shape, weight: float) -> Rule:
    """Return the rule of one term of a sum, spread to the sum's shape."""
    if shape == wanted:
        if weight == 1.0:
            return unchanged(None, shape)
        return diagonal(torch.full(shape, weight, dtype=torch.float64), shape)
    if len(shape) != len(wanted):
        raise ValueError(f"it adds samples of shape {shape} to such of shape {wanted}, which mixes samples")
    spread = moved(lambda x: x.expand(len(x), *wanted), shape)
    if weight == 1.0 or spread.linear is None:
        return spread
    inner, size = spread.linear, abs(weight)
    return Rule(
        lambda p: outward(spread.constant(p) * size, 1),
        linear=LinearMap(lambda x: weight * inner.apply(x), lambda x: size * inner.magnitude(x), exact=False),
    )


def _shifted(rule: Rule, offset: Tensor) -> Rule:
    if rule.linear is None or not bool(offset.any()):
        return rule
    before = rule.linear
    added = offset if before.offset is None else before.offset + offset
    return Rule(rule.constant, linear=LinearMap(before.apply, before.magnitude, added, before.exact, before.moves))
