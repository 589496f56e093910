"""β KL(f(x) ‖ f(x')): TRADES."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cheaplip.attacks.protocol import checked_count, checked_eps, checked_norm, plain_box
from cheaplip.attacks.region import Region
from cheaplip.attacks.search import steepest
from cheaplip.modes import Model
from cheaplip.norms import Box
from cheaplip.penalties.minibatch import beside, gradient_at
from cheaplip.penalties.weighing import assign, check_weight

# The search starts this far from the image in each coordinate, as it does in the paper.
START = 1e-3


@final
class TradesPenalty(nn.Module):
    """β times how far the class probabilities of a minibatch can be driven from where they are.

    The mean of KL(f(x) ‖ f(x')), where x' is searched for in a ball around x by steps up this very divergence. No label
    is looked at, so that the loss of the clean images stays what asks for accuracy.

    Args:
        eps: radius of the ball, in units of the input, above 0.
        weight: β, at least 0; the paper takes 1 to 6.
        norm: 1, 2 or inf, of the ball.
        steps: of the search, at least 1.
        step: their length, in units of the input; None for ``2.5 * eps / steps``.
        box: ``(low, high)``, numbers or one number per channel, in which images lie and x' stays; None for no box.

    Raises:
        ValueError: for a value out of range.

    Reference: Zhang et al. 2019, "Theoretically principled trade-off between robustness and accuracy", Algorithm 1.

    Example:
        >>> net, x = nn.Linear(4, 3), torch.rand(5, 4)
        >>> logits, term = TradesPenalty(0.5, weight=6.0, steps=3).joint(net, x)
        >>> logits.shape, bool(term > 0)
        (torch.Size([5, 3]), True)
    """

    weight: Tensor
    value: Tensor

    needs_batch: ClassVar[bool] = True

    __setattr__ = assign

    def __init__(
        self,
        eps: float,
        *,
        weight: float,
        norm: float | str = 2,
        steps: int = 10,
        step: float | None = None,
        box: Box | None = (0.0, 1.0),
    ) -> None:
        super().__init__()
        self.eps, self.norm, self.box = checked_eps(eps), checked_norm(norm), plain_box(box)
        self.steps = checked_count(steps, "steps")
        self.step = 2.5 * self.eps / self.steps if step is None else checked_eps(step, "step")
        self.register_buffer("weight", torch.tensor(check_weight(weight)))
        self.register_buffer("value", torch.tensor(0.0))

    def forward(self, model: Model, x: Tensor, *, modules: Iterable[nn.Module] | None = None) -> Tensor:
        """Return β · KL, as :meth:`joint` does."""
        return self.joint(model, x, modules=modules)[1]

    def joint(self, model: Model, x: Tensor, *, modules: Iterable[nn.Module] | None = None) -> tuple[Tensor, Tensor]:
        """Return the minibatch's logits and β · KL, and keep KL in ``value``.

        Args:
            model: a module, wrapped or not, or any callable of its input.
            x: the minibatch ``(batch, *input)``.
            modules: the modules that a callable uses, if it does not close over them itself.

        Raises:
            ValueError: if the model does not return logits, or ``x`` is outside the box.
        """
        output, clean, moved = beside(model, x, self.search, modules)
        divergence = F.kl_div(moved.log_softmax(1), clean.log_softmax(1), reduction="batchmean", log_target=True)
        self.value = divergence.detach()
        return output, self.weight.to(divergence) * divergence

    def search(self, model: Model, x: Tensor, logits: Tensor) -> Tensor:
        """Return x', found for the logits at ``x``."""
        if logits.dim() != 2 or logits.shape[1] < 2:
            raise ValueError(f"the model must return logits (batch, classes), classes >= 2; got {tuple(logits.shape)}")
        region, now = Region(x, self.norm, self.eps, self.box), logits.softmax(1)
        point = region.project_(x + START * torch.randn_like(x))
        for _ in range(self.steps):
            # KL(p ‖ softmax(z)) has the gradient softmax(z) - p by z.
            gradient = gradient_at(model, point, lambda z: z.softmax(1) - now)
            point = region.project_(steepest(point, gradient, self.norm, self.step))
        return region.cut_(point)
