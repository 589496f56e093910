"""λ · Lip(f, X_Lip): the penalty of Cheap Lipschitz Training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any, final

import torch
from torch import Tensor, nn

from cheaplip.checks import whole_number
from cheaplip.modes import Model, frozen, runs_in_low_precision, within
from cheaplip.norms import Box, Norm
from cheaplip.pairs import Measurement, Pairs, Search, Start
from cheaplip.pairs.chains import Chain, chain_of
from cheaplip.pairs.steepness import apply, widen
from cheaplip.penalties.carrier import Adversary, attacked
from cheaplip.penalties.minibatch import check_fits, look_at
from cheaplip.penalties.reduction import check_reduce
from cheaplip.penalties.sharing import is_constant, shared
from cheaplip.penalties.weighing import assign, check_cap, check_power, check_weight, weighted

# The lifetime of a pair in moves, chosen by measurement on the selection split: see docs/choices.md.
LIFETIME = 16


@final
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
        search: ``"ascent"``, ``"paper"``, ``"power"`` or a callable, see :class:`cheaplip.pairs.Pairs`.
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
    served: Tensor
    served_distance: Tensor

    __setattr__ = assign

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
        self.reduce, self.power, self.cap = check_reduce(reduce), check_power(power), check_cap(cap)
        self.steps, self.every = whole_number(steps, "steps"), whole_number(every, "every")
        self.pairs = Pairs(u, v, p_in=p_in, p_out=p_out, search=search, renew=renew, box=box,
                           min_distance=min_distance, step=step)  # fmt: skip
        self.register_buffer("weight", u.new_tensor(check_weight(weight)))
        self.register_buffer("value", u.new_zeros(()))
        self.calls, self.reduced = 0, self.value
        if self.every > 1:
            # What serves at the calls at which nothing moves: the points as they were measured last.
            largest = self.reduce.name == "max"
            self.register_buffer("served", torch.cat([u[:1], v[:1]] if largest else [u, v]))
            self.register_buffer("served_distance", u.new_full(() if largest else (len(u),), math.inf))

    @classmethod
    def from_data(
        cls, x: Tensor, *, weight: float, pairs: int = 32, start: str = "noise", seed: int = 0, **arguments: Any
    ) -> LipschitzPenalty:
        """Return a penalty whose pairs start from data, X_Lip's pool, and are renewed from it.

        Args:
            x: samples ``(n, *input)``, floating, finite, in the box; not the test set.
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
        pool = Start(x, kind=start, seed=seed, box=arguments.get("box"))
        penalty = cls(*pool.draw(whole_number(pairs, "pairs")), weight=weight, **arguments)
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
        inner, used, apart = look_at(model, modules)
        with frozen(used) if apart else nullcontext():
            points, distance = self._take(inner, None, None)
            output_u, output_v = apply(inner, points).chunk(2)
            return self._weigh(self.reduce.quotients(output_u, output_v, distance, self.pairs.p_out))

    def joint(
        self,
        model: Model,
        x: Tensor,
        y: Tensor | None = None,
        *,
        adversary: Adversary | None = None,
        modules: Iterable[nn.Module] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return ``(model(x), penalty(model))`` with the maximal pair riding in the minibatch: the cheapest way.

        With an adversary, its points take the place of ``x``. All pairs share the minibatch's forward in a chain of
        plain layers, elsewhere the adversary's first one. Where the model computes something else on pairs than on
        data (BatchNorm and Dropout in train mode, autocast), pairs get a forward of their own.

        Args:
            model: a module, wrapped or not, or any callable of its input.
            x: the minibatch ``(B, *input)``.
            y: its labels, for the adversary alone.
            adversary: an attack ``(model, x, y) -> x_adv``; the model that it is given may be another module, which
                answers as the model does in eval mode.
            modules: as in :meth:`forward`.

        Raises:
            ValueError: as in :meth:`forward`, or if ``x`` does not fit the pairs.

        Example:
            >>> penalty = LipschitzPenalty(torch.zeros(4, 3), torch.ones(4, 3), weight=0.5)
            >>> logits, reg = penalty.joint(nn.Linear(3, 2), torch.rand(5, 3))
            >>> logits.shape, reg.shape
            (torch.Size([5, 2]), torch.Size([]))
        """
        check_fits(x, self.pairs.points)
        chain = self._chain(model)
        inner, used, apart = look_at(model, modules) if chain is None else (chain.model, (chain.model,), False)
        riding = chain is None and self.training and not apart and self.calls % self.every == 0
        x, measured = attacked(adversary, inner, used, x, y, self.pairs if riding else None)
        if chain is not None and is_constant(x):
            return self._together(chain.behind(x))
        if apart:
            return model(x), self(model, modules=used)
        points, distance = self._take(inner, x, measured)
        count = distance.numel()
        output, samples = apply(model, points), len(x)  # no torch.split: its parts may not be changed in place
        at_u, at_v = output[samples : samples + count], output[samples + count :]
        return output[:samples], self._weigh(self.reduce.quotients(at_u, at_v, distance, self.pairs.p_out))

    def _chain(self, model: Model) -> Chain | None:
        """Return the chain of plain layers that a model is, if pairs are to move and one forward can serve all."""
        moving = self.training and self.calls % self.every == 0
        alike = moving and self.reduce.name == "max" and not runs_in_low_precision(model)
        return chain_of(within(model)) if alike else None

    def _together(self, chain: Chain) -> tuple[Tensor, Tensor]:
        """Return the outputs at the minibatch ahead of the pairs, and the penalty, of one forward; the pairs move."""
        measured = self.pairs.climb(chain.model, self.steps, last=chain)
        logits, steepest = shared(chain, measured, self.pairs.p_out)
        penalty = self._weigh(steepest)
        self._buffers["value"].fill_(measured.values[measured.steepest])  # type: ignore[union-attr]
        self._move_on(measured)
        return logits, penalty

    def _take(self, function: Model, x: Tensor | None, measured: Measurement | None) -> tuple[Tensor, Tensor]:
        """Measure if that is not done, move, and return the points for the loss, behind ``x``, and their distances."""
        x_first = () if x is None else (x,)
        if self.training and self.calls % self.every:
            self.calls += 1
            return torch.cat((*x_first, self.served)), self.served_distance.clone()
        pairs = self.pairs
        measured = pairs.climb(function, self.steps, measured=measured) if self.training else pairs.measure(function)
        self.value.fill_(measured.values[measured.steepest])
        chosen, distance = self.reduce.chosen(pairs.points, measured)
        points = torch.cat((*x_first, chosen))
        if self.training:
            self._move_on(measured)
        return points, distance

    def _move_on(self, measured: Measurement) -> None:
        """Move the pairs, and keep what serves until they move again."""
        if self.every > 1:
            chosen, distance = self.reduce.chosen(self.pairs.points, measured)
            self.served.copy_(chosen)
            self.served_distance.copy_(distance)
        self.pairs.move(measured)
        self.__dict__["calls"] += 1

    def _weigh(self, value: Tensor) -> Tensor:
        """Multiply the reduced quotients by λ."""
        self.__dict__["reduced"] = value.detach()
        return weighted(value, self.weight, self.power, self.cap)

    def _apply(self, function: Callable[..., Any], recurse: bool = True) -> LipschitzPenalty:
        super()._apply(function, recurse)  # type: ignore[no-untyped-call]
        self._buffers["weight"], self._buffers["value"] = widen(self.weight), widen(self.value)  # unchecked
        self.reduced = self.value
        return self

    def get_extra_state(self) -> Tensor:
        """Return the number of calls, on which ``every`` depends."""
        return torch.tensor(self.calls)

    def set_extra_state(self, state: Any) -> None:
        """Set the number of calls."""
        self.calls = int(state)
