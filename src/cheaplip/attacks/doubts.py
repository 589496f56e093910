"""Reasons to doubt what a gradient attack reports: it may have been blind."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, final

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from cheaplip.attacks.losses import LOSSES, check_call, check_classes, check_output
from cheaplip.modes import Model

# Functions that squash what they get, and those whose outputs are logits again.
SQUASHING = ("sigmoid", "sigmoid_", "expit", "softmax", "tanh", "tanh_", "hardsigmoid", "hardtanh", "softsign")
LINEAR = ("linear", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "einsum", "bilinear", "cdist")
# Outputs this close to an end of their range, relative to it, are at that end; so many of them are suspicious.
END, PILE = 1e-3, 0.5


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
        ('the model ends with sigmoid: attack the logits that go into it',)
    """
    y = check_call(model, x, y)
    found = []
    ending = Ending()
    with torch.enable_grad(), ending:
        leaf = x.detach().clone().requires_grad_()
        output = model(leaf)
    check_output(output, y, regression=False)
    if bool(output.isnan().any()):
        raise ValueError("the model's output is NaN: check its weights and the data")
    if not output.requires_grad:
        return ("the model's output has no gradient by its input: only attacks without gradients can break it",)
    check_classes(output, y)
    z = output.detach()
    (gradient,) = torch.autograd.grad(output, leaf, LOSSES["cross-entropy"](z, y, y))
    with torch.no_grad():
        again = model(x)
    if ending.squashed:
        found.append(f"the model ends with {ending.squashed}: attack the logits that go into it")
    elif bool(((z >= 0) & (z <= 1)).all()):
        found.append("the model's outputs lie in [0, 1], like probabilities: attack the logits before that")
    elif _piled(z):
        found.append("the model's outputs pile up at their least and largest value: attack the logits before that")
    blind = int((gradient.flatten(1) == 0).all(1).sum())
    if 10 * blind > len(x):
        found.append(f"the gradient is exactly zero at {blind} of {len(x)} images: attacks along it are blind there")
    # The same call twice may round differently on a GPU, random layers differ by far more.
    if not torch.allclose(z, again, rtol=1e-2, atol=1e-2 * float(z.abs().max())):
        found.append("the model's output is random: attacks need the average over many draws")
    return tuple(found)


@final
class Ending(TorchFunctionMode):
    """Within it, the last squashing function is remembered that no linear layer follows.

    Example:
        >>> with Ending() as ending:
        ...     y = torch.sigmoid(torch.ones(1, 2) @ torch.ones(2, 2))
        >>> ending.squashed
        'sigmoid'
    """

    def __init__(self) -> None:
        super().__init__()
        self.squashed = ""

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the function, and look at its name."""
        name = getattr(func, "__name__", "")
        if name in SQUASHING:
            self.squashed = name.strip("_")
        elif name in LINEAR or name.startswith("conv"):
            self.squashed = ""
        return func(*args, **(kwargs or {}))


def _piled(z: Tensor) -> bool:
    """Tell whether most outputs are at the ends of their range, and some at each."""
    low, high = z.aminmax()
    margin = END * (high - low)
    at_low, at_high = z <= low + margin, z >= high - margin
    return bool(at_low.sum() > 1 and at_high.sum() > 1 and (at_low | at_high).double().mean() > PILE)
