"""Every public function and class of the library, how it is called rightly, and what it is called wrongly with."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

import cheaplip as cl
from cheaplip import norms

IMAGES = torch.rand(6, 1, 6, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(6) % 5


def net() -> nn.Sequential:
    """Return a small network, the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.ReLU(), nn.Linear(4, 5)).eval()


@final
@dataclass
class Call:
    """A public name.

    Args:
        run: what it does, by keyword.
        arguments: that make it work.
        tried: the arguments that are tried; None for all.
    """

    run: Callable[..., Any]
    arguments: dict[str, Any] = field(default_factory=dict)
    tried: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Add the arguments that have defaults."""
        known = inspect.signature(self.run).parameters.values()
        defaults = {p.name: p.default for p in known if p.default is not p.empty and p.kind != p.VAR_KEYWORD}
        self.arguments = {**defaults, **self.arguments}


def attacks(kind: Callable[..., Any], **made: Any) -> Call:
    """Return the row of an attack, made and called at once."""

    def run(model: Any, x: Any, y: Any, **arguments: Any) -> Any:
        return kind(**arguments)(model, x, y)

    parameters = inspect.signature(kind).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    return Call(run, {"model": net(), "x": IMAGES, "y": LABELS, **defaults, **made})


def penalties(make: Callable[..., Any], **made: Any) -> Call:
    """Return the row of a penalty on the minibatch, made and called at once."""

    def run(model: Any, x: Any, **arguments: Any) -> Any:
        penalty = make(**arguments)
        return penalty(model, x), penalty.joint(model, x)

    parameters = inspect.signature(make).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    return Call(run, {"model": net(), "x": IMAGES, **defaults, **made})


def _lipschitz(model: Any, u: Any, v: Any, x: Any, **arguments: Any) -> Any:
    penalty = cl.LipschitzPenalty(u, v, **arguments)
    return penalty(model), penalty.joint(model, x)


def _from_data(model: Any, x: Any, **arguments: Any) -> Any:
    return cl.LipschitzPenalty.from_data(x, **arguments)(model)


def _of_model(kind: Callable[..., Any]) -> Callable[..., Any]:
    return lambda model, **arguments: kind(model, **arguments)(model)


def _margin(model: Any, logits: Any, y: Any, weight: Any, bound: Any = "product", ramp: Any = 0) -> Any:
    return cl.MarginLoss(model, weight=weight, bound=bound, ramp=ramp)(logits, y)


def _fit(x: Any, y: Any, model: Any = None, **arguments: Any) -> Any:
    model = net() if model is None else copy.deepcopy(model)
    optimizer = torch.optim.SGD(net().parameters() if not isinstance(model, nn.Module) else model.parameters(), lr=0.1)
    return cl.fit(model, [(x, y)], **{"loss": nn.CrossEntropyLoss(), "optimizer": optimizer, **arguments})


def _control(value: Any, **arguments: Any) -> Any:
    return cl.Discrepancy(cl.WeightPenalty(weight=1.0), **arguments).step(value)


def _evaluate(x: Any, y: Any, **arguments: Any) -> Any:
    return cl.evaluate(arguments.pop("model"), (x, y), **arguments)


def _certificate() -> Any:
    return cl.lipschitz.upper(net(), IMAGES, method="product").certificate


def _patch(**changed: Any) -> Any:
    return cl.attacks.Patch(**{"picture": torch.rand(1, 3, 3), "target": 1, "area": 0.5, **changed})


A, L, G = cl.attacks, cl.lipschitz, torch.Generator
BATCH: dict[str, Any] = {"model": net(), "x": IMAGES, "y": LABELS}
CERTIFIED = L.certify(**BATCH, method="global")
CALLS: dict[str, Call | str] = {
    # The package
    "AdversarialLipschitzPenalty": penalties(cl.AdversarialLipschitzPenalty, weight=0.1, distance=0.5),
    "JacobianPenalty": penalties(cl.JacobianPenalty, weight=0.1),
    "TradesPenalty": penalties(cl.TradesPenalty, weight=0.1, eps=0.5, steps=2),
    "LipschitzPenalty": Call(
        _lipschitz,
        {"model": net(), "u": IMAGES, "v": 1 - IMAGES, "x": IMAGES, "weight": 0.1}
        | {
            name: p.default
            for name, p in inspect.signature(cl.LipschitzPenalty).parameters.items()
            if p.default is not p.empty
        },
    ),
    "LipschitzPenalty.from_data": Call(
        _from_data, {"model": net(), "x": IMAGES, "weight": 0.1, "pairs": 4, "start": "noise", "seed": 0}
    ),
    "LayerProductPenalty": Call(
        lambda model, x, **a: cl.LayerProductPenalty(model, x, **a)(model),
        {"model": net(), "x": IMAGES, "weight": 0.1, "power": 1, "seed": 0},
    ),
    "UpperBoundPenalty": Call(
        _of_model(cl.UpperBoundPenalty), {"model": net(), "weight": 0.1, "bound": "product", "power": 1}
    ),
    "MarginLoss": Call(_margin, {"model": net(), "logits": net()(IMAGES).detach(), "y": LABELS, "weight": 0.1}),
    "WeightPenalty": Call(lambda model, **a: cl.WeightPenalty(**a)(model), {"model": net(), "weight": 0.1, "power": 1}),
    "Discrepancy": Call(
        _control,
        {
            "value": 0.5,
            "target": 0.9,
            "step": 0.1,
            "measure": "accuracy",
            "rule": "additive",
            "warmup": 0,
            "floor": 0.0,
        },
    ),
    "evaluate": Call(
        _evaluate,
        {**BATCH, "attacks": {"noise": A.Gaussian(1.0)}, "radii": (), "seed": 0, "limit": None, "certify": False}
        | {"batch_size": 4, "device": None, "modules": None, "doubt": True, "cache": None},
    ),
    "fit": Call(
        _fit,
        {
            "x": IMAGES,
            "y": LABELS,
            "epochs": 1,
            "penalty": None,
            "control": None,
            "control_per": "batch",
            "scheduler": None,
        }
        | {
            "scheduler_per": "epoch",
            "adversary": None,
            "select": None,
            "accuracy": None,
            "lower": None,
            "lower_every": 1,
        }
        | {"seed": 0, "resume": False, "fabric": None, "model": net(), "loss": nn.CrossEntropyLoss()},
    ),
    "agree": Call(
        cl.agree,
        {
            "penalty": cl.LipschitzPenalty(IMAGES, 1 - IMAGES, weight=0.1),
            "term": torch.ones(1),
            "output": torch.rand(6, 5),
            "y": LABELS,
            "gradient": "max",
        },
    ),
    "spread": Call(
        lambda penalty, rank, count: cl.spread(copy.deepcopy(penalty), rank, count),
        {"penalty": cl.LipschitzPenalty(IMAGES, 1 - IMAGES, weight=0.1), "rank": 0, "count": 2},
    ),
    "load": Call(cl.load, {"path": "none"}),
    "History": "a record of what happened",
    # Attacks
    "APGD": attacks(A.APGD, eps=0.5, steps=3, targets=2),
    "DDN": attacks(A.DDN, steps=3),
    "FAB": attacks(A.FAB, steps=3, targets=2),
    "NES": attacks(A.NES, eps=0.5, queries=200),
    "PGD": attacks(A.PGD, eps=0.5, steps=3),
    "AutoAttack": Call(A.AutoAttack, {"eps": 0.5}),
    "Bisection": attacks(A.Bisection, rounds=2, steps=3),
    "Boundary": attacks(A.Boundary, steps=5),
    "CarliniWagner": attacks(A.CarliniWagner, steps=3, searches=2),
    "DeepFool": attacks(A.DeepFool, steps=3, classes=3),
    "Gaussian": attacks(A.Gaussian),
    "HopSkipJump": attacks(A.HopSkipJump, steps=2),
    "NESLabels": attacks(A.NESLabels, eps=0.5, queries=200),
    "PaperPGD": attacks(A.PaperPGD, steps=3),
    "Square": attacks(A.Square, eps=0.5, n_queries=20),
    "Patch": attacks(A.Patch, picture=torch.rand(1, 3, 3), target=1, area=0.5),
    "Closest": attacks(A.Closest, attacks=(A.Bisection(rounds=2, steps=3),)),
    "one_step": attacks(A.one_step, eps=0.5),
    "closest": Call(A.closest),
    "named": Call(A.named, {"name": "pgd", "eps": 1.0}),
    "suite": Call(A.suite, {"names": ["pgd"], "eps": [1.0]}),
    "doubts": Call(A.doubts, dict(BATCH)),
    "success": Call(A.success, {**BATCH, "patch": _patch()}),
    "easiest_target": Call(
        lambda model, x, y, **a: A.easiest_target(model, x, y, **a), {**BATCH, "steps": 2, "seed": 0, "area": 0.5}
    ),
    "train_patch": Call(A.train_patch, {"model": net(), "x": IMAGES, "target": 1, "steps": 2, "side": 3, "area": 0.5}),
    "Patch.lay": Call(lambda x: _patch().lay(x), {"x": IMAGES}),
    "Patch.on": Call(lambda area: _patch().on(area), {"area": 0.5}),
    "Patch.showing": Call(lambda picture: _patch().showing(picture), {"picture": torch.rand(1, 3, 3)}),
    "Patch.noise": Call(lambda seed: _patch().noise(seed), {"seed": 0}),
    "Threat": Call(A.Threat, {"norm": 2, "eps": 1.0, "box": (0.0, 1.0)}),
    "Threat.admits": Call(
        lambda **a: A.Threat(2, 1.0, (0.0, 1.0)).admits(**a), {"x": IMAGES, "x_adv": IMAGES, "tolerance": 1e-4}
    ),
    "queries_of": Call(
        lambda model, x, access: A.queries_of(model, access)(x), {"model": net(), "x": IMAGES, "access": "scores"}
    ),
    "Queries": "made by queries_of, whose row tries it",
    "Success": "a record of what was counted",
    "Attack": "a protocol",
    "NAMES": "a tuple of names",
    # Bounds
    # Its other arguments are those of lower and upper, whose rows try them more quickly.
    "bounds": Call(L.bounds, {"model": net(), "x": IMAGES * math.nan, "method": "product"}, ("model",)),
    "certify": Call(L.certify, {**BATCH, "method": "global", "seconds": 0.01}),
    "Certified.certified": Call(lambda eps: CERTIFIED.certified(eps), {"eps": 0.1}),
    "Certified.interval": Call(lambda eps: CERTIFIED.interval(eps), {"eps": 0.1}),
    "check": Call(L.check, {"certificate": _certificate(), "model": net()}),
    "lipschitz.load": Call(L.load, {"file": "none"}),
    "lower": Call(L.lower, {"model": net(), "x": IMAGES, "pairs": 4, "steps": 2, "seconds": 0.01}),
    "upper": Call(L.upper, {"model": net(), "x": IMAGES, "method": "product", "seconds": 0.01}),
    "register": Call(L.register, {"kind": nn.Bilinear}),
    "Bound": "a record of what was found",
    "Certificate": "a record, whose numbers check() proves again",
    "Certified": "a record of what was found",
    "Interval": "a record of what was found",
    # Norms
    "check_norm": Call(norms.check_norm, {"p": 2}),
    "dual": Call(norms.dual, {"p": 2.0}),
    "vector_norm": Call(norms.vector_norm, {"x": IMAGES}),
    "span": Call(norms.span, {"x": IMAGES}),
    "norm_gradient": Call(norms.norm_gradient, {"x": IMAGES}),
    "per_sample": Call(norms.per_sample, {"values": torch.ones(6), "like": IMAGES}),
    "project_ball": Call(norms.project_ball, {"x": IMAGES, "p": 1, "radius": 0.1}),
    "box_tensors": Call(norms.box_tensors, {"box": (0.0, 1.0), "like": IMAGES}),
}


def wrong(name: str, value: Any) -> dict[str, Any]:
    """Return what is wrong in place of an argument."""
    odd: dict[str, Any] = {
        "text": "text",
        "": "",
        "NaN": math.nan,
        "inf": math.inf,
        "-inf": -math.inf,
        "-1": -1,
        "0": 0,
    }
    odd |= {"half": 0.5, "list": [], "tuple": (1, 2, 3), "object": object()}
    odd |= {"None": None, "True": True}
    if not isinstance(value, Tensor):
        counts = ("steps", "pairs", "rounds", "restarts", "epochs", "queries", "n_queries", "seconds", "searches")
        return odd if name in counts or name in ("directions", "projections", "targets") else {**odd, "1e30": 1e30}
    odd = {key: odd[key] for key in ("text", "NaN", "list", "object", "None")} | {"array": np.zeros((2, 3))}
    odd |= {"integers": value.long(), "booleans": value > 0, "complex": value.to(torch.complex64)}
    odd |= {"half": value.half() if value.is_floating_point() else value.int(), "double": value.double()}
    odd |= {
        "no samples": value[:0],
        "one sample": value[:1],
        "no dimension": value.flatten()[0],
        "flat": value.flatten(),
    }
    odd |= {
        "more dimensions": value.unsqueeze(-1),
        "meta": value.to("meta"),
        "huge": torch.full_like(value, 1e30) if value.is_floating_point() else value * 10**12,
    }
    odd |= {"negative": -value - 1}
    if value.dim() > 1:
        odd |= {"no features": value[:, :0], "other features": value[..., :2]}
    if value.is_floating_point():
        odd |= {"not a number": value * math.nan, "infinite": value + math.inf}
    return odd
