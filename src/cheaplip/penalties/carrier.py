"""A model that takes the pairs along where an adversary asks for a gradient by its input."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, final

import torch
from torch import Tensor, nn

from cheaplip.modes import Model, frozen
from cheaplip.pairs import Measurement, Pairs
from cheaplip.pairs.steepness import apply
from cheaplip.penalties.minibatch import check_fits

# An attack, as `fit` takes one.
Adversary: TypeAlias = Callable[[Any, Tensor, Any], Tensor]


def attacked(
    adversary: Adversary | None,
    model: Model,
    modules: Iterable[nn.Module],
    x: Tensor,
    y: Tensor | None,
    pairs: Pairs | None,
) -> tuple[Tensor, Measurement | None]:
    """Return an adversary's points, and the measurement of the pairs if they came along.

    Args:
        adversary: ``(model, x, y) -> x_adv``; None leaves ``x`` as it is.
        model: what it attacks.
        modules: inside the model; their statistics stay frozen.
        x: the minibatch.
        y: its labels.
        pairs: to take along, where the model is the same in train mode as in eval mode; None for none.
    """
    if adversary is None:
        return x, None
    if pairs is not None:
        carrier = Carrier(model, pairs)
        adversarial, measured = adversary(carrier, x, y), carrier.measured
    else:
        with frozen(modules):
            adversarial, measured = adversary(model, x, y), None
    check_fits(adversarial, x)
    return adversarial, measured


@final
class Carrier(nn.Module):
    """The model as an adversary sees it; the first gradient that it asks for serves the pairs as well.

    At the first call whose input wants a gradient the pairs stand behind the adversary's points, and the backward that
    follows pulls back the gradients of both. The adversary sees its own outputs and gets its own gradient, nothing
    else. The model must treat each sample alone.

    Args:
        model: any function of a batch.
        pairs: which are to be measured where they stand.
    """

    def __init__(self, model: Model, pairs: Pairs) -> None:
        super().__init__()
        self.training = False
        self.model = model
        self._pairs = (pairs,)  # no submodule: an adversary has no business with them
        self.boarded = False
        self.measured: Measurement | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs at ``x``."""
        (pairs,) = self._pairs
        if self.boarded or not (torch.is_grad_enabled() and x.requires_grad) or x.shape[1:] != pairs.points.shape[1:]:
            return apply(self.model, x)
        self.boarded = True
        joined, own = torch.cat([x, pairs.points]), len(x)
        output = apply(self.model, joined)
        slopes = pairs.slopes(output.detach()[own:])

        def get_in(gradient: Tensor) -> Tensor:
            return torch.cat([gradient[:own], slopes.cotangent])

        def get_out(gradient: Tensor) -> None:
            if self.measured is None:
                rise = slopes.ascent(gradient.detach()[own:].clone())
                self.measured = Measurement.of(slopes.value, pairs.apart(), rise)

        if output.requires_grad:
            output.register_hook(get_in)  # type: ignore[no-untyped-call]
            joined.register_hook(get_out)  # type: ignore[no-untyped-call]
        return output[:own]
