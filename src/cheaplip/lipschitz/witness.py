"""Difference quotients of given pairs in float64, and the pair that shows how steep a place is."""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cheaplip.lipschitz.climb import Task
from cheaplip.modes import Model, frozen, modules_of, unwrap
from cheaplip.norms import Norm, check_norm, per_sample, vector_norm
from cheaplip.pairs.starts import check_pairs
from cheaplip.pairs.steepness import apply, quotient, widen

# Far above what float64 loses in a forward of a network, far below what anyone reads off a bound: of the quotient, and,
# in last places of the outputs and of all numbers on the way, of what they lose beside a large offset.
ROUNDING, PLACES = 1e-9, 64
# How many last places outputs may change where other samples are in the batch; and how much of the difference that is
# measured, as where a solver stops when all samples are good enough.
OTHERWISE, ELSEWHERE = 1000, 0.01
# Numbers beyond this stand for minus infinity, as in a mask of attention.
MASKED = 1e30
# Distances of the pairs that are tried, in units of the data's scale. The largest is taken that costs no more than this
# part of the quotient: it is the least sensitive to rounding in the user's own arithmetic.
DISTANCES = tuple(10.0 ** (-k / 2) for k in range(-2, 11))
COST = 1e-6


@final
class Wide(NamedTuple):
    """A function in the widest arithmetic that it takes.

    Attributes:
        function: itself or a copy in float64.
        dtype: of its inputs.
        proven: whether a quotient of it, less a margin, is a proof.
    """

    function: Model
    dtype: torch.dtype
    proven: bool


@final
class Measured(NamedTuple):
    """What pairs say, ``(n,)`` each.

    Attributes:
        quotients: in float64, NaN or inf where outputs are.
        values: what pairs are worth: the quotients, less a margin where that makes them a proof; -inf where nothing.
        sure: the quotients less the margin for rounding, proof or not.
        sizes: of the outputs, or of the largest number on the way to them, in units of the distance.
    """

    quotients: Tensor
    values: Tensor
    sure: Tensor
    sizes: Tensor


def quotients(
    model: Model,
    u: Tensor,
    v: Tensor,
    *,
    p_in: Norm = 2,
    p_out: Norm = 2,
    modules: Iterable[nn.Module] | None = None,
) -> Tensor:
    """Return the difference quotients ‖f(u) - f(v)‖ / ‖u - v‖ of given pairs: each is a lower bound.

    Args:
        model: a module or any callable of its input; it is evaluated as in eval mode, a module in float64 if possible.
        u: the first points, ``(n, *input)``, floating, finite.
        v: the second points, likewise; each differs from its first.
        p_in: the norm of inputs: 1, 2, inf or a callable ``(n, *shape) -> (n,)``.
        p_out: the norm of outputs, likewise.
        modules: the modules that a callable uses, if they cannot be read off what it refers to.

    Returns:
        The quotients, ``(n,)``, float64.

    Raises:
        ValueError: if the points do not fit each other or the model, two of a pair are equal, or an output is NaN or
            infinite.
        TypeError: if the points or an output are no floating tensors.

    Reference: Bungert et al. 2021, equation 5.

    Example:
        >>> quotients(lambda x: 3 * x, torch.zeros(2, 1), torch.ones(2, 1))
        tensor([3., 3.], dtype=torch.float64)
    """
    check_pairs(u, v)
    p_in, p_out = check_norm(p_in, "p_in"), check_norm(p_out, "p_out")
    if bool((u == v).flatten(1).all(1).any()):
        raise ValueError("the two points of each pair must differ; got pairs of equal points: leave them out")
    inner = plain(model)
    with evaluated(modules_of(model, modules)):
        values = measure(widest(inner, u), u, v, p_in, p_out).quotients
    if not bool(torch.isfinite(values).all()):
        raise ValueError("the model's outputs are NaN or infinite at some of the pairs: check weights and inputs")
    return values


def plain(model: Model) -> Model:
    """Return the user's own module, not compiled, or the callable."""
    inner = unwrap(model)
    original = getattr(inner, "_orig_mod", None)
    return original if isinstance(original, nn.Module) else inner


@contextlib.contextmanager
def evaluated(modules: tuple[nn.Module, ...]) -> Iterator[None]:
    """Run modules as in eval mode, and so that a backward works."""
    recurrent = any(isinstance(layer, nn.RNNBase) for module in modules for layer in module.modules())
    with frozen(modules), contextlib.ExitStack() as stack:
        if recurrent and torch.backends.cudnn.enabled:
            # cuDNN's recurrent layers refuse a backward in eval mode; PyTorch's own do not.
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):
            # A compiled function would be compiled anew for each batch size, and for each look inside.
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


