"""The ways of training that ``front.py`` compares, each with one number that is tuned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

import cheaplip as cl
from cheaplip.data import BatchLoader, Data
from cheaplip.models import build
from cheaplip.training.ranks import Ranks, default_fabric
from cheaplip.training.step import Step

NETWORK = "mlp:784-200-80-10:relu"
BATCH, RATE, MOMENTUM = 128, 0.1, 0.9
BOX = (0.0, 1.0)
EPS = 1.5  # of TRADES, whose own number is β

# Of the network, the images that feed pairs, and the number: arguments of `fit`.
Make = Callable[[nn.Module, Tensor, float], dict[str, Any]]


def _driven(penalty: Any, target: float, step: float) -> dict[str, Any]:
    return {"penalty": penalty, "control": cl.Discrepancy(penalty, target=target, step=step)}


def _clip(x: Tensor, **others: Any) -> cl.LipschitzPenalty:
    settings: dict[str, Any] = {"weight": 0.05, "pairs": 16, "box": BOX}
    return cl.LipschitzPenalty.from_data(x, **(settings | others))


def _both(x: Tensor, target: float, **others: Any) -> dict[str, Any]:
    return {"adversary": cl.attacks.one_step(1.0, box=BOX)} | _driven(_clip(x, **others), target, 3e-3)


def _pgd(eps: float) -> cl.attacks.PGD:
    return cl.attacks.PGD(eps, steps=7, loss="cross-entropy", early_stop=False, box=BOX)


@dataclass(frozen=True)
class Method:
    """A way of training.

    Args:
        name: what tables call it.
        knob: what its one number is called.
        values: the numbers that are tried.
        make: gives the arguments of ``fit``, and the learning rate as ``rate`` where it is not the usual one.
    """

    name: str
    knob: str
    values: tuple[float, ...]
    make: Make = field(repr=False)


def _reduced(name: str, reduce: str | tuple[str, float]) -> Method:
    return Method(name, "target", (0.97,), lambda net, x, target: _driven(_clip(x, reduce=reduce), target, 3e-3))


TARGETS, ATTACKED, RADII = (0.95, 0.97, 0.98), (0.86, 0.89, 0.92), (1.0, 1.5, 2.0)
METHODS = (
    Method("plain", "rate", (0.03, 0.1, 0.3), lambda net, x, rate: {"rate": rate}),
    Method("weight", "target", TARGETS, lambda net, x, target: _driven(cl.WeightPenalty(weight=0.0), target, 1e-3)),
    Method(
        "layer product",
        "target",
        TARGETS,
        lambda net, x, target: _driven(cl.LayerProductPenalty(net, x[:1], weight=0.0), target, 3e-3),
    ),
    Method("CLIP", "target", TARGETS, lambda net, x, target: _driven(_clip(x), target, 3e-3)),
    Method("CLIP, roaming", "target", TARGETS, lambda net, x, target: _driven(_clip(x, box=None), target, 3e-3)),
    Method("Jacobian", "λ", (0.01, 0.03, 0.1), lambda net, x, weight: {"penalty": cl.JacobianPenalty(weight=weight)}),
    Method(
        "ALP",
        "λ",
        (0.1, 0.3, 1.0),
        lambda net, x, weight: {"penalty": cl.AdversarialLipschitzPenalty(weight=weight, distance=0.5)},
    ),
    Method("one-step", "ε", RADII, lambda net, x, eps: {"adversary": cl.attacks.one_step(eps, box=BOX)}),
    Method("one-step + CLIP", "target", ATTACKED, lambda net, x, target: _both(x, target)),
    Method("one-step + CLIP, roaming", "target", ATTACKED, lambda net, x, target: _both(x, target, box=None)),
    Method("PGD-7", "ε", RADII, lambda net, x, eps: {"adversary": _pgd(eps)}),
    Method(
        "TRADES",
        "β",
        (1.0, 3.0, 6.0),
        lambda net, x, beta: {"penalty": cl.TradesPenalty(EPS, weight=beta, steps=7, box=BOX)},
    ),
)
# The same target for the largest quotient, the mean, and what lies between.
REDUCTIONS = (
    _reduced("CLIP, mean", "mean"),
    _reduced("CLIP, T = 1", ("softmax", 1.0)),
    _reduced("CLIP, T = 0.3", ("softmax", 0.3)),
    _reduced("CLIP, T = 0.1", ("softmax", 0.1)),
    _reduced("CLIP, T = 0.03", ("softmax", 0.03)),
    _reduced("CLIP, max", "max"),
)


def trained(method: Method, value: float, data: Data, epochs: int, seed: int) -> tuple[nn.Module, cl.History]:
    """Train a network with one value of a method's number."""
    net = build(NETWORK, shape=data.shape, classes=data.classes, seed=seed)
    arguments = method.make(net, data.lipschitz.x, value)
    loader = BatchLoader(data.train.x, data.train.y, BATCH, seed=seed)
    optimizer = torch.optim.SGD(net.parameters(), lr=arguments.pop("rate", RATE), momentum=MOMENTUM)
    history = cl.fit(
        net,
        loader,
        loss=nn.CrossEntropyLoss(),
        optimizer=optimizer,
        epochs=epochs,
        scheduler=CosineAnnealingLR(optimizer, epochs * len(loader)),
        scheduler_per="batch",
        seed=seed,
        progress=False,
        **arguments,
    )
    return net, history


def step_of(method: Method, x: Tensor, batches: list[tuple[Tensor, Tensor]]) -> Callable[[], None]:
    """Return a training step of a method, as ``fit`` makes it, that goes round a few minibatches."""
    net = build(NETWORK, shape=x.shape[1:], classes=10, seed=0)
    arguments = method.make(net, x, method.values[0])
    penalty, control = arguments.get("penalty"), arguments.get("control")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=MOMENTUM)
    step = Step(
        net,
        optimizer,
        nn.CrossEntropyLoss(),
        [] if penalty is None else [penalty],
        [] if control is None else [control],
        arguments.get("adversary"),
        Ranks(default_fabric(net)),
    )
    turn = 0

    def run() -> None:
        nonlocal turn
        step(*batches[turn % len(batches)])
        turn += 1

    return run
