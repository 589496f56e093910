"""Algorithms 1 and 2 of the paper, literally and slowly: the oracle that the fast code is tested against.

Everything is a plain function of plain tensors, one pair at a time. Nothing here is meant for training.

Reference: Bungert, Raab, Roith, Schwinn, Tenbrinck 2021, arXiv 2103.12531.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn


@final
@dataclass
class Pair:
    """One element of X_Lip, its step size τ and the quotient that it had before its last move."""

    x: Tensor
    x_prime: Tensor
    tau: float
    previous: float = 0.0


def difference_quotient(f: Callable[[Tensor], Tensor], x: Tensor, x_prime: Tensor) -> Tensor:
    """L(x, x') = ‖f(x) - f(x')‖ / ‖x - x'‖, Euclidean, for single samples.

    Example:
        >>> difference_quotient(lambda x: 2 * x, torch.zeros(2), torch.ones(2))
        tensor(2.)
    """
    change = f(x.unsqueeze(0)) - f(x_prime.unsqueeze(0))
    return change.square().sum().sqrt() / (x - x_prime).square().sum().sqrt()


def adversarial_update(f: Callable[[Tensor], Tensor], pair: Pair, grow: float, shrink: float) -> Pair:
    """Algorithm 1 for one pair: both points move by τ L ∇L, from the old values.

    The adaptive step: τ grows if the last move raised the pair's quotient (a pair that has not moved yet
    counts as raised), else it shrinks; then the pair moves.
    """
    x = pair.x.clone().requires_grad_()
    x_prime = pair.x_prime.clone().requires_grad_()
    quotient = difference_quotient(f, x, x_prime)
    gradient_x, gradient_x_prime = torch.autograd.grad(quotient, (x, x_prime))
    value = quotient.item()
    tau = pair.tau * (grow if value > pair.previous else shrink)
    moved_x = pair.x + tau * value * gradient_x
    moved_x_prime = pair.x_prime + tau * value * gradient_x_prime
    return Pair(moved_x, moved_x_prime, tau, value)


def lipschitz_constant(f: Callable[[Tensor], Tensor], pairs: list[Pair]) -> Tensor:
    """Equation (5): the largest difference quotient over the pairs."""
    return torch.stack([difference_quotient(f, pair.x, pair.x_prime) for pair in pairs]).max()


def clip_step(
    model: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    pairs: list[Pair],
    batch: tuple[Tensor, Tensor],
    weight: float,
    *,
    target: float,
    weight_step: float,
    grow: float,
    shrink: float,
    maximum: str = "after",
) -> tuple[list[Pair], float, float]:
    """One minibatch of Algorithm 2: move X_Lip, descend on loss + λ Lip(f, X_Lip), adapt λ.

    Args:
        model: f_θ.
        loss: of outputs and labels, averaged over the minibatch.
        optimizer: of θ; the paper's is SGD with momentum.
        pairs: X_Lip.
        batch: inputs and labels.
        weight: λ.
        target: α, the training accuracy to hold.
        weight_step: dλ.
        grow: the factor by which an adaptive step grows.
        shrink: the factor by which it shrinks.
        maximum: ``"after"``, over the moved pairs (the paper), or ``"before"``, over the pairs as they stood
            (one forward less; what the fast code does).

    Returns:
        The moved pairs, the new λ, and the Lip(f, X_Lip) that entered the loss.
    """
    x, y = batch
    moved = [adversarial_update(model, pair, grow, shrink) for pair in pairs]
    lipschitz = lipschitz_constant(model, moved if maximum == "after" else pairs)
    output = model(x)
    objective = loss(output, y) + weight * lipschitz
    optimizer.zero_grad()
    torch.autograd.backward(objective)
    optimizer.step()
    accuracy = float((output.argmax(1) == y).double().mean())
    weight = weight + weight_step if accuracy > target else max(0.0, weight - weight_step)
    return moved, weight, lipschitz.item()
