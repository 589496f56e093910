"""Models whose parameters are spread over the processes (FSDP2): their states, whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import nn


def is_sharded(model: nn.Module) -> bool:
    """Tell whether a model's parameters are spread over the processes, as ``fully_shard`` does.

    Example:
        >>> is_sharded(nn.Linear(2, 2))
        False
    """
    # By name, as the class has moved between versions of PyTorch.
    return any(type(parameter).__name__ == "DTensor" for parameter in model.parameters())


@final
@dataclass(frozen=True)
class Whole:
    """A model's state, or its optimizer's, as it would be without sharding; every process has to ask for it.

    Args:
        model: the model.
        optimizer: the state of this one is meant; None for the model's own.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state, on the CPU."""
        from torch.distributed.checkpoint import state_dict as states

        # Without cpu_offload, which gives the state to the first process alone.
        options = states.StateDictOptions(full_state_dict=True)
        if self.optimizer is None:
            return dict(states.get_model_state_dict(self.model, options=options))
        return dict(states.get_optimizer_state_dict(self.model, self.optimizer, options=options))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Give each process its share of a whole state, which all of them have."""
        from torch.distributed.checkpoint import state_dict as states

        options = states.StateDictOptions(full_state_dict=True)
        if self.optimizer is None:
            states.set_model_state_dict(self.model, state, options=options)
        else:
            states.set_optimizer_state_dict(self.model, self.optimizer, state, options=options)


def states_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return what has the states of model and optimizer, by name.

    Example:
        >>> net = nn.Linear(2, 2)
        >>> states_of(net, torch.optim.SGD(net.parameters()))["model"] is net
        True
    """
    if is_sharded(model):
        return {"model": Whole(model), "optimizer": Whole(model, optimizer)}
    return {"model": model, "optimizer": optimizer}
