"""λ · Lip(f, X_Lip): the penalty of Cheap Lipschitz Training."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from cheaplip.modes import Model, differs_in_training, frozen, modules_of, runs_in_low_precision, unwrap
from cheaplip.norms import Box, Norm
from cheaplip.pairs import Measurement, Pairs, Search, Start
from cheaplip.pairs.steepness import apply, quotient
from cheaplip.penalties.weighing import check_power, check_weight

# The lifetime of a pair in moves, chosen by measurement on the selection split: see docs/choices.md.
LIFETIME = 50


class LipschitzPenalty(nn.Module):
    """λ times the largest difference quotient over pairs of inputs that keep climbing to where f is steepest.

    In train mode (its own ``.training``) a call measures the quotients, moves the pairs and returns
    ``λ · Lip(f, X_Lip)^power`` with a gradient through the maximal pair alone; in eval mode it moves nothing.
    Pairs, steps, counters and λ are all in the ``state_dict``.

    Args:
        u, v: the first and the second points of the pairs, ``(P, *input)`` each, floating, finite.
        weight: λ, at least 0, in units of loss per unit of Lip.
        p_in, p_out: norms of inputs and outputs: 1, 2, inf or a callable ``(n, *shape) -> (n,)``.
        reduce: ``"max"`` (the paper), ``"mean"``, or ``("softmax", T)``: T log mean exp(L / T), which lies between
            them; T > 0 in units of Lip.
        power: 1 (the paper) or 2 (penalise Lip²).
        search: ``"ascent"``, ``"paper"`` or a callable, see :class:`cheaplip.pairs.Pairs`.
        steps: moves per call.
        every: pairs move at every so many calls; in between the steepest pair found last serves again.
        renew: the lifetime of a pair in moves; None renews only pairs that went wrong.
        box: ``(low, high)``, numbers or one number per channel, in which pairs stay; None lets them roam.
        min_distance: the smallest distance of a pair in input units; None for 0.01 of the data's scale.
        cap: the largest Lip that may enter the loss; above it, value and gradient are scaled down together.
        step: the first step of the search; None for the search's own default.

    Raises:
        ValueError: for a value out of range or shapes that do not fit.
        TypeError: for points that are no floating tensors.

    Reference: Bungert et al. 2021, equations 2, 3 and 5, Algorithms 1 and 2.

    Example:
        >>> penalty = LipschitzPenalty(torch.zeros(4, 3), torch.ones(4, 3), weight=0.5)
        >>> f = nn.Linear(3, 1)
        >>> loss = f(torch.ones(2, 3)).square().mean() + penalty(f)
        >>> bool(torch.isclose(penalty(f), 0.5 * penalty.value, rtol=0.5))
        True
    """

    weight: Tensor
    value: Tensor

    def __init__(
        self,
        u: Tensor,
        v: Tensor,
        *,
        weight: float,
        p_in: Norm = 2,
        p_out: Norm = 2,
        reduce: str | tuple[str, float] = "max",
        power: int = 1,
        search: Search = "ascent",
        steps: int = 1,
        every: int = 1,
        renew: int | None = LIFETIME,
        box: Box | None = None,
        min_distance: float | None = None,
        cap: float | None = None,
        step: float | None = None,
    ) -> None:
        super().__init__()
        self.reduce, self.temperature = _check_reduce(reduce)
        for name, count in (("steps", steps), ("every", every)):
            if not isinstance(count, int) or count < 1:
                raise ValueError(f"{name} must be a whole number of at least 1; got {count!r}")
        if cap is not None and not cap > 0:
            raise ValueError(f"cap must be above 0, or None for no cap; got {cap!r}")
        self.power, self.steps, self.every, self.cap = check_power(power), steps, every, cap
        self.pairs = Pairs(u, v, p_in=p_in, p_out=p_out, search=search, renew=renew, box=box,
                           min_distance=min_distance, step=step)  # fmt: skip
        self.register_buffer("weight", u.new_tensor(check_weight(weight)))
        self.register_buffer("value", u.new_zeros(()))
        self.calls, self.last = 0, 0

    @classmethod
    def from_data(
        cls, x: Tensor, *, weight: float, pairs: int = 32, start: str = "noise", seed: int = 0, **arguments: Any
    ) -> LipschitzPenalty:
        """Return a penalty whose pairs start from data, X_Lip's pool, and are renewed from it.

        Args:
            x: samples ``(n, *input)``, floating, finite; not the test set.
            weight: λ, at least 0.
            pairs: P, how many pairs are alive at a time.
            start: ``"noise"``, ``"samples"`` or ``"uniform"``, see :class:`cheaplip.pairs.Start`.
            seed: the seed of all draws.
            arguments: every other argument of :class:`LipschitzPenalty`.

        Example:
            >>> penalty = LipschitzPenalty.from_data(torch.rand(100, 6), weight=0.1, pairs=8, box=(0.0, 1.0))
            >>> penalty.pairs.u.shape
            torch.Size([8, 6])
        """
        if not isinstance(pairs, int) or pairs < 1:
            raise ValueError(f"pairs must be a whole number of at least 1; got {pairs!r}")
        pool = Start(x, kind=start, seed=seed)
        penalty = cls(*pool.draw(pairs), weight=weight, **arguments)
        penalty.pairs.start = pool
        return penalty

    def forward(self, model: Model, *, modules: Iterable[nn.Module] | None = None) -> Tensor:
        """Return λ · Lip(f, X_Lip)^power; in train mode the pairs move.

        Args:
            model: a module, wrapped or not, or any callable of its input.
            modules: the modules that a callable uses, if it does not close over them itself.

        Raises:
            ValueError: if pairs do not fit the model, or its outputs at all pairs are NaN or infinite.
        """
        inner, used, apart = self._look_at(model, modules)
        with frozen(used) if apart else nullcontext():
            points, distance = self._take(inner)
            return self._weigh(apply(inner, points), distance)

    def joint(self, model: Model, x: Tensor, *, modules: Iterable[nn.Module] | None = None) -> tuple[Tensor, Tensor]:
        """Return ``(model(x), penalty(model))`` with the maximal pair riding in the minibatch: the cheapest way.

        Where the model computes something else on pairs than on data (BatchNorm and Dropout in train mode, autocast),
        pairs get a forward of their own.

        Args:
            model: a module, wrapped or not, or any callable of its input.
            x: the minibatch ``(B, *input)``.
            modules: as in :meth:`forward`.

        Raises:
            ValueError: as in :meth:`forward`, or if ``x`` does not fit the pairs.
        """
        inner, used, apart = self._look_at(model, modules)
        if apart:
            # First the pairs: the model's own forward then leaves its statistics as after a plain step.
            penalty = self(model, modules=modules)
            return model(x), penalty
        points, distance = self._take(inner, x)
        output = apply(model, points)
        logits, riders = torch.split(output, [len(x), len(output) - len(x)])
        return logits, self._weigh(riders, distance)

    @staticmethod
    def _look_at(model: Model, modules: Iterable[nn.Module] | None) -> tuple[Model, tuple[nn.Module, ...], bool]:
        """Return the user's own model, the modules in it, and whether pairs must be seen apart from the data."""
        used = modules_of(model, modules)
        return unwrap(model), used, runs_in_low_precision(model) or differs_in_training(used)

    def _take(self, function: Model, x: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Measure, move, and return the rows for the loss: ``x``, then the u and the v that the reduction needs."""
        pairs = self.pairs
        if not self.training:
            return self._rows(pairs.measure(function), x)
        resting = self.calls % self.every > 0
        self.calls += 1
        if resting:
            stand = Measurement(self.value, pairs.distances(), [1.0] * len(pairs), self.last, None)
            return self._rows(stand, x)
        for _ in range(self.steps - 1):
            pairs.move(pairs.measure(function, climb=True))
        measured = pairs.measure(function, climb=True)
        rows = self._rows(measured, x)
        pairs.move(measured)
        return rows

    def _rows(self, measured: Measurement, x: Tensor | None) -> tuple[Tensor, Tensor]:
        """Gather the points that the reduction needs, behind ``x``, and their distances."""
        self.last = measured.steepest
        u, v = self.pairs.points.chunk(2)
        distance = measured.distance
        if self.reduce == "max":
            at = slice(self.last, self.last + 1)
            u, v, distance = u[at], v[at], distance[at]
        elif len(measured.usable) < len(u):
            usable = torch.tensor(measured.usable, device=u.device)
            u, v, distance = u[usable], v[usable], distance[usable]
        if x is None:
            return torch.cat([u, v]), distance
        if x.dtype is not u.dtype or x.shape[1:] != u.shape[1:] or x.device != u.device:
            raise ValueError(
                f"the minibatch must be {u.dtype} of shape (batch, {', '.join(map(str, u.shape[1:]))}) on {u.device}, "
                f"as the pairs are; got {x.dtype} of shape {tuple(x.shape)} on {x.device}"
            )
        return torch.cat([x, u, v]), distance

    def _weigh(self, output: Tensor, distance: Tensor) -> Tensor:
        """Reduce the quotients of the taken rows, with their gradient, and multiply by λ."""
        value = quotient(output, distance, self.pairs.p_out)
        self.value.copy_(value.detach().amax())
        if self.reduce == "max":
            value = value.squeeze(0)
        elif self.reduce == "mean":
            value = value.mean()
        else:
            value = self.temperature * (torch.logsumexp(value / self.temperature, 0) - math.log(len(value)))
        if self.cap is not None:
            value = value * (self.cap / value.detach().clamp_min(self.cap))
        return self.weight * (value if self.power == 1 else value.square())

    def get_extra_state(self) -> Tensor:
        """Return the number of calls and the index of the steepest pair, on which ``every`` depends."""
        return torch.tensor([self.calls, self.last])

    def set_extra_state(self, state: Any) -> None:
        """Set the number of calls and the index of the steepest pair."""
        self.calls, self.last = (int(entry) for entry in state)


def _check_reduce(reduce: str | tuple[str, float]) -> tuple[str, float]:
    if reduce in ("max", "mean"):
        return str(reduce), 1.0
    if not isinstance(reduce, str) and len(reduce) == 2 and reduce[0] == "softmax" and 0 < reduce[1] < math.inf:
        return "softmax", float(reduce[1])
    raise ValueError(f'reduce must be "max", "mean" or ("softmax", temperature above 0); got {reduce!r}')
