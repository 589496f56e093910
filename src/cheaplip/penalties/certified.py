"""Training towards certificates: a penalty on a proven form of bound, and a loss that demands certified margins."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from cheaplip.attacks.losses import check_call, check_classes
from cheaplip.modes import Model
from cheaplip.penalties.differentiable import BOUNDS, Layer, chain_of, pairwise, spread
from cheaplip.penalties.weighing import assign, check_power, check_weight


@final
class UpperBoundPenalty(nn.Module):
    """λ times an upper bound of Lip(f), differentiable in the weights.

    The bound is computed in the weights' own precision, so that it is a training signal; what it is worth afterwards,
    :func:`cheaplip.lipschitz.upper` proves.

    Args:
        model: a chain of ``Linear`` layers and activations, see :func:`cheaplip.penalties.differentiable.chain_of`.
        weight: λ, at least 0.
        bound: ``"eclipse"`` (ECLipsE-Fast) or ``"product"`` of exact layer norms, for p = 2.
        power: 1 or 2.

    Raises:
        TypeError: naming the layer that is not understood.
        ValueError: for a value out of range.

    Reference: Bungert et al. 2021, equation 4; Xu and Sivaranjani 2024.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Sigmoid(), nn.Linear(2, 2))
        >>> _ = nn.init.eye_(net[0].weight), nn.init.eye_(net[2].weight)
        >>> round(UpperBoundPenalty(net, weight=1.0)(net).item(), 6)
        0.25
    """

    weight: Tensor
    value: Tensor

    __setattr__ = assign

    def __init__(self, model: nn.Module, *, weight: float, bound: str = "eclipse", power: int = 1) -> None:
        super().__init__()
        first = chain_of(model)[0].linear.weight
        self.power, self.bound = check_power(power), _check_bound(bound)
        self.register_buffer("weight", torch.tensor(check_weight(weight), device=first.device))
        self.register_buffer("value", torch.tensor(0.0, device=first.device))

    def forward(self, model: Model) -> Tensor:
        """Return λ · bound^power, and keep the bound in ``value``."""
        square = torch.linalg.eigvalsh(spread(chain_of(model), self.bound))[-1]
        square = square.clamp_min(torch.finfo(square.dtype).tiny ** 0.5)
        self.value.copy_(square.detach().sqrt())
        weighed: Tensor = self.weight * (square.sqrt() if self.power == 1 else square)
        return weighed


@final
class MarginLoss(nn.Module):
    """Cross-entropy of the worst logits that any change up to ε can make, by a proven form of bound.

    Logit j is raised by ``ε Lip(f_y - f_j)`` before the cross-entropy is taken. So training goes on until classes lead
    by as much as a certificate for the radius ε needs. ε is called ``weight``, so that a
    :class:`cheaplip.Discrepancy` can raise it while the training accuracy holds its target.

    Args:
        model: as for :class:`UpperBoundPenalty`; the loss reads its weights at every call.
        weight: ε, the radius in units of the input (2-norm), at least 0.
        bound: ``"eclipse"`` or ``"product"``.
        ramp: over so many calls in train mode ε rises from 0 to its value.

    Raises:
        TypeError: naming the layer that is not understood.
        ValueError: for a value out of range.

    Reference: Leino, Wang, Fredrikson 2021, "Globally-robust neural networks", for bounds by a product of layers.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> loss, logits, y = MarginLoss(net, weight=0.5), torch.zeros(1, 2), torch.tensor([0])
        >>> loss(logits, y) > nn.functional.cross_entropy(logits, y)
        tensor(True)
    """

    weight: Tensor
    calls: Tensor

    __setattr__ = assign

    def __init__(self, model: nn.Module, *, weight: float, bound: str = "eclipse", ramp: int = 0) -> None:
        super().__init__()
        if isinstance(ramp, bool) or not isinstance(ramp, int) or ramp < 0:
            raise ValueError(f"ramp must be a whole number of at least 0; got {ramp!r}")
        self.bound, self.ramp = _check_bound(bound), ramp
        self._layers: tuple[Layer, ...] = tuple(chain_of(model))
        place = self._layers[0].linear.weight.device
        self.register_buffer("weight", torch.tensor(check_weight(weight), device=place))
        self.register_buffer("calls", torch.tensor(0, device=place))

    def forward(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the loss, a scalar.

        Args:
            logits: ``(n, classes)``.
            y: labels, whole numbers ``(n,)``.
        """
        check_call(self, logits, y)
        radius = self.weight
        if self.training and self.ramp:
            radius = radius * (self.calls / self.ramp).clamp_max(1.0)
            self.calls += 1
        constants = pairwise(spread(list(self._layers), self.bound))
        if logits.dim() != 2 or logits.shape[1] != len(constants):
            raise ValueError(f"logits must have shape (n, {len(constants)}); got {tuple(logits.shape)}")
        if y.is_cpu:  # a look at a GPU's labels would make it wait
            check_classes(logits, y)
        return nn.functional.cross_entropy(logits + radius * constants[y], y)


def _check_bound(bound: str) -> str:
    if bound not in BOUNDS:
        raise ValueError(f"bound must be one of {', '.join(BOUNDS)}; got {bound!r}")
    return bound
