"""What the tests measure against: slow and plain formulas, small networks, and pictures of a model's state."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

Function: TypeAlias = Callable[[Tensor], Tensor]
Norm: TypeAlias = "float | str | Callable[[Tensor], Tensor]"


def norm_of(x: Tensor, p: Norm) -> Tensor:
    """Return the norm of one sample by its definition."""
    if callable(p):
        return p(x.unsqueeze(0))[0]
    flat = x.reshape(-1)
    if float(p) == 1:
        return flat.abs().sum()
    return flat.abs().max() if float(p) == math.inf else flat.square().sum().sqrt()


def quotients(f: Function, u: Tensor, v: Tensor, p_in: Norm = 2, p_out: Norm = 2) -> Tensor:
    """Return ‖f(u) - f(v)‖ / ‖u - v‖, one pair at a time; differentiable in all that f depends on."""
    return torch.stack(
        [norm_of(f(a[None])[0] - f(b[None])[0], p_out) / norm_of(a - b, p_in) for a, b in zip(u, v, strict=True)]
    )


def reduced(values: Tensor, reduce: str | tuple[str, float]) -> Tensor:
    """Return the maximum, the mean or T log mean exp(L / T) of quotients."""
    if reduce == "max":
        return values.max()
    if reduce == "mean":
        return values.mean()
    temperature = float(reduce[1])
    return temperature * (values / temperature).exp().mean().log()


def gradients(value: Tensor, model: nn.Module) -> list[Tensor]:
    """Return a scalar's gradients by all trainable parameters of a model; zeros where it does not depend on one."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(value, parameters, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def assert_all_close(first: Iterable[Tensor], second: Iterable[Tensor], rtol: float = 1e-9) -> None:
    """Compare two lists of tensors, relative to the largest entry among them all."""
    pairs = list(zip(first, second, strict=True))
    scale = max((other.detach().abs().max().item() for _, other in pairs if other.numel()), default=1.0)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=rtol, atol=rtol * max(scale, 1e-6))


def matrix_of(f: Function, shape: tuple[int, ...]) -> Tensor:
    """Return the matrix of the linear part of an affine map of float64 inputs of a shape."""
    size = math.prod(shape)
    zero = torch.zeros(1, *shape, dtype=torch.float64)
    units = torch.eye(size, dtype=torch.float64).reshape(size, *shape)
    with torch.no_grad():
        return torch.stack([(f(unit[None]) - f(zero)).flatten() for unit in units], dim=1)


def operator_norm(matrix: Tensor, p: float) -> float:
    """Return the norm of a matrix from p to p: 1 largest column sum, 2 spectral, inf largest row sum."""
    return float(torch.linalg.matrix_norm(matrix.detach().double(), ord=p))


def seeded(net: nn.Module, seed: int = 0) -> nn.Module:
    """Return a module with its parameters drawn from a seed; the global generator stays as it is."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(drawn * (1.5 / math.sqrt(max(1, parameter[0].numel()))))
    return net


def mlp(*widths: int, seed: int = 0, dtype: torch.dtype = torch.float64, act: type[nn.Module] = nn.Tanh) -> nn.Module:
    """Return a small fully connected network with weights from a seed, on logits."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), act()]
    return seeded(nn.Sequential(*layers[:-1]).to(dtype), seed)


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return normal numbers from a seed; the global generator stays as it is."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return numbers in [0, 1) from a seed; the global generator stays as it is."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def picture(*modules: nn.Module) -> dict[str, Any]:
    """Return all that a call must not change: weights, buffers, .grad, flags, dropout rates, the global generator."""
    seen: dict[str, Any] = {"generator": torch.get_rng_state()}
    for number, module in enumerate(modules):
        for name, parameter in module.named_parameters():
            gradient = None if parameter.grad is None else parameter.grad.clone()
            seen[f"{number}.{name}"] = (parameter.detach().clone(), gradient, parameter.requires_grad)
        for name, buffer in module.named_buffers():
            seen[f"{number}.{name}"] = buffer.clone()
        for name, layer in module.named_modules():
            seen[f"{number}.{name} layer"] = (layer.training, getattr(layer, "dropout", None).__repr__())
    return seen


def changes(before: Any, after: Any) -> list[str]:
    """Return the names under which two pictures, or two state dicts, are not the same bit for bit."""
    return sorted(
        {*before.keys() ^ after.keys()} | {k for k in before.keys() & after.keys() if not _same(before[k], after[k])}
    )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        # As bytes, so that NaN equals itself and -0 differs from 0.
        same = one.dtype == other.dtype and one.shape == other.shape
        return same and one.numpy().tobytes() == other.numpy().tobytes()
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def through_disk(state: Any) -> Any:
    """Return what a safe load gives back of what was saved."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)
