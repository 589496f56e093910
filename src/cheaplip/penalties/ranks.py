"""Data-parallel training: what all processes agree on in a step, by one small all-gather."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, final

import torch
import torch.distributed as dist
from torch import Tensor

from cheaplip.checks import whole_number
from cheaplip.penalties.lipschitz import LipschitzPenalty

GRADIENTS = ("max", "mean")


@final
class Figures(NamedTuple):
    """What a step tells of its minibatch; of one process, or of all.

    Attributes:
        correct: how many samples were classified correctly.
        samples: how many there were.
        loss: the sum of their losses.
        stop: above 0 where a process was asked to stop.
    """

    correct: Tensor | float
    samples: Tensor | float
    loss: Tensor | float
    stop: Tensor | float = 0.0


def processes() -> tuple[int, int]:
    """Return the number of this process and how many there are; 0 and 1 outside ``torch.distributed``.

    Example:
        >>> processes()
        (0, 1)
    """
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def spread(penalty: LipschitzPenalty, rank: int | None = None, count: int | None = None) -> None:
    """Leave each process its own share of a penalty's pairs, with draws of its own.

    Every process makes the same penalty and then calls this, once; :func:`cheaplip.fit` does so itself.

    Args:
        penalty: whose pairs are spread: the ``rank``-th of every ``count`` stays here.
        rank: the number of this process; None for that of ``torch.distributed``.
        count: how many processes there are; None likewise.

    Raises:
        ValueError: if there is not the same number of pairs for each process, they are spread already, or for a rank
            that is none.
        TypeError: for another penalty, which has no pairs.

    Example:
        >>> penalty = LipschitzPenalty(torch.zeros(4, 3), torch.ones(4, 3), weight=0.5)
        >>> spread(penalty, rank=0, count=2)
        >>> len(penalty.pairs)
        2
    """
    _check_penalty(penalty)
    rank, count = (mine if given is None else given for given, mine in zip((rank, count), processes(), strict=True))
    if whole_number(rank, "rank", low=0) >= whole_number(count, "count"):
        raise ValueError(f"rank must be below count, the number of processes, {count}; got {rank}")
    if count == 1:
        return
    pairs = len(penalty.pairs)
    if penalty.pairs.shares > 1:
        raise ValueError(f"the pairs are spread over {penalty.pairs.shares} processes already: make the penalty anew")
    if pairs % count:
        raise ValueError(
            f"each process needs as many pairs as the others; got {pairs} pairs for {count} processes: take "
            f"{max(1, pairs // count) * count} or {(pairs // count + 1) * count}"
        )
    penalty.pairs.keep(rank, count)
    if penalty.every > 1 and penalty.reduce.name != "max":
        penalty.served = penalty.pairs.points.clone()
        penalty.served_distance = penalty.served_distance[: len(penalty.pairs)].clone()


def agree(
    penalty: LipschitzPenalty, term: Tensor, output: Tensor, y: Tensor, *, gradient: str = "max"
) -> tuple[Tensor, Tensor]:
    """Return a penalty's term and the accuracy as they are over all processes, in a data-parallel loop of your own.

    Each process has its own pairs (:func:`spread`) and calls this after the forward, once a step:
    one all-gather of a few numbers. DistributedDataParallel averages the gradients, so the term is multiplied by N in
    the process that holds the largest quotient, the first of them on a tie, and by 0 in all others. ``penalty.value``
    becomes the value over all pairs. With one process nothing changes.

    Args:
        penalty: whose pairs are spread.
        term: what its call returned.
        output: the outputs on the minibatch, ``(batch, classes)``.
        y: its labels, ``(batch,)``, integers.
        gradient: ``"max"``, the gradient of what ``reduce`` makes of all pairs; ``"mean"``, the mean of the gradients
            of what it makes of each process's pairs, which is steadier and below it.

    Returns:
        The term for the loss, and the accuracy over all processes, for :meth:`cheaplip.Discrepancy.step`.

    Raises:
        ValueError: for another gradient, or outputs and labels that do not fit.
        TypeError: for another penalty, or what is no tensor.

    Example:
        >>> net, penalty = torch.nn.Linear(3, 2), LipschitzPenalty(torch.zeros(4, 3), torch.ones(4, 3), weight=0.5)
        >>> x, y = torch.rand(6, 3), torch.zeros(6, dtype=torch.int64)
        >>> logits, reg = penalty.joint(net, x)
        >>> reg, accuracy = agree(penalty, reg, logits, y)
    """
    _check_penalty(penalty)
    check_gradient(gradient)
    if not isinstance(term, Tensor) or term.numel() != 1:
        raise TypeError(f"term must be what the penalty returned, a tensor with one entry; got {type(term).__name__}")
    if not isinstance(output, Tensor) or not isinstance(y, Tensor):
        raise TypeError(f"output and y must be tensors; got {type(output).__name__} and {type(y).__name__}")
    kinds = output.is_floating_point() and not y.is_floating_point() and not y.is_complex()
    if not kinds or output.dim() != 2 or y.shape != output.shape[:1] or not output.numel():
        raise ValueError(
            "output must be floating, (batch, classes), and y integers (batch,); got "
            f"{output.dtype} {tuple(output.shape)} and {y.dtype} {tuple(y.shape)}"
        )
    if y.device != output.device:
        raise ValueError(f"output and y must be on one device; got {output.device} and {y.device}")
    correct = (output.detach().argmax(1) == y).sum()
    if processes()[1] == 1:
        return term, correct / len(y)
    (factor,), figures = exchange([penalty], Figures(correct, len(y), 0.0), gradient)
    return factor * term, torch.as_tensor(figures.correct / figures.samples).to(term)


def _check_penalty(penalty: Any) -> None:
    if not isinstance(penalty, LipschitzPenalty):
        raise TypeError(f"penalty must be a LipschitzPenalty, which has pairs to spread; got {type(penalty).__name__}")


def check_gradient(gradient: Any) -> None:
    """Raise unless it is one of the ways in which processes make one gradient of theirs."""
    if gradient not in GRADIENTS:
        raise ValueError(f'gradient must be "max" or "mean"; got {gradient!r}')


def exchange(
    penalties: Sequence[LipschitzPenalty], mine: Figures, gradient: str = "max", others: Sequence[Any] = ()
) -> tuple[list[Tensor], Figures]:
    """Tell all processes of this one's step, and return what to multiply its terms by, and the figures of all.

    Args:
        penalties: whose last call told quotients; their ``value`` becomes that over all processes.
        mine: of this process.
        gradient: as in :func:`agree`.
        others: penalties on the minibatch; their ``value``, a mean or the ``largest`` there, becomes that over all.

    Returns:
        For each penalty a factor; the figures, summed over all processes.
    """
    rank, count = processes()
    like = penalties[0].weight if penalties else torch.as_tensor(mine.loss)
    quotients = [figure for penalty in penalties for figure in (penalty.reduced, penalty.value)]
    told = (*quotients, *mine, *(penalty.value.detach().reshape(()) for penalty in others))
    row = torch.stack([torch.as_tensor(f, dtype=torch.float64, device=like.device) for f in told])
    rows = [torch.empty_like(row) for _ in range(count)]
    dist.all_gather(rows, row.detach())
    table = torch.stack(rows)
    factors = []
    for number, penalty in enumerate(penalties):
        reduced, largest = table[:, 2 * number], table[:, 2 * number + 1]
        penalty.value.copy_(largest.max())
        factors.append(_factor(penalty, reduced, rank, gradient).to(penalty.weight.dtype))
    figures = Figures(*(own := table[:, len(quotients) :])[:, : len(mine)].sum(0))
    shares = Figures(*own.T[: len(mine)]).samples / figures.samples
    for penalty, values in zip(others, own.T[len(mine) :], strict=True):
        whole = values.max() if getattr(penalty, "largest", False) else (shares * values).sum()
        penalty.value = whole.to(penalty.value).reshape(penalty.value.shape)
    return factors, figures


def _factor(penalty: LipschitzPenalty, reduced: Tensor, rank: int, gradient: str) -> Tensor:
    """Return what the term of a process is multiplied by, so that the mean of all gradients is the one wanted."""
    if gradient == "mean":
        return torch.ones_like(reduced[rank])
    count = len(reduced)
    if penalty.reduce.name == "max":
        largest = reduced == reduced.max()
        return count * (largest[rank] & ~largest[:rank].any()).to(reduced.dtype)
    share = torch.ones_like(reduced) / count
    if penalty.reduce.name == "softmax":
        share = torch.softmax(reduced / penalty.reduce.temperature, 0)
    whole = penalty.reduce(reduced, torch.zeros_like(reduced))
    return count * share[rank] * _slope(penalty, whole) / _slope(penalty, reduced[rank])


def _slope(penalty: LipschitzPenalty, value: Tensor) -> Tensor:
    """Return by what power and cap multiply the gradient of a reduced value; 1 for neither, and never 0."""
    cap = torch.ones_like(value)
    if penalty.cap is not None:
        cap = penalty.cap / value.clamp_min(penalty.cap)
    slope = cap if penalty.power == 1 else cap * (value * cap)
    return slope.clamp_min(torch.finfo(slope.dtype).tiny)
