"""A smoothed surrogate of any function: its kinks rounded off, so that slopes can be seen from afar.

The Jacobian of a ReLU network is piecewise constant, and of no help in finding a steeper piece. Here the activations
inside any callable are replaced, while it runs, by ones that turn gradually. What is found is measured on the function
itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, final

import torch
from torch import Tensor
from torch.nn.functional import softplus
from torch.overrides import TorchFunctionMode

from cheaplip.modes import Model

# Of a bend, where all it gets is zero.
LEAST = 1e-12
# φ(c z) = c φ(z) for c > 0: a kink at zero.
KINKED = {"relu", "relu_", "leaky_relu", "leaky_relu_", "prelu", "_prelu_kernel", "abs", "abs_", "absolute"}
# Like a kink from afar: w φ(z / w) is gentler the larger w.
BENT = {"gelu", "silu", "silu_", "elu", "elu_", "softplus", "mish", "selu", "celu"}


@final
class Smoothing(TorchFunctionMode):
    """A function with piecewise-linear activations smooth, over ``width`` of the typical size of what they get.

    Args:
        function: any function of a batch.

    Attributes:
        width: how wide the bends are, relative to the typical size; 0 for none.

    Example:
        >>> smoothed = Smoothing(torch.relu)
        >>> smoothed.width = 0.5
        >>> smoothed(torch.tensor([[-1.0], [1.0]]))  # (u, v)
        tensor([[0.0635],
                [1.0635]])
    """

    def __init__(self, function: Model) -> None:
        super().__init__()
        self.function, self.width = function, 0.0

    def __call__(self, x: Tensor) -> Tensor:
        """Return the smoothed function's outputs."""
        with self:
            return self.function(x)

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch, or what stands for it here."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if args and isinstance(args[0], Tensor) and args[0].is_floating_point() and self.width > 0:
            z, rest = args[0], args[1:]
            if name in KINKED:
                bend = self._bend(z)
                if name in ("relu", "relu_"):
                    return bend(z)
                return func(bend(z), *rest, **kwargs) + func(-bend(-z), *rest, **kwargs)
            if name in BENT:
                scale = max(self._width(z), 1.0)
                return scale * func(z / scale, *rest, **kwargs)
            if name in ("maximum", "minimum"):
                over = z - (rest[0] if rest else kwargs["other"])
                return z + self._bend(over)(-over) if name == "maximum" else z - self._bend(over)(over)
            if name in ("clamp", "clamp_min", "hardtanh", "hardtanh_"):
                return self._clamped(func, name, z, rest, kwargs)
        return func(*args, **kwargs)

    def _clamped(self, func: Callable[..., Any], name: str, z: Tensor, rest: Any, kwargs: dict[str, Any]) -> Any:
        names = ("min_val", "max_val") if name.startswith("hardtanh") else ("min", "max")
        ends = dict(zip(names, rest, strict=False)) | kwargs
        bend = self._bend(z)
        if name.startswith("hardtanh"):
            low, high = ends.get("min_val", -1.0), ends.get("max_val", 1.0)
            return low + bend(z - low) - bend(z - high)
        # Other clamps keep numbers apart from zero, or such.
        low = ends.get("min")
        bare = ends.get("max") is None and not isinstance(low, Tensor) and low == 0
        return bend(z) if bare else func(z, *rest, **kwargs)

    def _bend(self, z: Tensor) -> Callable[[Tensor], Tensor]:
        width = self._width(z)

        def bend(part: Tensor) -> Tensor:
            return softplus(part, beta=1 / width)

        return bend

    def _width(self, z: Tensor) -> float:
        """Return the width of bends in units of ``z``; one for all, so that the points of a pair see the same."""
        typical = float(torch.linalg.vector_norm(z.detach())) / max(1, z.numel()) ** 0.5
        return max(self.width * typical, LEAST) if typical < math.inf else LEAST
