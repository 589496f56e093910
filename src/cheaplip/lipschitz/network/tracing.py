"""Follow one call of a model (torch.fx): which modules and functions it calls, on what."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor, fx, nn
from torch.nn.modules import module as of_torch
from torch.nn.utils.parametrize import type_before_parametrizations

from cheaplip.lipschitz.network.registry import OURS, RULES
from cheaplip.modes import Model, unwrap

REMEDY = (
    "put it in a module of your own and tell its constant by @cheaplip.lipschitz.register, or use lower(...), which "
    "takes any model"
)


# Where the forwards of torch's layers are written; a class may be patched as a whole.
_TORCHS = nn.Module.train.__code__.co_filename.removesuffix("module.py")


def trace(root: Root) -> fx.Graph:
    """Return the calls of a model.

    Raises:
        TypeError: naming a module that changes outputs unseen or is not understood; or if the forward looks at numbers.
    """
    for name, module in root.inner.named_modules():
        _check_plain(name, module)
    try:
        return _Tracer().trace(root)
    except _NotUnderstoodError as error:
        raise TypeError(str(error)) from None
    except Exception as error:  # whatever a forward raises that is given no numbers
        reason = str(error).strip().partition("\n")[0]
        raise TypeError(
            f"the model's forward cannot be followed: {reason}; an upper bound needs a forward that does not look at "
            f"numbers, and makes tensors by x.new_zeros(...) instead of torch.zeros(len(x), ...): {REMEDY}"
        ) from error


def module_of(model: Model) -> nn.Module:
    """Return the module behind wrappers and torch.compile, or raise for a function."""
    inner = unwrap(model)
    inner = getattr(inner, "_orig_mod", inner)
    if not isinstance(inner, nn.Module):
        raise TypeError(
            f"an upper bound needs a torch.nn.Module whose layers can be read; got {type(inner).__name__}: "
            "lower(...) takes any function"
        )
    return inner


def _check_plain(name: str, module: nn.Module) -> None:
    """Raise for what changes outputs and cannot be seen: hooks, and methods of one object alone."""
    if of_torch._global_forward_hooks or of_torch._global_forward_pre_hooks:
        raise TypeError("global forward hooks are set, which may change any layer's output: remove them")
    called = called_by(name, type_before_parametrizations(module).__name__)
    if module._forward_hooks or module._forward_pre_hooks:
        raise TypeError(
            f"{called} has forward hooks, which may change its output: remove them; "
            "weight_norm and spectral_norm of torch.nn.utils.parametrizations do without"
        )
    kind = type_before_parametrizations(module)
    code = getattr(type(module).forward, "__code__", None)
    if kind in OURS and (code is None or not code.co_filename.startswith(_TORCHS)):
        raise TypeError(f"{called} has another forward than torch's, which is not understood: {REMEDY}")
    own = [entry for entry in vars(module) if callable(getattr(type(module), entry, None))]
    if own:
        raise TypeError(f"{called} has its own {', '.join(own)}: the bound knows its type's alone")


def called_by(name: str, kind: str) -> str:
    """Return how an error calls a module."""
    return f"module {name!r} ({kind})" if name else f"the model ({kind})"


@final
class _NotUnderstoodError(TypeError):
    """A layer of torch that no rule is known for."""


@final
class Root(nn.Module):
    """Calls the model, so that the model itself may be a layer."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Any:
        """Return what the model does."""
        return self.inner(x)

    def inputs(self, x: Tensor) -> Tensor:
        """Return numbers as inputs of the model, of the dtype and on the device of its first floating tensor."""
        like = next((t for t in [*self.parameters(), *self.buffers()] if t.is_floating_point()), torch.zeros(()))
        return x.to(like)


@final
class _Tracer(fx.Tracer):
    """Steps into every module that no rule is known for."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Tell whether a rule is known for a module; raise for one of torch's own that has none."""
        kind = type_before_parametrizations(m)
        if kind in RULES:
            return True
        if kind.__module__.startswith("torch.nn.") and kind not in (nn.Sequential, nn.ModuleList, nn.ModuleDict):
            called = called_by(called_in(module_qualified_name), kind.__name__)
            raise _NotUnderstoodError(f"{called} is not understood: {REMEDY}")
        return False


def called_in(name: str) -> str:
    """Return the name that a module has in the user's model."""
    return name.removeprefix("inner").removeprefix(".")


@contextmanager
def untouched(root: Root) -> Iterator[None]:
    """Give all modules back what they hold, and buffers their numbers: a forward may remember what it is given."""
    dictionaries: list[dict[str, Any]] = []
    for module in root.modules():
        inside = (vars(module), module._parameters, module._buffers, module._modules)
        dictionaries += [entry for entry in inside if isinstance(entry, dict)]  # others are of compiled modules
    held = [dict(dictionary) for dictionary in dictionaries]
    numbers = [(buffer, buffer.detach().clone()) for buffer in root.buffers()]
    try:
        yield
    finally:
        for dictionary, before in zip(dictionaries, held, strict=True):
            dictionary.clear()
            dictionary.update(before)
        with torch.no_grad():
            for buffer, value in numbers:
                if not buffer.is_inference() and not torch.equal(buffer, value):
                    buffer.copy_(value)


def check_finite(layer: nn.Module) -> None:
    """Raise where a layer's weights are not finite, or one of torch's has complex ones."""
    made = [tensor for name in ("weight", "bias") if isinstance(tensor := getattr(layer, name, None), Tensor)]
    real = type_before_parametrizations(layer) in OURS
    for tensor in [*layer.parameters(), *layer.buffers(), *made]:
        if (real and tensor.is_complex()) or not bool(torch.isfinite(tensor).all()):
            raise ValueError("it must have finite real weights; got NaN, infinite or complex ones")
