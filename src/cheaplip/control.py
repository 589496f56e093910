"""The discrepancy principle: a penalty is made as strong as a target for the data term allows."""

from __future__ import annotations

import math
import numbers
import sys
from typing import Any, Protocol, final

import torch
from torch import Tensor


class Weighted(Protocol):
    """Anything with a weight that multiplies it: a number, or a tensor with one entry."""

    weight: Any


@final
class Discrepancy:
    """Drives a penalty's weight λ so that training accuracy holds a target; or the loss, or the penalty's own value.

    Where the network does better than the target, λ rises; where it does worse, λ falls. Where it is the penalty's
    value that is held, such as Lip(f), λ rises while that is above its target. The rule is ``"additive"``
    (the paper: λ ± step) or ``"multiplicative"`` (λ · (1 + step) or λ / (1 + step), for a λ whose scale is unknown).
    Call :meth:`step` after every minibatch with its accuracy, or after every epoch with the epoch's.

    Args:
        penalty: the penalty to drive, or anything else with a ``weight``.
        target: the accuracy to hold, in (0, 1); or the loss to hold, above 0 (Morozov: the level of the noise); or the
            value, above 0.
        step: how much λ changes per call, above 0; dλ in the paper.
        measure: ``"accuracy"``, ``"loss"`` or ``"value"``, what :meth:`step` is given.
        rule: ``"additive"`` or ``"multiplicative"``.
        warmup: how many calls pass before λ changes.
        floor: λ never falls below it; at least 0, and above 0 for the multiplicative rule, which cannot leave 0.

    Raises:
        ValueError: for an argument out of range.
        TypeError: if the penalty has no weight.

    Reference: Bungert et al. 2021, Algorithm 2, last lines; Morozov 1966 for the principle.

    Example:
        >>> class Penalty:
        ...     weight = 1.0
        >>> control = Discrepancy(Penalty(), target=0.9, step=0.25)
        >>> control.step(0.95); control.penalty.weight
        1.25
        >>> constant = Discrepancy(Penalty(), target=1.0, step=0.25, measure="value")  # keep Lip(f) at 1
        >>> constant.step(3.7); constant.penalty.weight
        1.25
    """

    def __init__(
        self,
        penalty: Weighted,
        *,
        target: float,
        step: float,
        measure: str = "accuracy",
        rule: str = "additive",
        warmup: int = 0,
        floor: float = 0.0,
    ) -> None:
        if not isinstance(getattr(penalty, "weight", None), (int, float, Tensor)):
            raise TypeError(f"penalty must have a weight, a number or a tensor; got {type(penalty).__name__}")
        if measure not in ("accuracy", "loss", "value"):
            raise ValueError(f'measure must be "accuracy", "loss" or "value"; got {measure!r}')
        if rule not in ("additive", "multiplicative"):
            raise ValueError(f'rule must be "additive" or "multiplicative"; got {rule!r}')
        if measure == "accuracy" and not (_finite(target) and 0 < target < 1):
            raise ValueError(f"target must be an accuracy between 0 and 1, as a fraction; got {target!r}")
        if not (_finite(target) and target > 0):
            raise ValueError(f"target must be a finite {measure} above 0; got {target!r}")
        if not (_finite(step) and step > 0):
            raise ValueError(f"step must be a finite number above 0; got {step!r}")
        if not isinstance(warmup, int) or warmup < 0:
            raise ValueError(f"warmup must be a whole number of at least 0; got {warmup!r}")
        if not (_finite(floor) and floor >= 0):
            raise ValueError(f"floor must be a finite number of at least 0; got {floor!r}")
        if (dtype := _dtype(penalty.weight)) is not None and max(step, floor) > torch.finfo(dtype).max / 2:
            raise ValueError(f"step and floor must be numbers of λ's dtype, {dtype}; got {step} and {floor}")
        if rule == "multiplicative" and floor == 0:
            raise ValueError("the multiplicative rule cannot leave 0: give a floor above 0, for example floor=1e-4")
        self.penalty, self.target, self.size, self.measure = penalty, target, step, measure
        self.rule, self.warmup, self.floor, self.calls = rule, warmup, floor, 0

    def step(self, value: float | Tensor) -> None:
        """Compare with the target and move λ one step.

        Args:
            value: accuracy (a fraction of 1) or loss, of a minibatch or of an epoch, or ``penalty.value``; a tensor may
                stay on its device.

        Raises:
            ValueError: if it is not one number, no accuracy between 0 and 1, or NaN.
            TypeError: if it is neither a number nor a tensor.

        Example:
            >>> class Penalty:
            ...     weight = 1.0
            >>> control = Discrepancy(Penalty(), target=0.9, step=0.25)
            >>> control.step(0.95); control.step(0.5); control.step(torch.tensor(0.5)); control.penalty.weight
            0.75
        """
        if isinstance(value, Tensor) and value.dim():
            if value.numel() != 1:
                raise ValueError(f"{self.measure} must be one number; got a tensor of shape {tuple(value.shape)}")
            value = value.reshape(())
        if isinstance(value, Tensor) and (value.is_meta or value.is_complex()):
            raise ValueError(f"{self.measure} must be one real number; got a {value.dtype} on {value.device}")
        if not isinstance(value, Tensor) or value.is_cpu:  # a look at a GPU's tensor would make it wait
            self._check(value.item() if isinstance(value, Tensor) else value)
        self.calls += 1
        if self.calls <= self.warmup:
            return
        gap = self.target - value if self.measure == "loss" else value - self.target
        weight = self.penalty.weight
        if isinstance(weight, Tensor):
            better = torch.as_tensor(gap, device=weight.device) > 0
            with torch.no_grad():
                moved = torch.where(better, self._raised(weight), self._lowered(weight)).clamp_min(self.floor)
            # A new tensor: a graph may still hold the old one for its backward.
            self.penalty.weight = moved.to(weight.dtype)
        else:
            self.penalty.weight = max(self.floor, self._raised(weight) if gap > 0 else self._lowered(weight))

    def _check(self, value: Any) -> None:
        real = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not real:
            raise TypeError(f"{self.measure} must be a number or a tensor with one entry; got {value!r}")
        if self.measure == "accuracy" and not 0 <= value <= 1:
            raise ValueError(f"accuracy must be a fraction between 0 and 1; got {value}: divide percent by 100")
        if math.isnan(value):
            raise ValueError(f"{self.measure} must be a number; got {value}: lower the learning rate or λ")

    def _raised(self, weight: Any) -> Any:
        return weight + self.size if self.rule == "additive" else weight * (1 + self.size)

    def _lowered(self, weight: Any) -> Any:
        return weight - self.size if self.rule == "additive" else weight / (1 + self.size)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs; λ itself is in the penalty's own state.

        Example:
            >>> class Penalty:
            ...     weight = 1.0
            >>> Discrepancy(Penalty(), target=0.9, step=0.25).state_dict()
            {'calls': 0}
        """
        return {"calls": self.calls}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the state of another control.

        Raises:
            ValueError: for unknown or missing keys.
        """
        if set(state) != {"calls"}:
            raise ValueError(f"a control's state must have the key 'calls' alone; got {sorted(state)}")
        self.calls = int(state["calls"])


def _dtype(weight: Any) -> torch.dtype | None:
    return weight.dtype if isinstance(weight, Tensor) and weight.is_floating_point() else None


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
