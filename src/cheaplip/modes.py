"""Run a model with its statistics frozen, and see through wrappers around it.

The adversarial update evaluates the network many times on points that are no training data. BatchNorm must
not learn from them and Dropout must not blur them, so pairs see the network as it is in eval mode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from cheaplip.sources import reachable, reads_training

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


_WRAPPERS: dict[type, bool] = {}  # asked at every step, so remembered


def _is_wrapper(kind: type) -> bool:
    if kind not in _WRAPPERS:
        wrapper = issubclass(kind, (nn.parallel.DistributedDataParallel, nn.DataParallel)) or _is_fabric(kind)
        _WRAPPERS[kind] = wrapper
    return _WRAPPERS[kind]


def _is_fabric(kind: type) -> bool:
    # By name, so that the library does not import Lightning Fabric.
    return kind.__name__ == "_FabricModule" and kind.__module__.startswith("lightning")


def within(model: Model) -> Model:
    """Return the module behind Lightning Fabric where that does nothing around it: on one device, in full precision."""
    if not _is_fabric(type(model)):
        return model
    inner: nn.Module = model._forward_module  # type: ignore[union-attr, assignment]
    several = type(model._strategy).__name__ != "SingleDeviceStrategy"  # type: ignore[union-attr]
    hooked = model._forward_hooks or model._forward_pre_hooks  # type: ignore[union-attr]
    return model if several or hooked or runs_in_low_precision(model) else inner


def runs_in_low_precision(model: Model) -> bool:
    """Tell whether calling the model now would compute below float32, by autocast or by its wrapper."""
    if torch.is_autocast_enabled() or torch.is_autocast_enabled("cpu"):
        return True
    if not _is_fabric(type(model)):
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
        found = tuple(modules) if isinstance(modules, Iterable) and not isinstance(modules, nn.Module) else (modules,)
        for module in found:
            if not isinstance(module, nn.Module):
                raise TypeError(f"modules must hold torch.nn.Module objects; got {type(module).__name__}")
        return tuple(m for m in map(unwrap, found) if isinstance(m, nn.Module))
    model = unwrap(model)
    if isinstance(model, nn.Module):
        return (model,)
    if not callable(model):
        raise TypeError(f"model must be a torch.nn.Module or a callable; got {type(model).__name__}")
    inner = (unwrap(module) for module in reachable(model, nn.Module))
    return tuple({module: None for module in inner if isinstance(module, nn.Module)})


_ASKED = (nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd, nn.RNNBase, nn.MultiheadAttention)

# How a type of layer is in train mode: asked at every step, so remembered.
_SAME, _ASK, _OTHER = range(3)
_KINDS: dict[type[nn.Module], int] = {}


def _kind(layer: type[nn.Module]) -> int:
    if layer not in _KINDS:
        own = [base for base in layer.__mro__ if not base.__module__.startswith("torch.")]
        if (
            any(reads_training(member) for base in own for member in vars(base).values())
            or issubclass(layer, nn.RReLU)
            or layer.__name__ == "_SpectralNorm"
        ):
            _KINDS[layer] = _OTHER
        else:
            _KINDS[layer] = _ASK if issubclass(layer, _ASKED) else _SAME
    return _KINDS[layer]


def _differs(layer: nn.Module) -> bool:
    """Tell whether one layer in train mode computes something else than in eval mode."""
    if layer._forward_hooks or layer._forward_pre_hooks:
        return True  # nobody knows what a hook looks at; spectral_norm's moves its vectors
    kind = _kind(type(layer))
    if kind != _ASK:
        return kind == _OTHER
    if isinstance(layer, nn.modules.batchnorm._NormBase):
        # InstanceNorm without running statistics is the same in both modes; BatchNorm always looks at its batch.
        return layer.track_running_stats or isinstance(layer, nn.modules.batchnorm._BatchNorm)
    if isinstance(layer, nn.modules.dropout._DropoutNd):
        return layer.p > 0
    return isinstance(layer, (nn.RNNBase, nn.MultiheadAttention)) and layer.dropout > 0


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
        if layer is None:
            continue
        if layer.training:
            hooked = layer._forward_hooks or layer._forward_pre_hooks
            if (hooked or _KINDS.get(type(layer)) != _SAME) and _differs(layer):
                return True
        if layer._modules:
            stack.extend(layer._modules.values())
    return False


@contextmanager
def frozen(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Run modules as in eval mode, with autocast off, and leave no trace: flags are restored on the way out.

    PyTorch's recurrent layers keep their train flag (cuDNN refuses a backward in eval mode) and lose their dropout
    instead.

    Example:
        >>> net = nn.Dropout(0.5)
        >>> with frozen([net]):
        ...     net(torch.ones(3)), net.training
        (tensor([1., 1., 1.]), False)
        >>> net.training
        True
    """
    layers = {layer: None for module in modules for layer in module.modules() if layer.training}
    builtin = [layer for layer in layers if type(layer).__module__ == nn.RNNBase.__module__]
    recurrent = [(layer, layer.dropout) for layer in builtin if isinstance(layer, nn.RNNBase)]
    norms = [(layer, layer._buffers.copy()) for layer in layers if isinstance(layer, nn.modules.batchnorm._NormBase)]
    try:
        for layer in layers:
            layer.training = False
        for layer, _ in recurrent:
            layer.training, layer.dropout = True, 0.0
        for layer, buffers in norms:
            # Copies, as a later forward in train mode would change, unseen, what the backward of this one reads.
            layer._buffers.update({name: None if b is None else b.clone() for name, b in buffers.items()})
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            yield
    finally:
        for layer in layers:
            layer.training = True
        for layer, dropout in recurrent:
            layer.dropout = dropout
        for layer, buffers in norms:
            layer._buffers.update(buffers)


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Put modules in eval mode with parameters that ask for no gradient; restore both on the way out.

    Raises:
        ValueError: if a parameter was made in inference mode, where it cannot be restored.

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
    if not torch.is_inference_mode_enabled() and any(p.is_inference() for p in parameters):
        raise ValueError(
            "parameters must be usable outside torch.inference_mode(); got some that were made in it: make the model "
            "outside, or take copy.deepcopy(model)"
        )
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


@contextmanager
def flushed() -> Iterator[None]:
    """Take subnormal floats for zero within, as they slow a step many times over, and restore how it was.

    Numbers below 1.2e-38 in float32 are subnormal; momentum and weights that decay end there. It holds for this thread,
    on processors that can do it.

    Example:
        >>> with flushed():
        ...     float(torch.tensor([1e-39]) * 1) < 1e-38
        True
    """
    before = float(torch.tensor([1e-39]) * 1) == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
