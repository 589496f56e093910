"""The minibatch and the pairs in one forward of a chain of plain layers, and one backward for both."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, final

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from cheaplip.norms import Norm
from cheaplip.pairs import Measurement
from cheaplip.pairs.chains import Chain, Layer, through
from cheaplip.pairs.layers import Tensors
from cheaplip.pairs.steepness import quotient

# Between these, a number and its inverse, one may divide in one go; beyond, float32 would round to zero or infinity.
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
        >>> from torch import nn
        >>> from cheaplip.pairs import Pairs
        >>> from cheaplip.pairs.chains import chain_of
        >>> net, x = nn.Sequential(nn.Linear(2, 2)), torch.ones(3, 2)
        >>> chain, pairs = chain_of(net).behind(x), Pairs(torch.zeros(1, 2), torch.ones(1, 2))
        >>> logits, steepest = shared(chain, pairs.measure(chain, climb=True), 2.0)
        >>> torch.equal(logits, net(x)), bool(steepest.isclose((net[0].weight.sum(1) / 2**0.5).norm()))
        (True, True)
    """
    layers = chain.layers
    head = next((index for index, (_, _, parameters) in enumerate(layers) if parameters), len(layers))
    at, count = measured.steepest, len(measured.values)
    kept = _close_up(chain.kept[head:], chain.first, at, count)
    parameters = [p for _, _, own in layers[head:] for p in own if p is not None]
    cotangent = _cotangent(chain.cotangent[at::count], measured)
    logits, quotient = chain.outputs[: chain.first].clone(), measured.quotient[at]  # theirs, to change in place
    ride = _Ride(layers[head:], chain.first, measured.distance[at], p_out)
    both: tuple[Tensor, Tensor] = _Shared.apply(ride, (logits, quotient), cotangent, kept, *parameters)  # type: ignore[no-untyped-call]
    return both


def is_constant(x: Tensor) -> bool:
    """Tell whether nobody asks for derivatives by ``x``, backward or forward."""
    return not x.requires_grad and unpack_dual(x).tangent is None  # type: ignore[no-untyped-call]


def _cotangent(rows: Tensor, measured: Measurement) -> Tensor:
    """Return the gradient of the steepest quotient by its outputs, by what the outputs were pulled back from."""
    quotient, distance = measured.values[measured.steepest], measured.distances[measured.steepest]
    if quotient == 0:
        return torch.zeros_like(rows)
    # In Euclidean norms the outputs' change itself was pulled back, in others a direction of length one.
    size = quotient * distance if measured.ascent is not None and len(measured.ascent.divisor) == 2 else 1.0
    divisor = size * distance
    return rows / divisor if SAFE < divisor < 1 / SAFE else rows / size / distance  # an operation is felt


def _close_up(kept: list[Tensors], first: int, at: int, count: int) -> list[Tensors]:
    """Return what was kept of the minibatch and, right behind it, of one pair, in the place of the first pair."""
    done = set()

    def closed(tensor: Tensor) -> Tensor:
        together, place = tensor[: first + 2], tensor.data_ptr()
        if place not in done:  # a layer's output is the next one's input
            done.add(place)
            rows = tensor[first + at :: count]
            together[first:] = rows if at > 1 else rows.clone()  # which may overlap
        return together

    return [tuple(map(closed, own)) for own in kept]


@final
class _Ride(NamedTuple):
    """The layers from the first with parameters on, the minibatch's size, and how the quotient came about."""

    layers: tuple[Layer, ...]
    batch: int
    distance: Tensor
    p_out: Norm


@final
class _Shared(torch.autograd.Function):
    """The outputs and the quotient as functions of the parameters."""

    @staticmethod
    def forward(
        ctx: Any,
        ride: _Ride,
        outputs: tuple[Tensor, Tensor],
        cotangent: Tensor,
        kept: list[Tensors],
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return outputs and quotient, which are known, as the parameters' doing."""
        ctx.ride, ctx.kept = ride, kept
        ctx.save_for_backward(cotangent, kept[0][0] if kept else outputs[0], *parameters)
        return outputs

    @staticmethod
    def backward(ctx: Any, by_logits: Tensor, by_quotient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients by the parameters, in the order of the layers."""
        ride: _Ride = ctx.ride
        cotangent, x, *saved = ctx.saved_tensors
        given = iter(saved)
        layers = tuple(
            (kind, layer, tuple(None if p is None else next(given) for p in own)) for kind, layer, own in ride.layers
        )
        if torch.is_grad_enabled():
            gradients = _differentiably(ride, layers, x, (by_logits, by_quotient))
        else:
            if not ctx.kept:  # a second backward
                through(layers, x, ctx.kept)
            gradient = torch.cat((by_logits, cotangent * by_quotient))
            gradients = _pull_back(layers, ctx.kept, gradient, ctx.needs_input_grad[4:])
        return (None, None, None, None, *gradients)


def _pull_back(
    layers: tuple[Layer, ...], kept: list[Tensors], gradient: Tensor, wanted: tuple[bool, ...]
) -> Iterable[Tensor | None]:
    """Return the gradients by the parameters; what is ``kept`` is let go layer by layer, as autograd does it."""
    gradients: list[Tensor | None] = [None] * len(wanted)
    left = len(wanted)
    for kind, layer, own in reversed(layers):
        tensors = kept.pop()
        if kind.slopes is not None:
            right = left
            left -= sum(p is not None for p in own)
            gradients[left:right] = kind.slopes(layer, own, tensors, gradient, wanted[left:right])
            if not any(wanted[:left]):
                break
        if kind.back_over is not None:
            gradient = kind.back_over(tensors, 0, gradient)
        else:
            gradient = kind.back(layer, own, tensors, 0, gradient)
    kept.clear()
    return gradients


def _differentiably(
    ride: _Ride, layers: tuple[Layer, ...], x: Tensor, gradients: tuple[Tensor, Tensor]
) -> Iterable[Tensor | None]:
    """Return the same by autograd, for those who want derivatives of it."""
    for kind, layer, own in layers:
        x, _ = kind.forward(layer, own, x)
    logits, output_u, output_v = torch.split(x, [ride.batch, 1, 1])
    steepest = quotient(output_u, output_v, ride.distance, ride.p_out).squeeze(0)
    parameters = [p for _, _, own in layers for p in own if p is not None]
    wanted = [p for p in parameters if p.requires_grad]
    found = iter(torch.autograd.grad((logits, steepest), wanted, gradients, create_graph=True, allow_unused=True))
    return tuple(next(found) if p.requires_grad else None for p in parameters)
