"""A proven form of bound that can be differentiated: how large differences of outputs can be, as a matrix K.

For a chain of dense layers and activations let X_0 = I and, for layer k with weights W and slopes in [0, β],

    G = β² W X⁻¹ Wᵀ,   t = 2 / λ_max(G),   X ← t I - t² G / 4          (ECLipsE-Fast)
    or  X⁻¹ ← λ_max(G) I                                                (the product of the layers)

Then ``|c · (f(x) - f(x'))|² <= (cᵀ K c) ‖x - x'‖²`` for every c, with ``K = Y X⁻¹ Yᵀ`` of the last weights Y.

Reference: Xu and Sivaranjani 2024, "ECLipsE: Efficient compositional Lipschitz constant estimation for deep neural
networks"; Bungert et al. 2021, equation 4, for the product.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from cheaplip.lipschitz.network.activations import PIECEWISE, SMOOTH
from cheaplip.lipschitz.network.linear import unchanged
from cheaplip.lipschitz.network.registry import RULES
from cheaplip.lipschitz.network.tracing import called_by, module_of
from cheaplip.modes import Model

BOUNDS = ("eclipse", "product")


@final
@dataclass(frozen=True)
class Layer:
    """A linear layer, and the slopes of the activation behind it.

    Args:
        linear: the layer.
        low: the least slope.
        high: the largest absolute slope.
    """

    linear: nn.Linear
    low: float
    high: float


def chain_of(model: Model) -> list[Layer]:
    """List the linear layers of a chain with their activations, or raise for a layer that is not understood.

    Args:
        model: an ``nn.Sequential``, nested as you like, of ``Linear``, activations, ``Flatten``, ``Dropout`` and
            ``Identity``; its last layer is linear.

    Raises:
        TypeError: naming the layer.
        ValueError: if there is no linear layer, or one behind which there is no other.
    """
    found: list[Layer] = []
    for name, layer in _leaves(module_of(model), ""):
        if isinstance(layer, nn.Linear):
            found.append(Layer(layer, 1.0, 1.0))
        elif RULES.get(type(layer)) is unchanged or isinstance(layer, nn.Flatten):
            continue
        else:
            known = type(layer) in (*PIECEWISE, *SMOOTH)
            units = RULES[type(layer)](layer, (1,)).elementwise if known else None
            if units is None or not found:
                raise TypeError(
                    f"{called_by(name, type(layer).__name__)} is not understood: a bound that is trained needs "
                    "nn.Sequential of nn.Linear, activations, Flatten and Dropout; LipschitzPenalty takes any model"
                )
            free = torch.full((1,), torch.inf, dtype=torch.float64)
            low, high = (float(side) for side in units.slopes(-free, free))
            before = found[-1]
            top = max(abs(low), abs(high))
            low = min(low * before.high, -top if before.low < 0 else low * before.high)
            found[-1] = Layer(before.linear, low, top * before.high)
    if not found or (found[-1].low, found[-1].high) != (1.0, 1.0):
        raise ValueError("the model must end with a linear layer, whose outputs are logits: leave its activation out")
    return found


def _leaves(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    if type(module) is nn.Sequential:
        for key, child in module._modules.items():  # named_children() would leave out a layer's second call
            if child is not None:
                yield from _leaves(child, f"{name}.{key}" if name else key)
    else:
        yield name, module


def spread(layers: list[Layer], bound: str) -> Tensor:
    """Return K, ``(outputs, outputs)``, differentiable in all weights.

    Args:
        layers: by :func:`chain_of`.
        bound: ``"eclipse"`` or ``"product"``. Where slopes have two signs a layer counts by its product.

    Example:
        >>> layer = nn.Linear(2, 2, bias=False)
        >>> _ = nn.init.eye_(layer.weight)
        >>> spread(chain_of(nn.Sequential(layer, nn.ReLU(), layer)), "eclipse").tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    inverse: Tensor | None = None
    for layer in layers[:-1]:
        weight = layer.high * layer.linear.weight
        gram = weight @ weight.T if inverse is None else weight @ inverse @ weight.T
        # Zero weights must not divide by zero, here or in the gradient.
        largest = torch.linalg.eigvalsh(gram)[-1].clamp_min(torch.finfo(gram.dtype).tiny ** 0.5)
        unit = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        if bound == "product" or layer.low < 0:
            inverse = largest * unit
        else:
            # With t = 2 / λ_max the eigenvalues of X lie between t / 2 and t: the inverse is well conditioned.
            inverse = torch.linalg.inv((2 / largest) * unit - gram / largest.square())
    last = layers[-1].linear.weight
    return last @ last.T if inverse is None else last @ inverse @ last.T


def pairwise(matrix: Tensor) -> Tensor:
    """Return the bounds of Lip(f_i - f_j) that K gives, ``(outputs, outputs)``, zero on the diagonal.

    Example:
        >>> [[round(value, 3) for value in row] for row in pairwise(torch.eye(2)).tolist()]
        [[0.0, 1.414], [1.414, 0.0]]
    """
    own = matrix.diagonal()
    squares = (own[:, None] + own - 2 * matrix).clamp_min(torch.finfo(matrix.dtype).tiny ** 0.5)
    return squares.sqrt() * (1 - torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device))
