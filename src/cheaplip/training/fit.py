"""fit(): the joint loop, with control, adversary, selection and checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cheaplip.control import Discrepancy
from cheaplip.pairs.starts import STRIDE
from cheaplip.training.checkpoint import Checkpoint, random_state, set_random_state
from cheaplip.training.checks import (
    check_calls,
    check_model,
    check_optimizer,
    check_penalties,
    check_plan,
    check_surroundings,
)
from cheaplip.training.history import History
from cheaplip.training.loop import train
from cheaplip.training.measures import Measures
from cheaplip.training.ranks import Ranks, default_fabric
from cheaplip.training.sharded import states_of
from cheaplip.training.state import states_of_loader, states_of_penalties
from cheaplip.training.step import Step

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def fit(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    loss: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    epochs: int,
    penalty: Any | Sequence[Any] | None = None,
    control: Discrepancy | Sequence[Discrepancy] | None = None,
    control_per: str = "batch",
    scheduler: Any | None = None,
    scheduler_per: str = "epoch",
    adversary: Callable[[nn.Module, Tensor, Tensor], Tensor] | None = None,
    select: Callable[[nn.Module], float] | None = None,
    accuracy: Callable[[nn.Module], float] | None = None,
    lower: Callable[[nn.Module], float] | None = None,
    lower_every: int = 1,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    fabric: Fabric | None = None,
    gradient: str = "max",
    accumulate: int = 1,
    progress: bool | None = None,
) -> History:
    """Train a model; the same as the loop with ``penalty.joint`` written out by hand, bit for bit.

    Args:
        model: the network, trained in place; in the end it holds the weights of the kept epoch, in eval mode.
        loader: minibatches ``(x, y)``; if it has ``set_epoch``, it is told the epoch, counted from 0. For a resumed
            run to be exact, the order must depend on the epoch, on torch's global generator or on the torch.Generator
            of the loader or its sampler.
        loss: of outputs and labels, a scalar; a :class:`MarginLoss` may be driven by a control, as penalties are.
        optimizer: over the model's parameters.
        epochs: how many.
        penalty: one or several; their terms add. One with ``joint`` shares the minibatch's forward, one with
            ``needs_batch`` is called as ``penalty(model, x)``.
        control: one or several :class:`Discrepancy`, each fed with what it measures: training accuracy, loss or the
            penalty's own ``value``.
        control_per: ``"batch"`` (the paper) or ``"epoch"``, when the controls are fed.
        scheduler: a learning rate scheduler; ReduceLROnPlateau is given the epoch's training loss.
        scheduler_per: ``"epoch"`` or ``"batch"``, when it is stepped.
        adversary: an attack, whose points replace the minibatch (min-max training); statistics stay frozen
            while it searches. One with a ``threat`` shares its first forward and backward with a penalty's pairs.
        select: a score of the model, higher is better, taken after each epoch; the best epoch is kept, among those
            whose training accuracy is within a point of the control's target if there is one. None keeps the last.
        accuracy: the training accuracy of the model as it stands, which tells ``select`` the epochs within a point of
            the target; None takes the mean over the epoch's minibatches, which lags behind the weights.
        lower: a stronger lower bound of Lip, recorded beside the penalty's own value.
        lower_every: after every so many epochs, and the last.
        seed: of torch's global generator while training (Dropout, adversary); restored afterwards.
        checkpoint: a folder for the checkpoint and the history (``metrics.csv``), written after each epoch; None writes
            nothing. With it, Ctrl-C and SIGTERM let the running step finish and save, in the main thread; a second
            Ctrl-C stops at once.
        resume: go on from the checkpoint in that folder; without one there, begin. Inside an epoch goes on a loader
            with ``iterate(start)`` as :class:`cheaplip.data.BatchLoader` has it; any other begins the epoch anew.
        fabric: a Lightning Fabric of your own (devices, nodes, precision), launched; by default the model's device
            alone. With several processes each calls ``fit`` with the same arguments: the pairs are spread over them, a
            DataLoader gets a DistributedSampler, and all have the same λ. A model that ``fully_shard`` (FSDP2) has
            spread over them, before its optimizer was made, stays so.
        gradient: how several processes make one penalty of their pairs, ``"max"`` or ``"mean"``: see
            :func:`cheaplip.agree`.
        accumulate: in how many parts a minibatch goes through the model; their gradients add up, so that a minibatch
            too large for the memory can be trained on. The step is the same, save for BatchNorm, which sees each part.
        progress: show a bar; by default if standard error is a terminal.

    Returns:
        The history; ``history.kept`` is the epoch whose weights were kept.

    Raises:
        ValueError: for an argument out of range, an empty loader, a loss or score that is not finite, a
            checkpoint that is in the way or does not fit, or a folder that cannot be written to.
        KeyboardInterrupt: for Ctrl-C; it says how to go on.
        TypeError: for an argument of another type.
        ImportError: without Lightning Fabric (``pip install "cheaplip[cli]"``).

    Reference: Bungert et al. 2021, Algorithm 2; Madry et al. 2018 for ``adversary``.

    Example:
        >>> net = nn.Linear(2, 2)
        >>> data = [(torch.randn(8, 2), torch.randint(2, (8,)))]
        >>> sgd = torch.optim.SGD(net.parameters(), lr=0.1)
        >>> history = fit(net, data, loss=nn.functional.cross_entropy, optimizer=sgd, epochs=2)
        >>> len(history), history.kept
        (2, 2)
    """
    penalties, controls = _listed(penalty), _listed(control)
    check_model(model, loader)
    check_plan(epochs, lower_every, accumulate, control_per, scheduler_per, scheduler)
    check_optimizer(optimizer, model)
    check_penalties(penalties, controls, loss)
    check_calls(loss, adversary=adversary, select=select, accuracy=accuracy, lower=lower)
    check_surroundings(seed, checkpoint, resume, fabric, progress)
    ranks = Ranks(fabric or default_fabric(model), gradient)
    loader = ranks.share(loader, penalties)
    states = {**states_of(model, optimizer), "scheduler": scheduler, **states_of_loader(loader)}
    kept = _checkpoint(checkpoint, states, loss, penalties, controls, ranks)
    measure = Measures(model, select, accuracy, lower, lower_every, epochs, controls)
    with _seeded(seed + ranks.rank * STRIDE):
        kept.begin(resume)
        step = Step(model, optimizer, loss, penalties, controls, adversary, ranks, accumulate)
        step.plan(scheduler, scheduler_per, control_per)
        train(step, loader, epochs, kept, measure, progress)
        return kept.finish()


def _checkpoint(
    folder: str | Path | None,
    parts: dict[str, Any],
    loss: Any,
    penalties: list[Any],
    controls: list[Discrepancy],
    ranks: Ranks,
) -> Checkpoint:
    driving = {f"control_{k}": c for k, c in enumerate(controls)}
    stateful = isinstance(loss, nn.Module) and bool(loss.state_dict())  # such as MarginLoss
    parts = parts | states_of_penalties([*penalties, loss] if stateful else penalties) | driving
    configured = {f"penalty_{k}": p for k, p in enumerate(penalties)} | driving
    return Checkpoint(None if folder is None else Path(folder), parts, ranks, configured)


def _listed(one_or_more: Any) -> list[Any]:
    if one_or_more is None:
        return []
    return list(one_or_more) if isinstance(one_or_more, (list, tuple)) else [one_or_more]


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    before = random_state()
    torch.manual_seed(seed)
    try:
        yield
    finally:
        set_random_state(before)
