"""What lies between a library and the rest of the process: its import, the model that it sees, its random draws."""

from __future__ import annotations

import importlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor

from cheaplip.attacks.libraries.frame import Frame
from cheaplip.attacks.losses import check_output
from cheaplip.attacks.protocol import device_of
from cheaplip.attacks.search import NAN
from cheaplip.modes import Model

Logits = Callable[[Tensor], Tensor]

SILENT = logging.Logger("silent", logging.CRITICAL + 1)  # not registered: no handler of the user's hears it


def library(name: str) -> Any:
    """Import a module of an attack library, in silence.

    Raises:
        ImportError: where it is missing, naming the extra.

    Example:
        >>> library("no_such_library")
        Traceback (most recent call last):
        ...
        ImportError: this attack needs no_such_library: pip install "cheaplip[attacks]"
    """
    refresh = os.environ.get("GIT_PYTHON_REFRESH")
    os.environ["GIT_PYTHON_REFRESH"] = "quiet"  # foolbox imports GitPython, which refuses machines without git
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise ImportError(f'this attack needs {package}: pip install "cheaplip[attacks]"') from None
    finally:
        if refresh is None:
            os.environ.pop("GIT_PYTHON_REFRESH", None)
        else:
            os.environ["GIT_PYTHON_REFRESH"] = refresh


@final
class _InputGradient(torch.autograd.Function):
    """A model whose backward ends at its input: no parameter's ``.grad`` is touched, whoever asks for it."""

    @staticmethod
    def forward(ctx: Any, unit: Tensor, ask: Logits) -> Tensor:
        with torch.enable_grad():
            ctx.leaf = unit.detach().requires_grad_()
            ctx.output = ask(ctx.leaf)
        if not ctx.output.requires_grad:
            raise ValueError(_NO_GRADIENT)
        output: Tensor = ctx.output.detach().clone()
        return output

    @staticmethod
    def backward(ctx: Any, *by_output: Tensor) -> tuple[Tensor, None]:
        (gradient,) = torch.autograd.grad(ctx.output, ctx.leaf, by_output[0], retain_graph=True, allow_unused=True)
        if gradient is None:
            raise ValueError(_NO_GRADIENT)
        if bool(gradient.sum().isnan()):
            raise ValueError(NAN.format("the model's gradient by its input"))
        return gradient, None


_NO_GRADIENT = (
    "the model's output does not depend on its input in a differentiable way, so there is no gradient to follow: take "
    "a model without detach, argmax or no_grad inside, or an attack without gradients, such as square or hopskipjump"
)


def logits_of(model: Model, frame: Frame, classes: int) -> Logits:
    """Return the model as a library sees it: float32 logits of points of the unit box, which it may write to.

    Args:
        model: the user's.
        frame: the way to the images.
        classes: how many logits there are, for batches without a sample, which the model is spared.
    """

    def ask(unit: Tensor) -> Tensor:
        z: Tensor = model(frame.image(unit))
        check_output(z, unit, regression=False)
        return z.float()

    def logits(unit: Tensor) -> Tensor:
        if not len(unit):
            return unit.new_zeros(0, classes)
        if torch.is_grad_enabled() and unit.requires_grad:
            z: Tensor = _InputGradient.apply(unit, ask)  # type: ignore[no-untyped-call]
            return z
        with torch.no_grad():
            return ask(unit).clone()

    return logits


@contextmanager
def set_aside(generator: torch.Generator | None) -> Iterator[int]:
    """Set torch's random state and the root logger aside, and give a seed drawn from the generator or that state.

    Libraries reseed torch, on every device, and may configure the root logger by their first message.

    Example:
        >>> with set_aside(torch.Generator().manual_seed(0)) as seed:
        ...     torch.manual_seed(seed) is not None
        True
    """
    device = device_of(generator, torch.device("cpu"))
    seed = int(torch.randint(2**31 - 1, (1,), generator=generator, device=device))
    root, deaf = logging.getLogger(), logging.NullHandler()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    root.addHandler(deaf)
    try:
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            yield seed
    finally:
        root.removeHandler(deaf)
