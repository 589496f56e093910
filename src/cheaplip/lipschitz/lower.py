"""Lower bounds on Lip(f): search hard for a steep pair, and show it."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from cheaplip.lipschitz.bound import Bound
from cheaplip.modes import Model, frozen, modules_of, unwrap
from cheaplip.norms import Box, Norm, check_norm, per_sample, vector_norm
from cheaplip.pairs import Pairs, Search, Start
from cheaplip.pairs.steepness import apply

# Far above what float64 loses in a forward of a network, far below what anyone reads off a bound: of the quotient, and,
# in last places of the outputs, of what they lose beside a large offset.
ROUNDING, PLACES = 1e-9, 64


def lower(
    model: Model,
    x: Tensor,
    *,
    p_in: Norm = 2,
    p_out: Norm = 2,
    box: Box | None = None,
    pairs: int = 64,
    steps: int = 100,
    seed: int = 0,
    modules: Iterable[nn.Module] | None = None,
) -> Bound:
    """Search for the steepest pair of inputs: a lower bound on the Lipschitz constant, with its witness.

    Algorithm 1 is run long, with the paper's step and with steps of given length, from data points and their noisy
    copies; in Euclidean norms a power iteration of the Jacobian along close pairs runs beside them. The steepest pair
    ever seen is measured once more, of a module in float64.

    Args:
        model: a module or any callable of its input; it is evaluated as in eval mode.
        x: data to start from, ``(n, *input)``, floating, finite.
        p_in: the norm of inputs: 1, 2, inf or a callable ``(n, *shape) -> (n,)``.
        p_out: the norm of outputs, likewise.
        box: ``(low, high)`` to stay in, numbers or one per channel; None searches all space.
        pairs: how many pairs climb at a time.
        steps: how many moves they make; each costs one forward and one input backward of ``2 * pairs`` points,
            for each of the two or three searches.
        seed: the seed of the starts.
        modules: the modules that a callable uses, if they cannot be read off what it refers to.

    Returns:
        The bound; ``witness`` is the pair. It is ``proven`` where float64 measured it, less a margin for rounding: 1e-9
        of it, and 64 last places of the outputs. Of what cannot be widened, such as a callable, it is an estimate, some
        1e-5 off for float32 inputs.

    Raises:
        ValueError: if ``x`` does not fit the model, or all outputs are NaN or infinite.
        TypeError: if ``x`` or an output is no floating tensor.

    Reference: Bungert et al. 2021, equation 5 and Algorithm 1.

    Example:
        >>> net = nn.Linear(2, 2, bias=False)
        >>> net.weight.data = 3 * torch.eye(2)
        >>> bound = lower(net, torch.rand(10, 2))
        >>> round(bound.value, 3), bound.proven
        (3.0, True)
    """
    for name, count in (("pairs", pairs), ("steps", steps)):
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"{name} must be a whole number of at least 1; got {count!r}")
    # How far apart a pair starts, in units of the data's scale: the power iteration wants a derivative.
    searches: dict[str, tuple[Search, float]] = {"ascent": ("ascent", 0.1), "paper": ("paper", 0.1)}
    if check_norm(p_in) == check_norm(p_out) == 2:
        searches["power"] = (_power_iteration, 0.01)
    inner = unwrap(model)
    with frozen(modules_of(model, modules)):
        found: dict[str, tuple[float, Tensor]] = {}
        for name, (search, noise) in searches.items():
            u, v = Start(x, noise=noise, seed=seed).draw(pairs)
            found[name] = _climb(Pairs(u, v, p_in=p_in, p_out=p_out, box=box, search=search), inner, steps)
        method = max(found, key=lambda name: found[name][0])
        pair = found[method][1]
        value, proven = _measure_alone(inner, pair, p_in, p_out)
    domain = "all" if box is None else "box"
    return Bound(value, f"pairs ({method})", proven=proven, domain=domain, witness=(pair[0], pair[1]))


def _climb(pairs: Pairs, function: Model, steps: int) -> tuple[float, Tensor]:
    """Return the largest quotient on the way up, and the two points that have it."""
    best, pair = -1.0, pairs.points[:0]
    for step in range(steps + 1):
        measured = pairs.measure(function, climb=step < steps)
        largest = measured.values[measured.steepest]
        if largest > best:
            best, pair = largest, pairs.points[[measured.steepest, measured.steepest + len(pairs)]].clone()
        if measured.ascent is not None:
            pairs.move(measured)
    return best, pair


def _measure_alone(function: Model, pair: Tensor, p_in: Norm, p_out: Norm) -> tuple[float, bool]:
    """Measure one pair by itself, in float64 if the function is a module; tell whether that is a proof."""
    if isinstance(function, nn.Module):
        try:
            wide, points = copy.deepcopy(function).double().eval(), pair.double()
            quotient = _quotient_of(wide, points, p_in, p_out)
            with torch.no_grad():
                sizes = vector_norm(apply(wide, points), p_out).sum()
            lost = PLACES * torch.finfo(torch.float64).eps * sizes / vector_norm(points[:1] - points[1:], p_in)
            return max(0.0, quotient * (1 - ROUNDING) - float(lost)), True
        except (ValueError, TypeError, RuntimeError):
            pass  # it cannot be copied or widened, such as one that casts to float32 itself
    return _quotient_of(function, pair, p_in, p_out), False


def _quotient_of(function: Model, pair: Tensor, p_in: Norm, p_out: Norm) -> float:
    return Pairs(pair[:1], pair[1:], p_in=p_in, p_out=p_out, min_distance=0.0).measure(function).values[0]


def _power_iteration(
    u: Tensor, v: Tensor, gradient_u: Tensor, gradient_v: Tensor, quotient: Tensor, step: Tensor
) -> tuple[Tensor, Tensor]:
    """Turn each pair towards the Jacobian's leading direction, keep its distance, and move its centre uphill."""
    difference = u - v
    distance = vector_norm(difference)
    # What remains of ∇L without the distance's own part is Jᵀ (f(u) - f(v)), up to a factor.
    own = difference * per_sample(quotient / distance.square(), difference)
    turned = (gradient_u + own) - (gradient_v - own)
    uphill = gradient_u + gradient_v
    tiny = torch.finfo(u.dtype).tiny
    half = turned * per_sample(0.5 * distance / vector_norm(turned).clamp_min(tiny), u)
    centre = (u + v) / 2 + uphill * per_sample(step / vector_norm(uphill).clamp_min(tiny), u)
    return centre + half, centre - half
