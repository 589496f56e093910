"""Upper bounds on Lip(f), each proven: the layer product, ECLipsE-Fast, LipSDP-Neuron, and the best of them."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from cheaplip.lipschitz.bound import Bound
from cheaplip.lipschitz.certificate import Certificate, Part
from cheaplip.lipschitz.dense import is_dense, system_of
from cheaplip.lipschitz.network.graph import times
from cheaplip.lipschitz.piecewise import Exact, exact
from cheaplip.lipschitz.problem import Problem, problem_of, shape_of
from cheaplip.lipschitz.product import FAR
from cheaplip.lipschitz.sdp.eclipse import multipliers_by_layer
from cheaplip.lipschitz.sdp.interior import few_threads, solve
from cheaplip.lipschitz.sdp.sectors import Sectors, proven_square
from cheaplip.modes import Model
from cheaplip.norms import Box, Norm, box_tensors, check_norm

METHODS = ("auto", "product", "eclipse", "sdp", "exact")
NAMES = {"product": "layer product", "eclipse": "ECLipsE-Fast", "sdp": "LipSDP-Neuron"}
EXACT = "exact"  # what the method of an exact value begins with
# How many units a part may have, by the method; beyond that it takes too long or too much memory.
LARGEST = {"eclipse": 1536, "sdp": 1100, "exact": 200}
# How far from its least value, relatively, LipSDP may stop.
GAP = 1e-4


def upper(
    model: Model,
    x: Tensor,
    *,
    p: Norm = 2,
    method: str = "auto",
    domain: str = "all",
    box: Box = (0.0, 1.0),
    seconds: float = 30.0,
) -> Bound:
    """Bound the Lipschitz constant from above, with a proof.

    The layers are read off the model. For p = 2 the parts that are made of linear layers and of units (activations)
    are bounded by LipSDP with one multiplier a unit; all else, and other norms, by the product of the layers'
    constants. The bound is for the network in exact arithmetic with the weights as they are; it is verified in float64
    and rounded outward.

    Args:
        model: a module in eval mode, made of layers that are understood (``docs/bounds_layers.md`` lists them) or
            registered by :func:`register`; its forward may call them in any order and add, concatenate and reshape
            their outputs.
        x: inputs ``(n, *input)``; only their shape counts.
        p: the norm of inputs and outputs: 1, 2 or inf.
        method: ``"product"`` of the layers' constants; ``"eclipse"`` for ECLipsE-Fast; ``"sdp"`` for LipSDP-Neuron to a
            relative gap of 1e-4; ``"auto"`` for the best of these that ``seconds`` allow; ``"exact"`` searches the
            linear regions of a small piecewise-linear network, and has no certificate.
        domain: ``"all"`` space, or ``"box"``: slopes are then those that the units have while inputs stay in the box,
            and the bound holds for pairs of inputs in it.
        box: ``(low, high)``, numbers or one per channel; used with ``domain="box"``.
        seconds: when ``"auto"`` and ``"sdp"`` stop to improve the bound; what is reached by then is proven as well.

    Returns:
        The bound, proven, with its certificate.

    Raises:
        TypeError: naming the module or function that is not understood.
        ValueError: naming the module that does not take its input, whose weights are not finite, or that is understood
            only otherwise (BatchNorm in training mode); for another norm, method or domain.

    Reference: Bungert et al. 2021, equation 4; Fazlyab et al. 2019; Xu and Sivaranjani 2024.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> tight, loose = upper(net, torch.zeros(1, 4)), upper(net, torch.zeros(1, 4), method="product")
        >>> tight.method, loose.method, tight.value < loose.value
        ('LipSDP-Neuron', 'layer product', True)
    """
    return upper_at(model, x, p=p, method=method, domain=domain, box=box, seconds=seconds)[0]


def upper_at(
    model: Model, x: Tensor, *, p: Norm, method: str, domain: str, box: Box, seconds: float
) -> tuple[Bound, Tensor | None]:
    """Return what :func:`upper` does, and by the exact method an input ``(*input)`` in the steepest region found."""
    p = checked(p, method, domain)
    if not (isinstance(seconds, (int, float)) and seconds >= 0):
        raise ValueError(f"seconds must be a number of at least 0; got {seconds!r}")
    within = box if domain == "box" else None
    problem = problem_of(model, shape_of(x), p, within)
    if method == "exact":
        found = exactly(problem, within, seconds)
        how = f"{EXACT if found.complete else 'branch and bound, not finished'}, {found.cells} linear region"
        how += "" if found.cells == 1 else "s"
        return Bound(found.upper, how, proven=True, domain=domain), found.point.view(problem.shape)
    with torch.no_grad():
        bound = bounded(problem, method, time.monotonic() + seconds)
    certificate = Certificate(bound[0], p, bound[1], within, problem.shape, bound[2])
    return Bound(bound[0], bound[1], proven=True, domain=domain, certificate=certificate), None


def exactly(problem: Problem, box: Box | None, seconds: float) -> Exact:
    """Search the linear regions of a network.

    Raises:
        ValueError: if it is no piecewise-linear network whose matrices can be written down without rounding.
    """
    graph, last = problem.graph, len(problem.graph.nodes) - 1
    if not is_dense(graph, 0, last, LARGEST["exact"]):
        raise ValueError(
            f"an exact value is for networks of linear layers and at most {LARGEST['exact']} piecewise-linear units; "
            "use method='auto'"
        )
    system = system_of(graph, 0, last, problem.slopes)
    if system.terms:
        raise ValueError(
            "an exact value is for networks whose linear layers each stand alone: where two follow each other, such "
            "as a BatchNorm, their product rounds; use method='auto'"
        )
    sides = None
    if box is not None:
        like = torch.zeros(1, *problem.shape, dtype=torch.float64)
        low, high = (side.expand(like.shape[1:]).flatten() for side in box_tensors(box, like))
        sides = (low, high)
    return exact(system, p=problem.product.p, box=sides, seconds=seconds)


def checked(p: Norm, method: str, domain: str) -> float:
    """Return the norm, and raise for arguments that do not fit."""
    norm = check_norm(p)
    if callable(norm):
        raise ValueError("p must be 1, 2 or inf for an upper bound; got a callable")
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    if method in ("eclipse", "sdp") and norm != 2:
        raise ValueError(f"method {method!r} is for p = 2; got p = {norm:g}: use 'product'")
    if domain not in ("all", "box"):
        raise ValueError(f"domain must be 'all' or 'box'; got {domain!r}")
    return norm


def bounded(
    problem: Problem, method: str, deadline: float, end: int | None = None
) -> tuple[float, str, tuple[Part, ...]]:
    """Return the bound, the name of its method, and its parts.

    Args:
        problem: the network that was read.
        method: one of ``METHODS``.
        deadline: by ``time.monotonic()``.
        end: the last node, where a part of the network ends; None for the output.

    Raises:
        ValueError: if no part ends there.
    """
    last = len(problem.graph.nodes) - 1 if end is None else end
    todo = [part for part in problem.parts(LARGEST["eclipse"]) if part[1] <= last]
    if last != (todo[-1][1] if todo else 0):
        ends = ", ".join(str(stop) for _, stop, _ in problem.parts(LARGEST["eclipse"]))
        raise ValueError(f"end must be the last node of a part of the network, one of {ends}; got {end}")
    whole = problem.product.between(0, last)
    simple = (whole, NAMES["product"], (Part(0, last, whole),))
    if method == "product" or problem.product.p != 2 or whole == 0:
        return simple
    kind = "eclipse" if method == "eclipse" else "sdp"
    parts: list[Part] = []
    used: list[str] = []
    for number, (start, stop, tight) in enumerate(todo):
        value = problem.product.between(start, stop)
        part = Part(start, stop, value)
        if tight:
            share = (deadline - time.monotonic()) / sum(entry[2] for entry in todo[number:])
            better, how = _tight(problem, start, stop, kind, time.monotonic() + max(share, 0.0))
            if better is not None and better.value < value:
                part = better
                used.append(how)
        parts.append(part)
    total = 1.0
    for part in parts:
        total = times(total, part.value)
    if not used or total >= whole:
        return simple
    names = [NAMES[name] for name in ("sdp", "eclipse") if name in used]
    mixed = len(parts) > len(used) and any(part.multipliers is None and part.value != 1 for part in parts)
    return total, " and ".join([*names, *([NAMES["product"]] if mixed else [])]), tuple(parts)


def _tight(problem: Problem, start: int, end: int, kind: str, deadline: float) -> tuple[Part | None, str]:
    sectors = problem.sectors(start, end)
    if not in_range(sectors):
        return None, kind
    with few_threads(sectors.inputs + len(sectors)):
        first = multipliers_by_layer(sectors)
        if first is None:
            return None, kind
        best = proven_part(sectors, start, end, first)
        if kind == "sdp" and len(sectors) <= LARGEST["sdp"] and time.monotonic() < deadline:
            part = proven_part(sectors, start, end, solve(sectors, first, gap=GAP, deadline=deadline).multipliers)
            # Within the gap the start may be the better one.
            if part is not None and (best is None or part.value < best.value * (1 + GAP)):
                return (part if best is None or part.value < best.value else best), "sdp"
    return best, "eclipse"


def in_range(sectors: Sectors) -> bool:
    """Tell whether no squares of the entries could vanish, unseen, or overflow."""
    sizes = torch.cat(sectors.sizes)
    return bool(((sizes == 0) | ((sizes > 1 / FAR) & (sizes < FAR))).all())


def proven_part(sectors: Sectors, start: int, end: int, multipliers: Tensor) -> Part | None:
    """Return a proven part for multipliers; None where rounding is in the way."""
    square = proven_square(sectors, multipliers)
    if not math.isfinite(square):
        return None
    return Part(start, end, times(math.sqrt(square), 1 + 1e-15), multipliers)
