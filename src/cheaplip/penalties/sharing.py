"""The minibatch and the pairs in one forward of a chain of plain layers, and one backward for both."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual

from cheaplip.norms import Norm
from cheaplip.pairs import Measurement
from cheaplip.pairs.chains import UNITS, Chain
from cheaplip.pairs.steepness import quotient

# The smallest number by which to divide in one go.
SAFE = 1e-30


def shared(chain: Chain, measured: Measurement, p_out: Norm) -> tuple[Tensor, Tensor]:
    """Return the minibatch's outputs and the steepest pair's quotient, with the graph that the measurement left out.

    The forward in which the pairs were measured is the minibatch's own; its backward computes gradients by the
    parameters for the minibatch and the steepest pair alone.

    Args:
        chain: with the minibatch ahead, by which ``measured`` was measured last; what it keeps is changed.
        measured: the pairs, with where they rise.
        p_out: the norm of outputs.

    Example:
        >>> from cheaplip.pairs import Pairs
        >>> from cheaplip.pairs.chains import chain_of
        >>> net, x = nn.Sequential(nn.Linear(2, 2)), torch.ones(3, 2)
        >>> chain, pairs = chain_of(net).behind(x), Pairs(torch.zeros(1, 2), torch.ones(1, 2))
        >>> logits, steepest = shared(chain, pairs.measure(chain, climb=True), 2.0)
        >>> torch.equal(logits, net(x)), bool(steepest.isclose((net[0].weight.sum(1) / 2**0.5).norm()))
        (True, True)
    """
    layers = chain.layers
    head = next((index for index, layer in enumerate(layers) if type(layer) is nn.Linear), len(layers))
    at, count = measured.steepest, len(measured.values)
    kept = _close_up(chain.kept[head:], chain.first, at, count)
    parameters = [p for layer in layers[head:] for p in layer._parameters.values() if p is not None]
    distance = measured.distance[at]
    cotangent = _cotangent(chain.cotangent[at::count], measured)
    outputs = chain.outputs[: chain.first], measured.quotient[at]
    ride = _Ride(layers[head:], len(kept), chain.first, distance, p_out)
    logits, steepest = _Shared.apply(ride, outputs, (cotangent, *kept), *parameters)  # type: ignore[no-untyped-call]
    return logits, steepest


def is_constant(x: Tensor) -> bool:
    """Tell whether nobody asks for derivatives by ``x``, backward or forward."""
    return not x.requires_grad and unpack_dual(x).tangent is None  # type: ignore[no-untyped-call]


def _cotangent(rows: Tensor, measured: Measurement) -> Tensor:
    """Return the gradient of the steepest quotient by its outputs, by what the outputs were pulled back from."""
    quotient, distance = measured.values[measured.steepest], measured.distances[measured.steepest]
    if quotient == 0:
        return torch.zeros_like(rows)
    size = quotient * distance if measured.ascent is not None and len(measured.ascent.divisor) == 2 else 1.0
    # Once where that is safe: an operation is felt.
    return rows / (size * distance) if size * distance > SAFE else rows / size / distance


def _close_up(kept: list[Tensor], first: int, at: int, count: int) -> list[Tensor]:
    """Return what was kept of the minibatch and, right behind it, of one pair, in the place of the first pair."""
    if not first:
        return [tensor[at::count].clone() for tensor in kept]  # the first of them are the pairs themselves
    closed, done = [], set()
    for tensor in kept:
        together = tensor[: first + 2]
        place = tensor.data_ptr()  # a layer's output is the next one's input
        if place not in done:
            done.add(place)
            rows = tensor[first + at :: count]
            together[first:] = rows if at > 1 else rows.clone()  # which may overlap
        closed.append(together)
    return closed


@final
class _Ride(NamedTuple):
    """What the way back needs beside tensors: the layers, of how many something was kept, samples, the quotient."""

    layers: tuple[Any, ...]
    kept: int
    batch: int
    distance: Tensor
    p_out: Norm


@final
class _Shared(torch.autograd.Function):
    """The outputs and the quotient as functions of the parameters."""

    @staticmethod
    def forward(
        ctx: Any, ride: _Ride, outputs: tuple[Tensor, ...], kept: tuple[Tensor, ...], *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        """Return outputs and quotient, which are known, as the parameters' doing."""
        ctx.ride = ride
        ctx.save_for_backward(*kept, *parameters)
        return outputs

    @staticmethod
    def backward(ctx: Any, by_logits: Tensor, by_quotient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients by the parameters, in the order of the layers."""
        ride: _Ride = ctx.ride
        cotangent, *saved = ctx.saved_tensors
        kept, parameters = saved[: ride.kept], saved[ride.kept :]
        if torch.is_grad_enabled():
            gradients = _differentiably(ride, kept[0], parameters, (by_logits, by_quotient))
        else:
            gradient = torch.cat((by_logits, cotangent * by_quotient))
            gradients = _pull_back(ride.layers, kept, parameters, gradient, ctx.needs_input_grad[3:])
        return (None, None, None, *gradients)


def _pull_back(
    layers: tuple[Any, ...], kept: list[Tensor], parameters: list[Tensor], gradient: Tensor, wanted: tuple[bool, ...]
) -> Iterable[Tensor | None]:
    gradients: list[Tensor | None] = [None] * len(parameters)
    at = len(parameters)
    for layer, tensor in zip(reversed(layers), reversed(kept), strict=True):
        unit = UNITS.get(type(layer))
        if unit is not None:
            gradient = unit[1](gradient, tensor)
        elif type(layer) is nn.Linear:
            flat = gradient if gradient.dim() == 2 else gradient.flatten(0, -2)
            if layer._parameters["bias"] is not None:
                at -= 1
                gradients[at] = flat.sum(0) if wanted[at] else None
            at -= 1
            if wanted[at]:
                gradients[at] = torch.mm(flat.t(), tensor if tensor.dim() == 2 else tensor.flatten(0, -2))
            if not any(wanted[:at]):
                break
            gradient = torch.matmul(gradient, parameters[at])
        else:
            gradient = gradient.view(tensor.shape)
    return gradients


def _differentiably(
    ride: _Ride, x: Tensor, parameters: list[Tensor], gradients: tuple[Tensor, Tensor]
) -> Iterable[Tensor | None]:
    """Return the same by autograd, for those who want derivatives of it."""
    remaining = iter(parameters)
    for layer in ride.layers:
        unit = UNITS.get(type(layer))
        if unit is not None:
            x = unit[0](x)
        elif type(layer) is nn.Linear:
            weight = next(remaining)
            x = F.linear(x, weight, None if layer._parameters["bias"] is None else next(remaining))
        else:
            x = x.flatten(1)
    logits, output_u, output_v = torch.split(x, [ride.batch, 1, 1])
    steepest = quotient(output_u, output_v, ride.distance, ride.p_out).squeeze(0)
    wanted = [p for p in parameters if p.requires_grad]
    found = iter(torch.autograd.grad((logits, steepest), wanted, gradients, create_graph=True, allow_unused=True))
    return tuple(next(found) if p.requires_grad else None for p in parameters)