def widest(function: Model, x: Tensor) -> Wide:
    """Return a function in float64 if it is a module that takes that, else as it is."""
    if isinstance(function, nn.Module):
        try:
            wide = copy.deepcopy(function).double()
            with torch.no_grad():
                output = apply(wide, x[:1].double())
            if output.dtype == torch.float64:
                return Wide(wide, torch.float64, True)
        except (ValueError, TypeError, RuntimeError):
            pass  # it cannot be copied or widened, such as one that casts to float32 itself
    return Wide(function, x.dtype, False)


@final
class Largest(TorchFunctionMode):
    """Within it, the largest number is remembered that any function of torch returns: its digits may get lost.

    Example:
        >>> with Largest() as largest:
        ...     x = torch.ones(2) + 1e6 - 1e6
        >>> largest.value
        1000001.0
    """

    def __init__(self) -> None:
        super().__init__()
        self.value = 0.0

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the function, and look at what it returns."""
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(part, Tensor) and part.is_floating_point() and part.numel():
                size = part.detach().abs().to(torch.float64)
                self.value = max(self.value, float(torch.where(size < MASKED, size, 0.0).max()))
        return result


def measure(wide: Wide, u: Tensor, v: Tensor, p_in: Norm, p_out: Norm) -> Measured:
    """Measure pairs, in float64 if the function takes that."""
    points = torch.cat([u, v]).to(wide.dtype)
    distance = vector_norm(widen(points[: len(u)] - points[len(u) :]).double(), p_in).detach()
    largest = Largest()
    with torch.no_grad(), largest:
        output = apply(wide.function, points)
    output_u, output_v = widen(output).double().chunk(2)
    quotients = quotient(output_u, output_v, distance, p_out).detach()
    sizes = (vector_norm(output_u, p_out) + vector_norm(output_v, p_out)).detach().clamp_min(largest.value) / distance
    lost = quotients * ROUNDING + PLACES * torch.finfo(wide.dtype).eps * sizes
    finite = torch.isfinite(quotients)
    sure = torch.where(finite, (quotients - lost).clamp_min(0.0), -torch.inf)
    return Measured(quotients, sure if wide.proven else torch.where(finite, quotients, -torch.inf), sure, sizes)


def is_steady(wide: Wide, u: Tensor, v: Tensor) -> bool:
    """Tell whether the two points of a pair, ``(*input)`` each, go to the same one by one as in one batch.

    Raises:
        ValueError: if they go elsewhere: what was measured is no quotient of a function of one sample.
    """
    points = torch.stack([u, v]).to(wide.dtype)
    with torch.no_grad(), Largest() as largest:
        together = widen(apply(wide.function, points)).double()
        try:
            alone = torch.cat([widen(apply(wide.function, point.unsqueeze(0))).double() for point in points])
        except ValueError:
            return True  # it does not take single samples
    room = OTHERWISE * torch.finfo(wide.dtype).eps * max(largest.value, float(together.abs().max()))
    moved = (alone - together).abs()
    if bool((moved <= room).all()):
        return True
    if float(torch.linalg.vector_norm(moved)) > ELSEWHERE * float(torch.linalg.vector_norm(together[0] - together[1])):
        raise ValueError(
            "the model must be a function of one sample; at the steepest pair it gave other outputs one by one than in "
            "one batch: it is random, or mixes samples"
        )
    return False


def pairs_at(task: Task, wide: Wide, points: Tensor, directions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return pairs around the points and what they prove, ``(2, n, *input)`` and ``(n,)``.

    The distances are chosen pair by pair: as large as curvature and kinks allow.

    Args:
        task: the norms, the region and the scale.
        wide: the function.
        points: ``(n, *input)``, in the function's dtype.
        directions: of unit 2-norm, likewise.
        dtype: that the pairs get.
    """
    found, values, scores = [], [], []
    for part in DISTANCES:
        distance = task.region.apart(directions, points.new_full((len(points),), part * task.scale))
        halves = directions * per_sample(distance / 2, directions)
        middles = task.region.around(points, halves)
        u, v = (task.region.hold(point.to(dtype)) for point in (middles + halves, middles - halves))
        measured = measure(wide, u, v, task.p_in, task.p_out)
        found.append(torch.stack([u, v]))
        values.append(measured.values)
        # What is left of it in the user's own arithmetic.
        scores.append((measured.sure - torch.finfo(dtype).eps * measured.sizes).nan_to_num(-torch.inf))
    table = torch.stack(scores)
    # The first, at the largest distance.
    chosen = (table >= table.amax(0) - COST * table.amax(0).abs()).int().argmax(0)
    index = torch.arange(len(points), device=points.device)
    return torch.stack(found, 1)[:, chosen, index], torch.stack(values)[chosen, index]
