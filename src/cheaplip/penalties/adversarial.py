"""λ mean (L - K)₊ on pairs beside the minibatch: adversarial Lipschitz regularisation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from cheaplip.checks import number, whole_number
from cheaplip.modes import Model
from cheaplip.norms import norm_gradient, vector_norm
from cheaplip.penalties.minibatch import beside, gradient_at
from cheaplip.penalties.weighing import assign, check_power, check_weight


@final
class AdversarialLipschitzPenalty(nn.Module):
    """λ times the mean difference quotient between the images of a minibatch and points at a distance from them.

    The direction in which the output changes most is searched for by power iteration, from a random one at each call.
    A quotient counts for ``(L - K)₊^power``.

    Args:
        weight: λ, at least 0.
        distance: from an image to its point (2-norm), in units of the input, above 0.
        steps: of the power iteration, at least 1; each costs a forward and a backward of the minibatch.
        constant: K, at least 0: quotients below it cost nothing.
        power: 1 or 2.

    Raises:
        ValueError: for a value out of range.

    Reference: Terjék 2019, "Adversarial Lipschitz regularization", section 4.

    Example:
        >>> net = nn.Linear(3, 1)
        >>> _ = nn.init.constant_(net.weight, 2.0)
        >>> penalty = AdversarialLipschitzPenalty(weight=1.0, distance=0.5)
        >>> round(penalty(net, torch.rand(5, 3)).item(), 4)  # 2 √3
        3.4641
    """

    weight: Tensor
    value: Tensor

    needs_batch: ClassVar[bool] = True
    largest: ClassVar[bool] = True  # what its value is of the minibatch, where others have a mean

    __setattr__ = assign

    def __init__(
        self, *, weight: float, distance: float, steps: int = 1, constant: float = 0.0, power: int = 1
    ) -> None:
        super().__init__()
        self.distance = number(distance, "distance", above=0)
        self.steps, self.power = whole_number(steps, "steps"), check_power(power)
        self.constant = number(constant, "constant", low=0)
        self.register_buffer("weight", torch.tensor(check_weight(weight)))
        self.register_buffer("value", torch.tensor(0.0))

    def forward(self, model: Model, x: Tensor, *, modules: Iterable[nn.Module] | None = None) -> Tensor:
        """Return λ · mean (L - K)₊^power, as :meth:`joint` does."""
        return self.joint(model, x, modules=modules)[1]

    def joint(self, model: Model, x: Tensor, *, modules: Iterable[nn.Module] | None = None) -> tuple[Tensor, Tensor]:
        """Return the minibatch's outputs and λ · mean (L - K)₊^power, and keep the largest L in ``value``.

        Args:
            model: a module, wrapped or not, or any callable of its input.
            x: the minibatch ``(batch, *input)``.
            modules: the modules that a callable uses, if it does not close over them itself.

        Raises:
            ValueError: if ``x`` does not fit the model, or the output does not depend on it.
        """
        output, here, there = beside(model, x, self.search, modules)
        quotient = vector_norm(here - there) / self.distance
        self.value = quotient.detach().amax()
        excess = (quotient - self.constant).clamp_min(0.0)
        term = (excess if self.power == 1 else excess.square()).mean()
        return output, self.weight.to(term) * term

    def search(self, model: Model, x: Tensor, output: Tensor) -> Tensor:
        """Return the points, found for the outputs at ``x``."""
        direction = norm_gradient(torch.randn_like(x))
        for _ in range(self.steps):
            # ½ ‖f(x + r) - f(x)‖² has the gradient f(x + r) - f(x) by the output.
            point = x + self.distance * direction
            turned = gradient_at(model, point, lambda z: z - output)
            # Where nothing changes the output there is no better direction.
            moves = (vector_norm(turned) > 0).view(-1, *[1] * (x.dim() - 1))
            direction = torch.where(moves, norm_gradient(turned), direction)
        return x + self.distance * direction
