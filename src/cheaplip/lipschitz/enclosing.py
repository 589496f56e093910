"""The interval between a lower and an upper bound, and certificates that are checked again."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cheaplip.lipschitz.bound import Bound, Interval
from cheaplip.lipschitz.certificate import Certificate, Part
from cheaplip.lipschitz.lower import lower, lower_at
from cheaplip.lipschitz.network.graph import times
from cheaplip.lipschitz.problem import Problem, problem_of
from cheaplip.lipschitz.sdp.sectors import is_proven
from cheaplip.lipschitz.upper import upper_at
from cheaplip.modes import Model
from cheaplip.norms import Box, Norm

# How far a measured quotient may lie above the proven bound by rounding alone.
CROSSED = 1e-6


def bounds(
    model: Model,
    x: Tensor,
    *,
    p: Norm = 2,
    method: str = "auto",
    domain: str = "all",
    box: Box = (0.0, 1.0),
    seconds: float = 30.0,
    seed: int = 0,
) -> Interval:
    """Enclose the Lipschitz constant between a witnessed lower and a proven upper bound.

    Args:
        model: as in :func:`upper`.
        x: data to start the search for the lower bound from, ``(n, *input)``, floating, finite.
        p: the norm of inputs and outputs: 1, 2 or inf.
        method: of the upper bound, as in :func:`upper`; by ``"exact"`` the pair is looked for in the steepest linear
            region too, and there is no certificate.
        domain: ``"all"`` space, or ``"box"``, for pairs of inputs in it.
        box: ``(low, high)``, numbers or one per channel; used with ``domain="box"``.
        seconds: for the upper bound.
        seed: of the search.

    Raises:
        TypeError: naming the module that is not understood.
        ValueError: as in :func:`upper`, or if ``x`` is not finite, or if rounding inside the model puts the one above
            the other.

    Reference: Bungert et al. 2021, equations 3 to 5.

    Example:
        >>> net = torch.nn.Linear(2, 2, bias=False)
        >>> net.weight.data = 3 * torch.eye(2)
        >>> interval = bounds(net, torch.rand(10, 2))
        >>> round(interval.lower, 3), round(interval.upper, 3)
        (3.0, 3.0)
    """
    above, point = upper_at(model, x, p=p, method=method, domain=domain, box=box, seconds=seconds)
    within = box if domain == "box" else None
    below = lower(model, x, p_in=p, p_out=p, box=within, seed=seed)
    if point is not None:
        below = max(below, lower_at(model, x, point, p=p, box=within), key=float)
    return enclosed(below, above)


def enclosed(below: Bound, above: Bound) -> Interval:
    """Join a lower and an upper bound of the same constant.

    Args:
        below: the lower bound, with its pair.
        above: the upper bound.

    Raises:
        ValueError: if they cross by more than rounding.
    """
    if below.witness is None:
        raise ValueError("the search for a lower bound found no pair")
    if below.value > above.value * (1 + CROSSED):
        raise ValueError(
            f"the pair that was found has the quotient {below.value:.6g}, above the proven {above.value:.6g}: the "
            "model loses its digits inside, even in float64; scale its weights, or use upper(...) alone"
        )
    value = min(below.value, above.value)  # a linear map attains its bound, up to rounding
    return Interval(value, above.value, below.witness, f"{below.method}; {above.method}", above.certificate)


def check(certificate: Certificate, model: Model) -> Bound:
    """Prove an upper bound again from its certificate: layers, slopes and matrices are derived from the model anew.

    Args:
        certificate: by :func:`upper` or :func:`load`.
        model: the network that it is for, in eval mode.

    Returns:
        The bound, now proven for this model.

    Raises:
        TypeError: naming the module that is not understood.
        ValueError: if the certificate is of another network, or proves less than it says.

    Example:
        >>> net = torch.nn.Linear(3, 2)
        >>> from cheaplip.lipschitz import upper
        >>> certificate = upper(net, torch.zeros(1, 3)).certificate
        >>> check(certificate, net).value == certificate.value
        True
        >>> _ = net.weight.data.mul_(2)
        >>> check(certificate, net)
        Traceback (most recent call last):
        ValueError: the certificate does not prove ... of this model: ...
    """
    if not isinstance(certificate, Certificate):
        raise TypeError(f"certificate must be a Certificate; got {type(certificate).__name__}: read a file by load")
    problem = problem_of(model, certificate.shape, certificate.p, certificate.box)
    last = len(problem.graph.nodes) - 1
    places = [0, *(part.end for part in certificate.parts)]
    waists = set(problem.graph.waists())
    pairs = zip(certificate.parts, places, strict=False)
    joined = all(part.start == before <= part.end and part.value >= 0 for part, before in pairs)
    if not joined or places[-1] != last or any(place not in waists for place in places):
        raise ValueError("the certificate is of another model: its parts do not follow the layers of this one")
    total = 1.0
    with torch.no_grad():
        for part in certificate.parts:
            _check_part(problem, part)
            total = times(total, part.value)
    if not total <= certificate.value:
        raise ValueError(f"the certificate claims {certificate.value:.10g}, but its parts prove {total:.10g} only")
    domain = "all" if certificate.box is None else "box"
    return Bound(certificate.value, certificate.method, proven=True, domain=domain, certificate=certificate)


def _check_part(problem: Problem, part: Part) -> None:
    nodes = problem.graph.nodes
    where = f"of the part from {nodes[part.start].name or 'the input'!r} to {nodes[part.end].name or 'the output'!r}"
    if part.multipliers is None:
        value = problem.product.between(part.start, part.end)
        if not value <= part.value:
            raise ValueError(
                f"the certificate does not prove {part.value:.10g} of this model: the layer product {where} "
                f"is {value:.10g}"
            )
        return
    if problem.product.p != 2:
        raise ValueError("the certificate has multipliers, which are for p = 2 alone")
    sectors = problem.sectors(part.start, part.end)
    if len(part.multipliers) != len(sectors):
        raise ValueError(
            f"the certificate is of another model: it has {len(part.multipliers)} multipliers {where}, which has "
            f"{len(sectors)} units that can change"
        )
    # Rounded down, so that the square is one that the value covers.
    square = math.nextafter(part.value, 0.0) ** 2
    if not is_proven(sectors, math.nextafter(square, 0.0), part.multipliers):
        raise ValueError(
            f"the certificate does not prove {part.value:.10g} of this model: its matrix {where} is not positive "
            "definite"
        )
