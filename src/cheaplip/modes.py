"""Run a model with its statistics frozen, and see through wrappers around it.

The adversarial update evaluates the network many times on points that are no training data. BatchNorm must
not learn from them and Dropout must not blur them, so pairs see the network as it is in eval mode.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

Model: TypeAlias = "nn.Module | Callable[[Tensor], Tensor]"


def unwrap(model: Model) -> Model:
    """Return the user's own module behind DistributedDataParallel, DataParallel or Lightning Fabric.

    A compiled module stays compiled: it shares its parameters with the plain one.

    Example:
        >>> net = nn.Linear(2, 2)
        >>> unwrap(nn.DataParallel(net)) is net
        True
    """
    while _is_wrapper(type(model)):
        model = model.module  # type: ignore[union-attr, assignment]
    return model


# Asked at every step, so remembered.
_WRAPPERS: dict[type, bool] = {}


def _is_wrapper(kind: type) -> bool:
    if kind not in _WRAPPERS:
        wrapper = issubclass(kind, (nn.parallel.DistributedDataParallel, nn.DataParallel)) or _is_fabric(kind)
        _WRAPPERS[kind] = wrapper
    return _WRAPPERS[kind]


def _is_fabric(kind: type) -> bool:
    # By name, so that the library does not import Lightning Fabric.
    return kind.__name__ == "_FabricModule" and kind.__module__.startswith("lightning")


def runs_in_low_precision(model: Model) -> bool:
    """Tell whether calling the model now would compute below float32, by autocast or by its wrapper."""
    if torch.is_autocast_enabled() or torch.is_autocast_enabled("cpu"):
        return True
    if not (_is_wrapper(type(model)) and _is_fabric(type(model))):
        return False
    precision: Any = model._strategy.precision.precision  # type: ignore[union-attr]
    return precision not in ("32-true", "64-true")


def modules_of(model: Model, modules: Iterable[nn.Module] | None = None) -> tuple[nn.Module, ...]:
    """Return the modules inside a model: itself, or those that a callable closes over.

    Args:
        model: a module or any callable of a tensor.
        modules: the modules that a callable uses, if they cannot be read off its closure.

    Raises:
        TypeError: if ``modules`` holds something else, or ``model`` cannot be called.

    Example:
        >>> net = nn.Linear(2, 2)
        >>> modules_of(lambda x: x - net(x)) == (net,)
        True
    """
    if modules is not None:
        found = tuple(modules)
        for module in found:
            if not isinstance(module, nn.Module):
                raise TypeError(f"modules must hold torch.nn.Module objects; got {type(module).__name__}")
        return tuple(m for m in map(unwrap, found) if isinstance(m, nn.Module))
    model = unwrap(model)
    if isinstance(model, nn.Module):
        return (model,)
    if not callable(model):
        raise TypeError(f"model must be a torch.nn.Module or a callable; got {type(model).__name__}")
    return tuple(m for m in map(unwrap, _closed_over(model)) if isinstance(m, nn.Module))


def _closed_over(function: Callable[..., Any]) -> Iterator[Any]:
    """Yield what a function, method or partial refers to: arguments, cells and the globals that it names."""
    if isinstance(function, functools.partial):
        yield from (function.func, *function.args, *function.keywords.values())
        yield from _closed_over(function.func)
    if (owner := getattr(function, "__self__", None)) is not None:
        yield owner
    code = getattr(function, "__code__", None)
    if code is None:
        return
    for cell in getattr(function, "__closure__", None) or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a cell that is not filled yet
            continue
    names = getattr(function, "__globals__", {})
    yield from (names[name] for name in code.co_names if name in names)


# Whether a layer of a type may compute something else in train mode: asked at every step, so remembered.
_MAY_DIFFER: dict[type[nn.Module], bool] = {}


def _may_differ(kind: type[nn.Module]) -> bool:
    if kind not in _MAY_DIFFER:
        known = (
            nn.modules.batchnorm._NormBase,
            nn.modules.dropout._DropoutNd,
            nn.RNNBase,
            nn.MultiheadAttention,
            nn.RReLU,
        )
        _MAY_DIFFER[kind] = issubclass(kind, known) or _reads_training(kind)
    return _MAY_DIFFER[kind]


def _reads_training(kind: type[nn.Module]) -> bool:
    """Tell whether a user's own layer looks at its ``training`` flag."""
    own = [base for base in kind.__mro__ if not base.__module__.startswith("torch.")]
    names = [getattr(getattr(m, "__code__", None), "co_names", ()) for base in own for m in vars(base).values()]
    return any("training" in of_method for of_method in names)


def _differs(layer: nn.Module) -> bool:
    """Tell whether one layer in train mode computes something else than in eval mode."""
    if isinstance(layer, nn.modules.batchnorm._NormBase):
        # InstanceNorm without running statistics is the same in both modes; BatchNorm always looks at its batch.
        return layer.track_running_stats or isinstance(layer, nn.modules.batchnorm._BatchNorm)
    if isinstance(layer, nn.modules.dropout._DropoutNd):
        return layer.p > 0
    if isinstance(layer, (nn.RNNBase, nn.MultiheadAttention)):
        return layer.dropout > 0
    return True


def differs_in_training(modules: Iterable[nn.Module]) -> bool:
    """Tell whether the modules, as they stand, compute something else than in eval mode.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
        >>> differs_in_training([net]), differs_in_training([net.eval()])
        (True, False)
    """
    # Several times faster than module.modules(), which would be felt in the step of a small network.
    stack: list[nn.Module | None] = list(modules)
    while stack:
        layer = stack.pop()
        if layer is not None:
            if layer.training and _may_differ(type(layer)) and _differs(layer):
                return True
            stack.extend(layer._modules.values())
    return False


@contextmanager
def frozen(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Run modules as in eval mode, with autocast off, and leave no trace: flags are restored on the way out.

    Recurrent layers keep their train flag (cuDNN refuses a backward in eval mode) and lose their dropout instead.

    Example:
        >>> net = nn.Dropout(0.5)
        >>> with frozen([net]):
        ...     net(torch.ones(3)), net.training
        (tensor([1., 1., 1.]), False)
        >>> net.training
        True
    """
    layers = {layer: None for module in modules for layer in module.modules() if layer.training}
    recurrent = [(layer, layer.dropout) for layer in layers if isinstance(layer, nn.RNNBase)]
    try:
        for layer in layers:
            if isinstance(layer, nn.RNNBase):
                layer.dropout = 0.0
            else:
                layer.training = False
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            yield
    finally:
        for layer in layers:
            layer.training = True
        for layer, dropout in recurrent:
            layer.dropout = dropout


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Put modules in eval mode with parameters that ask for no gradient; restore both on the way out.

    Example:
        >>> net = nn.Linear(2, 2)
        >>> with evaluating(net):
        ...     net.training, net.weight.requires_grad
        (False, False)
        >>> net.training, net.weight.requires_grad
        (True, True)
    """
    layers = [layer for module in modules for layer in module.modules() if layer.training]
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    try:
        for layer in layers:
            layer.training = False
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for layer in layers:
            layer.training = True
        for parameter in parameters:
            parameter.requires_grad_(True)
