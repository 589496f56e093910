"""A model that is read, as the problem that upper bounds are for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from cheaplip.lipschitz.boxes import slopes_of, tops_of
from cheaplip.lipschitz.dense import Slopes, is_dense, system_of
from cheaplip.lipschitz.network import Graph, read
from cheaplip.lipschitz.network.tracing import module_of
from cheaplip.lipschitz.product import Product
from cheaplip.lipschitz.sdp.sectors import Sectors, sectors_of
from cheaplip.modes import Model, evaluating
from cheaplip.norms import Box


def shape_of(x: Tensor) -> tuple[int, ...]:
    """Return the shape of one sample."""
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a tensor (n, *input), for its shape; got {type(x).__name__}")
    if x.dim() < 2 or not math.prod(x.shape[1:]):
        raise ValueError(f"x must hold samples, shape (n, *input); got {tuple(x.shape)}")
    if not x.is_floating_point():
        raise TypeError(f"x must be a floating tensor, as inputs of the model are; got {x.dtype}")
    return tuple(x.shape[1:])


@final
@dataclass(frozen=True)
class Problem:
    """A network that is read, and how steep its units are."""

    graph: Graph
    shape: tuple[int, ...]
    slopes: dict[int, Slopes]
    product: Product

    def sectors(self, start: int, end: int) -> Sectors:
        """Return LipSDP's data of a part."""
        return sectors_of(system_of(self.graph, start, end, self.slopes))

    def parts(self, units: int) -> list[tuple[int, int, bool]]:
        """Cut the network where all of it passes: parts for LipSDP as long as they may be, and single layers.

        Args:
            units: the largest number of units of a part.

        Returns:
            For each part its start, its end, and whether LipSDP is for it.
        """
        waists, found, k = self.graph.waists(), [], 0
        while k < len(waists) - 1:
            last = k
            while last + 1 < len(waists) and is_dense(self.graph, waists[k], waists[last + 1], units):
                last += 1
            tight = any(place in self.slopes for place in range(waists[k] + 1, waists[last] + 1))
            end = max(last, k + 1)
            found.append((waists[k], waists[end], tight and end == last))
            k = end
        return found


def problem_of(model: Model, shape: tuple[int, ...], p: float, box: Box | None) -> Problem:
    """Read a model, and bound the slopes of its units."""
    inner = module_of(model)
    for name, layer in inner.named_modules():
        if layer.training and isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            raise ValueError(
                f"module {name!r} ({type(layer).__name__}) is in training mode, where its output depends on the other "
                "samples and has no Lipschitz constant: call model.eval() first"
            )
    with torch.no_grad(), evaluating(inner):
        graph = read(inner, shape)
        slopes = slopes_of(graph, box)
    return Problem(graph, shape, slopes, Product(graph, p, tops_of(slopes)))
