"""How steep a function is on pairs of inputs, and in which direction it gets steeper."""

from __future__ import annotations

import torch
from torch import Tensor

from cheaplip.modes import Model
from cheaplip.norms import Norm, norm_gradient, per_sample, vector_norm


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
        raise TypeError(
            f"the model must return one floating tensor; got {got}: wrap it, for example lambda x: model(x)[0]"
        )
    if output.dim() == 0 or len(output) != len(points):
        raise ValueError(
            f"the model must return one output per sample, shape ({len(points)}, ...); got {tuple(output.shape)}"
        )
    return output


def _explain(function: Model, points: Tensor, error: RuntimeError) -> str:
    parameter = next(iter(function.parameters()), None) if isinstance(function, torch.nn.Module) else None
    if parameter is not None and parameter.device != points.device:
        return (
            f"pairs and model must be on one device; got {points.device} and {parameter.device}: "
            f'call penalty.to("{parameter.device}")'
        )
    if parameter is not None and parameter.is_floating_point() and parameter.dtype != points.dtype:
        return (
            f"pairs and model must have one dtype; got {points.dtype} and {parameter.dtype}: "
            f"call penalty.to({parameter.dtype})"
        )
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"the model failed on pairs of shape {tuple(points.shape)} {points.dtype}: {first_line}"


def widen(x: Tensor) -> Tensor:
    """Return ``x`` in float32 or wider: quotients of close points lose all digits in half precision."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def quotient(output: Tensor, distance: Tensor, p_out: Norm) -> Tensor:
    """Return ‖f(u) - f(v)‖ / ‖u - v‖ for outputs ``(2P, ...)`` and distances ``(P,)``.

    Example:
        >>> quotient(torch.tensor([[3.0], [1.0]]), torch.tensor([0.5]), 2)
        tensor([4.])
    """
    half = len(distance)
    return vector_norm(widen(output[:half]) - widen(output[half:]), p_out) / distance


def quotient_and_gradient(
    function: Model,
    points: Tensor,
    difference: Tensor,
    distance: Tensor,
    p_in: Norm,
    p_out: Norm,
) -> tuple[Tensor, Tensor]:
    """Return the quotients ``(P,)`` and their gradients ``(2P, *shape)``, by one forward and one backward.

    The quotient's own derivatives are written out, so that autograd runs through the network alone; it is asked
    for input gradients only and so computes none of the parameters'.

    Args:
        function: any function of a batch.
        points: the points, first all u then all v, ``(2P, *shape)``.
        difference: ``u - v``, ``(P, *shape)``.
        distance: ``‖u - v‖``, ``(P,)``.
        p_in: the norm of inputs.
        p_out: the norm of outputs.

    Example:
        >>> u, v = torch.tensor([[2.0]]), torch.tensor([[0.0]])
        >>> q, g = quotient_and_gradient(lambda x: x**2, torch.cat([u, v]), u - v, (u - v).abs()[:, 0], 2, 2)
        >>> q, g  # (u² - v²) / (u - v) = u + v
        (tensor([2.]), tensor([[1.],
                [1.]]))
    """
    half = len(distance)
    leaf = points.detach().requires_grad_()
    with torch.enable_grad():
        output = apply(function, leaf)
    if not output.requires_grad:
        raise ValueError("the model's output does not depend on its input by any differentiable operation")
    with torch.no_grad():
        outputs = output.detach()
        change = widen(outputs[:half]) - widen(outputs[half:])
        size = vector_norm(change, p_out)
        value = size / distance
        towards = norm_gradient(change, p_out, size).div_(per_sample(distance, change))
        cotangent = torch.cat([towards, -towards]).to(output.dtype)
        (gradient,) = torch.autograd.grad(output, leaf, cotangent)
        along = norm_gradient(difference, p_in, distance)
        slope = per_sample(value / distance, difference)
        gradient[:half].addcmul_(along, slope, value=-1.0)
        gradient[half:].addcmul_(along, slope)
    return value, gradient
