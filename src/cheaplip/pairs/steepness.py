"""How steep a function is on pairs of inputs, and in which direction it gets steeper."""

from __future__ import annotations

import math
from typing import NamedTuple, final

import torch
from torch import Tensor

from cheaplip.modes import Model
from cheaplip.norms import Norm, norm_gradient, per_sample, vector_norm
from cheaplip.pairs.chains import Chain, chain_of


def apply(function: Model, points: Tensor) -> Tensor:
    """Return the function's outputs at ``points``, or raise an error that says what does not fit.

    Raises:
        ValueError: if shape, dtype or device do not fit, or the outputs do not count the samples.
        TypeError: if the output is no floating tensor.
    """
    try:
        output = function(points)
    except RuntimeError as error:
        raise ValueError(_explain(function, points, error)) from error
    if not isinstance(output, Tensor) or not output.is_floating_point():
        got = f"a tensor of {output.dtype}" if isinstance(output, Tensor) else type(output).__name__
        remedy = "wrap it in a module whose forward returns the tensor that is meant"
        if isinstance(output, Tensor):
            remedy = "return torch.view_as_real of it" if output.is_complex() else "return it before it is rounded"
        raise TypeError(f"the model must return one floating tensor; got {got}: {remedy}")
    if output.dim() == 0 or output.shape[0] != points.shape[0]:
        raise ValueError(
            f"the model must return one output per sample, shape ({len(points)}, ...); got {tuple(output.shape)}"
        )
    return output


def _explain(function: Model, points: Tensor, error: RuntimeError) -> str:
    function = function.model if isinstance(function, Chain) else function
    parameter = next(iter(function.parameters()), None) if isinstance(function, torch.nn.Module) else None
    if parameter is not None and parameter.device != points.device:
        return (
            f"points and model must be on one device; got {points.device} and {parameter.device}: "
            f'call .to("{parameter.device}") of the penalty or tensor that they come from'
        )
    if parameter is not None and parameter.is_floating_point() and parameter.dtype != points.dtype:
        remedy = f"call .to({parameter.dtype}) of the penalty or tensor that they come from"
        if parameter.dtype not in (torch.float32, torch.float64):
            remedy = "keep the weights in float32 and use autocast, since quotients need float32"
        return f"points and model must have one dtype; got {points.dtype} and {parameter.dtype}: {remedy}"
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"the model failed on inputs of shape {tuple(points.shape)} {points.dtype}: {first_line}"


