"""Reasons to doubt what a gradient attack reports: it may have been blind."""

from __future__ import annotations

import torch
from torch import Tensor

from cheaplip.attacks.losses import LOSSES, check_output
from cheaplip.modes import Model


def doubts(model: Model, x: Tensor, y: Tensor) -> tuple[str, ...]:
    """Look for what makes gradient attacks fail without the model being robust; one sentence per finding.

    Args:
        model: a classifier, in eval mode.
        x: images ``(n, *shape)``, one batch is enough.
        y: labels ``(n,)``, int64.

    Returns:
        Sentences; an empty tuple where nothing was found.

    Raises:
        ValueError: for a model that returns no logits.

    Reference: Carlini et al. 2019, "On Evaluating Adversarial Robustness"; Croce and Hein 2020.

    Example:
        >>> squashed = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Sigmoid())
        >>> doubts(squashed, torch.rand(4, 2), torch.zeros(4, dtype=torch.int64))
        ("the model's outputs lie in [0, 1], like probabilities: attack the logits before the last activation",)
    """
    found = []
    with torch.enable_grad():
        leaf = x.detach().clone().requires_grad_()
        output = model(leaf)
        check_output(output, y, regression=False)
        if not output.requires_grad:
            return ("the model's output has no gradient by its input: only attacks without gradients can break it",)
        z = output.detach()
        (gradient,) = torch.autograd.grad(output, leaf, LOSSES["cross-entropy"](z, y, y))
    with torch.no_grad():
        again = model(x)
    if bool(((z >= 0) & (z <= 1)).all()):
        found.append(
            "the model's outputs lie in [0, 1], like probabilities: attack the logits before the last activation"
        )
    blind = int((gradient.flatten(1) == 0).all(1).sum())
    if 10 * blind > len(x):
        found.append(f"the gradient is exactly zero at {blind} of {len(x)} images: attacks along it are blind there")
    # The same call twice may round differently on a GPU, random layers differ by far more.
    if not torch.allclose(z, again, rtol=1e-2, atol=1e-2 * float(z.abs().max())):
        found.append("the model's output is random: attacks need the average over many draws")
    return tuple(found)
