"""λ/2 ‖J‖²: Jacobian regularisation."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from cheaplip.checks import whole_number
from cheaplip.modes import Model, frozen
from cheaplip.norms import per_sample, vector_norm
from cheaplip.pairs.steepness import apply, widen
from cheaplip.penalties.minibatch import check_minibatch, look_at
from cheaplip.penalties.ranks import processes
from cheaplip.penalties.weighing import assign, check_weight


@final
class JacobianPenalty(nn.Module):
    """λ/2 times the squared Frobenius norm of the input-output Jacobian, the mean over a minibatch.

    For a unit vector v drawn anew for each image, ``classes · ‖Jᵀ v‖²`` is ‖J‖² on average: one backward instead of one
    per class, and another through it for the weights.

    Args:
        weight: λ, at least 0, in units of loss per unit of ‖J‖²; the paper takes 0.01 to 0.1.
        projections: vectors per image; None for all coordinates, where nothing is random.

    Raises:
        ValueError: for a value out of range.

    Reference: Hoffman, Roberts and Yaida 2019, "Robust learning with Jacobian regularization", Algorithm 1.

    Example:
        >>> net = nn.Linear(3, 2)
        >>> _ = nn.init.ones_(net.weight)
        >>> JacobianPenalty(weight=1.0, projections=None)(net, torch.rand(5, 3)).item()
        3.0
    """

    weight: Tensor
    value: Tensor

    needs_batch: ClassVar[bool] = True

    __setattr__ = assign

    def __init__(self, *, weight: float, projections: int | None = 1) -> None:
        super().__init__()
        self.projections = None if projections is None else whole_number(projections, "projections")
        self.register_buffer("weight", torch.tensor(check_weight(weight)))
        self.register_buffer("value", torch.tensor(0.0))

    def forward(self, model: Model, x: Tensor, *, modules: Iterable[nn.Module] | None = None) -> Tensor:
        """Return λ/2 · ‖J‖², as :meth:`joint` does."""
        return self.joint(model, x, modules=modules)[1]

    def joint(self, model: Model, x: Tensor, *, modules: Iterable[nn.Module] | None = None) -> tuple[Tensor, Tensor]:
        """Return the minibatch's outputs and λ/2 · ‖J‖², and keep ‖J‖² in ``value``.

        Args:
            model: a module, wrapped or not, or any callable of its input, twice differentiable.
            x: the minibatch ``(batch, *input)``.
            modules: the modules that a callable uses, if it does not close over them itself.

        Raises:
            ValueError: if ``x`` does not fit the model, or the output does not depend on it.
        """
        check_minibatch(x)
        inner, used, apart = look_at(model, modules)
        # What is compiled has no second derivative.
        plain = getattr(inner, "_orig_mod", inner)
        # Several processes exchange gradients only where the wrapper was called itself.
        compiled, wrapped = plain is not inner, inner is not model
        alone = apart or (compiled and wrapped and processes()[1] > 1)
        output = apply(model, x) if alone else None
        with torch.enable_grad(), frozen(used) if apart else nullcontext():
            leaf = x.detach().requires_grad_()
            seen = apply(plain if alone or compiled else model, leaf)
            square = self._square(widen(seen).flatten(1), leaf)
        output = seen if output is None else output
        self.value = square.detach()
        term = 0.5 * self.weight.to(square) * square
        return (output, term) if torch.is_grad_enabled() else (output.detach(), term.detach())

    def _square(self, output: Tensor, leaf: Tensor) -> Tensor:
        """Return ‖J‖², the mean over the samples."""
        classes = output.shape[1]
        if self.projections is None:
            vectors = list(torch.eye(classes).to(output).unsqueeze(1).expand(-1, len(output), -1))
        else:
            normal = [torch.randn_like(output) for _ in range(self.projections)]
            vectors = [v * per_sample((classes / self.projections) ** 0.5 / vector_norm(v), v) for v in normal]
        if not output.requires_grad:
            raise ValueError("the model's output does not depend on its input by any differentiable operation")
        slopes = [torch.autograd.grad(output, leaf, v, create_graph=True)[0] for v in vectors]
        return torch.stack([slope.square().sum() for slope in slopes]).sum() / len(output)
