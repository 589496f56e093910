"""μ ‖θ‖: weight regularisation."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from cheaplip.modes import Model, modules_of
from cheaplip.penalties.weighing import assign, check_power, check_weight


@final
class WeightPenalty(nn.Module):
    """μ times the Euclidean norm of all trainable parameters.

    Args:
        weight: μ, at least 0, in units of loss per unit of the norm.
        power: 1 (the paper) or 2 (weight decay).

    Raises:
        ValueError: for a value out of range.

    Reference: Bungert et al. 2021, equation 6.

    Example:
        >>> net = nn.Linear(4, 1, bias=False)
        >>> _ = nn.init.constant_(net.weight, 2.0)
        >>> WeightPenalty(weight=0.5)(net).item()
        2.0
    """

    weight: Tensor
    value: Tensor

    __setattr__ = assign

    def __init__(self, *, weight: float, power: int = 1) -> None:
        super().__init__()
        self.power = check_power(power)
        self.register_buffer("weight", torch.tensor(check_weight(weight)))
        self.register_buffer("value", torch.tensor(0.0))

    def forward(self, model: Model) -> Tensor:
        """Return μ · ‖θ‖^power, and keep ‖θ‖ in ``value``.

        Raises:
            ValueError: if the model has no trainable parameter.
        """
        parameters = {p: None for module in modules_of(model) for p in module.parameters() if p.requires_grad}
        if not parameters:
            raise ValueError("the weight penalty needs a model with trainable parameters; this one has none")
        norm: Tensor = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(p) for p in parameters]))
        self.value.copy_(norm.detach())
        return self.weight * (norm if self.power == 1 else norm.square())
