"""Lower bounds on Lip(f): search hard for a steep pair, and show it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from cheaplip.checks import number, whole_number
from cheaplip.lipschitz.bound import Bound
from cheaplip.lipschitz.climb import Places, Task, judge, unit
from cheaplip.lipschitz.effort import effort
from cheaplip.lipschitz.hops import search
from cheaplip.lipschitz.jacobian import sharpened
from cheaplip.lipschitz.region import Ball, Region
from cheaplip.lipschitz.witness import evaluated, is_steady, measure, pairs_at, plain, widest
from cheaplip.modes import Model, modules_of
from cheaplip.norms import Box, Norm, check_norm, per_sample, vector_norm
from cheaplip.pairs import Pairs, Search, Start
from cheaplip.pairs.starts import scale_of

# So many of the steepest places are measured exactly.
JUDGED = 8
# How far apart a pair starts, in units of the data's scale; and the power iteration's, which wants a derivative.
NOISE, CLOSE = 0.1, 0.01


def lower(
    model: Model,
    x: Tensor,
    *,
    p_in: Norm = 2,
    p_out: Norm = 2,
    box: Box | None = None,
    ball: Ball | None = None,
    pairs: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    modules: Iterable[nn.Module] | None = None,
    seconds: float | None = None,
) -> Bound:
    """Search for the steepest pair of inputs: a lower bound on the Lipschitz constant, with its witness.

    Algorithm 1 is run long, with the paper's step and with steps of given length, from data points and their noisy
    copies; in Euclidean norms a power iteration of the Jacobian along close pairs runs beside them. Then the Jacobian's
    norm is climbed over inputs, from where those ended, from data, and from far away, with hops from the best places;
    piecewise-linear activations are smoothed on the way. The steepest pair ever seen is measured once more, of a module
    in float64.

    Args:
        model: a module or any callable of its input; it is evaluated as in eval mode.
        x: data to start from, ``(n, *input)``, floating, finite.
        p_in: the norm of inputs: 1, 2, inf or a callable ``(n, *shape) -> (n,)``.
        p_out: the norm of outputs, likewise.
        box: ``(low, high)`` to stay in, numbers or one per channel; None searches all space.
        ball: ``(centre, radius)`` to stay in, a point ``(*input)`` and a radius in the norm ``p_in``, for the local
            constant around a point; inside the box too if there is one.
        pairs: how many pairs or places climb at a time; None for 64 in a network of up to a million multiplications a
            sample (counted, not timed), and for fewer in a larger one, such as 12 for one of 15 million.
        steps: how many moves they make; None for 100, or fewer likewise, such as 34. Each costs one forward and one
            input backward of ``2 * pairs`` points, for each of two or three searches by pairs and three to four times
            as often in the climb of the Jacobian's norm.
        seed: the seed of the starts.
        modules: the modules that a callable uses, if they cannot be read off what it refers to.
        seconds: how long to search: until then further climbs start afresh, and then all stop, at the next move; what
            was found by then is measured, which takes a little longer. None for the steps alone, whose result depends
            on nothing but the arguments.

    Returns:
        The bound; ``witness`` is the pair, ``method`` says what found it, ``domain`` where it lies. It is ``proven``
        where float64 measured it, less a margin for rounding: 1e-9 of it, and 64 last places of the outputs or of the
        largest number on the way to them. Of what cannot be widened, such as a callable, it is an estimate, some 1e-5
        off for float32 inputs.

    Raises:
        ValueError: if ``x`` or the ball does not fit the model, ``x`` leaves the box, or all outputs are NaN or
            infinite.
        TypeError: if ``x``, the centre or an output is no floating tensor.

    Reference: Bungert et al. 2021, equation 5 and Algorithm 1.

    Example:
        >>> net = nn.Linear(2, 2, bias=False)
        >>> net.weight.data = 3 * torch.eye(2)
        >>> bound = lower(net, torch.rand(10, 2))
        >>> round(bound.value, 3), bound.proven
        (3.0, True)
    """
    for name, value in (("pairs", pairs), ("steps", steps)):
        if value is not None:
            whole_number(value, name)
    start = Start(x, noise=NOISE, seed=seed, box=box)
    p_in, p_out = check_norm(p_in, "p_in"), check_norm(p_out, "p_out")
    region = Region(box, ball, p_in, x)
    deadline = math.inf if seconds is None else time.monotonic() + number(seconds, "seconds", above=0)
    inner = plain(model)
    task = Task(inner, p_in, p_out, region, _scale(start.radius / NOISE, region), deadline)
    with evaluated(modules_of(model, modules)):
        if pairs is None or steps is None:
            usual = effort(inner, x)
            pairs, steps = pairs or usual[0], steps or usual[1]
        # Pairs that know no ball stay out of it.
        found, known = ({}, None) if ball is not None else _by_pairs(task, start, box, pairs, steps)
        places = search(task, x.detach(), known, pairs, steps, seed, seconds is not None)
        return _steepest(task, found, places)


def lower_at(model: Model, x: Tensor, point: Tensor, *, p: Norm, box: Box | None) -> Bound:
    """Measure how steep a model is at one input, by close pairs around it.

    Args:
        model: as in :func:`lower`.
        x: data ``(n, *input)``, for type, device and scale.
        point: where, ``(*input)``.
        p: the norm of inputs and outputs: 1, 2 or inf.
        box: where the pairs have to stay, as in :func:`lower`.
    """
    norm = check_norm(p)
    points = point.unsqueeze(0).to(x)
    region = Region(box, None, norm, points)
    # The regions of a network far from zero are as wide as they are far.
    scales = [scale_of(x), max(float(points.abs().max()), torch.finfo(x.dtype).tiny)]
    with evaluated(modules_of(model)):
        tasks = [Task(plain(model), norm, norm, region, scale, math.inf) for scale in scales]
        start = Places(points, unit(torch.ones_like(points)), points.new_zeros(1))
        bounds = [_steepest(task, {}, start) for task in tasks]
    return replace(max(bounds, key=float), method="steepest linear region")


def _scale(scale: float, region: Region) -> float:
    """Return the data's scale, or the ball's if that is smaller."""
    if region.centre is None:
        return scale
    # The 2-norm of the longest vector in the ball.
    return min(scale, region.radius * (math.sqrt(region.centre.numel()) if region.p_in == math.inf else 1.0))


def _by_pairs(task: Task, start: Start, box: Box | None, pairs: int, steps: int) -> tuple[dict[str, Tensor], Places]:
    """Let pairs climb by Algorithm 1: of each search the steepest pair ever seen, and where all of them end."""
    searches: list[tuple[Start, dict[str, Search]]] = [(start, {"ascent": "ascent", "paper": "paper"})]
    if task.p_in == task.p_out == 2:
        close = Start(start.pool, noise=CLOSE, seed=start.seed)
        searches.append((close, {"power": _power_iteration}))
    found, ends = {}, []
    for starts, several in searches:
        u, v = starts.draw(pairs)
        for name, search_ in several.items():
            climbing = Pairs(u, v, p_in=task.p_in, p_out=task.p_out, box=box, search=search_)
            found[f"pairs ({name})"] = _climb(climbing, task, steps)
            ends.append(climbing.points.view(2, *u.shape))
    u, v = torch.cat(ends, 1)
    return found, judge(task, (u + v) / 2, unit(u - v))


def _climb(pairs: Pairs, task: Task, steps: int) -> Tensor:
    """Return the two points that had the largest quotient on the way up."""
    best, pair = -1.0, pairs.points[:0]
    for step in range(steps + 1):
        last = step == steps or (step > 0 and task.late)
        try:
            measured = pairs.measure(task.function, climb=not last)
        except ValueError:
            if step == 0:
                raise
            break  # they have climbed beyond the range of floats
        largest = measured.values[measured.steepest]
        if largest > best:
            best, pair = largest, pairs.points[[measured.steepest, measured.steepest + len(pairs)]].clone()
        if measured.ascent is None:
            break
        pairs.move(measured)
    return pair


def _steepest(task: Task, found: dict[str, Tensor], places: Places) -> Bound:
    """Measure what the searches found, and return the best."""
    wide = widest(task.function, places.points)
    sharp = sharpened(task, wide, places.best(JUDGED))
    pairs, values = pairs_at(task, wide, sharp.points, sharp.directions, places.points.dtype)
    best = int(values.argmax())
    value, pair, method = float(values[best]), pairs[:, best], "Jacobian ascent"
    for name, other in found.items():
        worth = float(measure(wide, other[:1], other[1:], task.p_in, task.p_out).values)
        if worth > value:
            value, pair, method = worth, other, name
    if value == -math.inf:
        raise ValueError("the model's outputs are NaN or infinite wherever it was tried: check weights and inputs")
    proven = is_steady(wide, pair[0], pair[1]) and wide.proven
    return Bound(value, method, proven=proven, domain=task.region.name, witness=(pair[0], pair[1]))


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