def widen(x: Tensor) -> Tensor:
    """Return ``x`` in float32 or wider: quotients of close points lose all digits in half precision."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def quotient(output_u: Tensor, output_v: Tensor, distance: Tensor, p_out: Norm) -> Tensor:
    """Return ‖f(u) - f(v)‖ / ‖u - v‖ for outputs ``(P, ...)`` and distances ``(P,)``.

    Example:
        >>> quotient(torch.tensor([[3.0]]), torch.tensor([[1.0]]), torch.tensor([0.5]), 2)
        tensor([4.])
    """
    return vector_norm(widen(output_u) - widen(output_v), p_out) / distance


def pull_back(output: Tensor, leaf: Tensor, cotangent: Tensor, *, keep: bool = False) -> Tensor:
    """Return the gradient by the input of what has the gradient ``cotangent`` by the output; ``keep`` the graph.

    Raises:
        ValueError: if the output does not depend on the input.
    """
    gradient = None
    if output.requires_grad:
        (gradient,) = torch.autograd.grad(output, leaf, cotangent, retain_graph=keep, allow_unused=True)
    if gradient is None:
        raise ValueError(
            "the model's output does not depend on its input by any differentiable operation: "
            "remove .detach(), no_grad or integer arithmetic from its forward"
        )
    return own(gradient)


def own(gradient: Tensor) -> Tensor:
    """Return a gradient that may be changed in place; that of a sum comes as one number seen many times.

    Example:
        >>> own(torch.zeros(1).expand(3)).add_(torch.arange(3))
        tensor([0., 1., 2.])
    """
    return gradient.contiguous() if 0 in gradient.stride() else gradient


@final
class Ascent(NamedTuple):
    """The quotients, and where they rise.

    Attributes:
        value: the quotients, ``(P,)``.
        direction: ``(2P, *shape)``; divided by ``divisor`` it is the gradient with respect to all u, then all v.
        divisor: factors of shape ``(P,)``; steps of given length do not need them, so they are not divided by.
    """

    value: Tensor
    direction: Tensor
    divisor: tuple[Tensor, ...]

    @property
    def scale(self) -> Tensor:
        """One over the divisor, ``(P,)``."""
        return math.prod(self.divisor, start=torch.ones_like(self.value)).reciprocal()


@final
class Slopes(NamedTuple):
    """The quotients, and what a backward still has to tell to know where they rise.

    Attributes:
        value: the quotients, ``(P,)``.
        cotangent: what the outputs at all u, then all v, have to be pulled back from, ``(2P, ...)``.
        away: the gradient of the distances by u, up to ``scale``, ``(P, *shape)``.
        scale: its factor, ``(P,)``.
        divisor: as in :class:`Ascent`.
    """

    value: Tensor
    cotangent: Tensor
    away: Tensor
    scale: Tensor
    divisor: tuple[Tensor, ...]

    @classmethod
    def at(cls, output: Tensor, difference: Tensor, distance: Tensor, p_in: Norm, p_out: Norm) -> Slopes:
        """Return the slopes for the outputs ``(2P, ...)``, first at all u then at all v, without a graph."""
        halves = widen(output).reshape(2, -1, *output.shape[1:])
        both = halves - halves.flip(0)
        change = both[0]
        euclidean = p_in == 2 and p_out == 2
        size = vector_norm(change, p_out)
        if size.requires_grad:
            size = size.detach()
        value = size / distance
        # In Euclidean norms (f(u) - f(v)) and L² (u - v) are the two parts of ∇L, up to the common 1 / (size distance).
        towards = change if euclidean else norm_gradient(change, p_out, size)
        away = difference if euclidean else norm_gradient(difference, p_in, distance)
        cotangent = both.flatten(0, 1) if euclidean else torch.cat([towards, -towards])
        if cotangent.dtype is not output.dtype:
            cotangent = cotangent.to(output.dtype)
        divisor = (size, distance) if euclidean else (distance,)
        return cls(value, cotangent, away, value * value if euclidean else value, divisor)

    def ascent(self, direction: Tensor) -> Ascent:
        """Return where the quotients rise.

        Args:
            direction: the cotangent pulled back to the points, ``(2P, *shape)``; changed in place.
        """
        slope = per_sample(self.scale, self.away)
        of_u, of_v = direction.chunk(2)
        of_u.addcmul_(self.away, slope, value=-1.0)
        of_v.addcmul_(self.away, slope)
        return Ascent(self.value, direction, self.divisor)


def ascent(function: Model, points: Tensor, difference: Tensor, distance: Tensor, p_in: Norm, p_out: Norm) -> Ascent:
    """Return the quotients and their gradients, by one forward and one backward.

    The quotient's own derivatives are written out, so that autograd runs through the network alone; it is asked
    for input gradients only and so computes none of the parameters'. Those of a chain of plain layers are written out
    as well.

    Args:
        function: any function of a batch.
        points: the points, first all u then all v, ``(2P, *shape)``.
        difference: ``u - v``, ``(P, *shape)``.
        distance: ``‖u - v‖``, ``(P,)``.
        p_in: the norm of inputs.
        p_out: the norm of outputs.

    Example:
        >>> u, v = torch.tensor([[2.0]]), torch.tensor([[0.0]])
        >>> climb = ascent(lambda x: x**2, torch.cat([u, v]), u - v, (u - v).abs()[:, 0], 2.0, 2.0)
        >>> climb.value, climb.scale * climb.direction  # (u² - v²) / (u - v) = u + v
        (tensor([2.]), tensor([[1.],
                [1.]]))
    """
    chain = function if isinstance(function, Chain) else chain_of(function)
    if chain is not None:
        with torch.set_grad_enabled(False):  # in half the time of no_grad, which is felt
            slopes = Slopes.at(apply(chain, points), difference, distance, p_in, p_out)
            direction = chain.pull_back(slopes.cotangent)
            # Under autocast they differ.
            return slopes.ascent(direction if direction.dtype is points.dtype else direction.to(points.dtype))
    leaf = points.detach().requires_grad_()
    if torch.is_grad_enabled():
        output = apply(function, leaf)
    else:
        with torch.enable_grad():
            output = apply(function, leaf)
    slopes = Slopes.at(output.detach(), difference, distance, p_in, p_out)
    return slopes.ascent(pull_back(output, leaf, slopes.cotangent))
