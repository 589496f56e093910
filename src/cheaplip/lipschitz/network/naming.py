"""Which function is called: by the function itself, as another of the same name may do anything."""

from __future__ import annotations

import builtins
import operator
from collections.abc import Iterable
from typing import Any

import torch
from torch import fx
from torch.nn import functional as F

# Python's own operators on tensors.
_OPERATORS = ["add", "iadd", "sub", "isub", "mul", "imul", "truediv", "itruediv", "matmul", "neg", "abs", "getitem"]
# Of the same name in torch and in torch.nn.functional, with other arguments in torch.
_OTHERS = {"batch_norm", "dropout", "alpha_dropout", "feature_alpha_dropout"}
# This in-place form takes factors that the function of its name does not.
_MORE = {"elu_"}
# What a value says of itself, whatever its numbers are.
_ATTRIBUTES = {"shape", "dtype", "device", "ndim"}
_QUESTIONS = {"size", "dim", "ndimension", "numel", "nelement", "is_floating_point"}
# Values of the same shape whose numbers are given by nothing else.
_LIKE = {"zeros_like": torch.zeros_like, "ones_like": torch.ones_like}
_NEW = {"new_zeros", "new_ones"}


def table(names: Iterable[str]) -> dict[Any, str]:
    """Return the functions of torch and of Python that have some names, and their in-place forms."""
    found: dict[Any, str] = {getattr(operator, name): name for name in _OPERATORS}
    for name in names:
        for home in (torch, F):
            for form in (name, f"{name}_"):
                function = getattr(home, form, None)
                if function is not None and not (home is torch and name in _OTHERS) and form not in _MORE:
                    found[function] = name
    return found


def name_of(target: Any) -> str:
    """Return the plain name of a function or method, for people: ``relu`` for ``torch.relu_`` and ``"relu"``."""
    name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    return name.rstrip("_") if not name.startswith("__") else name


def known_name(n: fx.Node, names: set[str], known: dict[Any, str]) -> str | None:
    """Return the name of what is called, if it is a method of such a name or one of the functions; None otherwise."""
    if n.op == "call_method":
        name = name_of(n.target)
        return name if name in names else None
    try:
        return known.get(n.target)
    except TypeError:  # a callable that cannot be looked up
        return None


def is_about(n: fx.Node) -> bool:
    """Tell whether a call gives what does not depend on a value's numbers, such as its shape."""
    if n.op == "call_method":
        return n.target in _QUESTIONS | set(_LIKE) | _NEW
    if n.op != "call_function":
        return False
    if n.target is builtins.getattr:
        return len(n.args) == 2 and n.args[1] in _ATTRIBUTES
    return any(n.target is function for function in (torch.numel, torch.is_floating_point, *_LIKE.values()))
