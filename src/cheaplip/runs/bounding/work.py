"""bound(): enclose a Lipschitz constant, judge a claim, and leave picture, certificate, witness and results."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from cheaplip.lipschitz import Bound, lower
from cheaplip.lipschitz.effort import effort
from cheaplip.lipschitz.enclosing import enclosed
from cheaplip.lipschitz.layers import Layer, layers
from cheaplip.lipschitz.lower import lower_at
from cheaplip.lipschitz.upper import upper_at
from cheaplip.runs.bounding.enclosure import Enclosure, Proof
from cheaplip.runs.bounding.subject import Subject, points_of, subject_of
from cheaplip.runs.bounding.writing import check_places, written
from cheaplip.runs.outcome import saying
from cheaplip.runs.parts import shows
from cheaplip.settings import BoundsSettings

NAMES = {"product": "layer product", "eclipse": "ECLipsE-Fast", "sdp": "LipSDP-Neuron", "auto": "LipSDP-Neuron",
         "exact": "all linear regions"}  # fmt: skip
# What is tried on a claim that stays open: so many further searches, each so many times as long as the first.
AGAIN, LONGER = 3, 3
# For the bounds of the network's beginnings.
SECONDS = 5.0


def bound(target: str | Path, settings: BoundsSettings | None = None, *, progress: bool | None = None) -> Enclosure:
    """Enclose the Lipschitz constant of a run's network, or of one that a factory makes, and judge a claim.

    Leaves ``bounds.png``; for a run the bounds join its ``result.json``, where a worse one replaces no better one.

    Args:
        target: the run folder, or ``pkg.mod:factory``, whose code is run.
        settings: norm, domain, method, claim and places; by default all space in the norm of the run.
        progress: show what is going on; by default if standard error is a terminal.

    Returns:
        What was found. Of a network with a layer that is not understood there is no upper bound, but the reason.

    Raises:
        FileNotFoundError: if the run, or its data, is missing.
        ValueError: for a network, a shape or a place that does not fit, weights that are not finite, or a damaged file.
        TypeError: if a factory returns no module.

    Example:
        >>> bound("runs/none")
        Traceback (most recent call last):
        FileNotFoundError: expected a run folder, found no folder runs/none: make one with `cheaplip train`
    """
    settings = BoundsSettings() if settings is None else settings
    subject, data = subject_of(str(target), settings)
    check_places(subject, settings)
    x, box = points_of(subject, settings, data)
    within = box if settings.domain == "box" else None
    shown = shows(progress)
    proofs, why = _proofs(subject, settings, x, within, shown)
    if not proofs and settings.save is not None:
        raise ValueError(f"there is no certificate to save: {why}")
    with saying("searching for the steepest pair", shown):
        begun = time.perf_counter()
        below = _lower(subject, x, within, proofs, subject.seed, settings.steps)
        found = Enclosure(subject.name, subject.p, within, below, time.perf_counter() - begun, proofs, why)
        found = _against(replace(found, claim=settings.claim), subject, settings, x)
    with saying("looking at the layers", shown):
        found = replace(found, layers=_layers(subject, settings, x, found))
    return written(replace(found, remarks=_hurried(proofs, settings)), subject, settings)


def _hurried(proofs: Sequence[Proof], settings: BoundsSettings) -> list[str]:
    """Say what more time would be good for."""
    if settings.method == "exact" and any(not proof.finished for proof in proofs):
        return [
            f"the linear regions were searched for {settings.seconds:g} s, not to the end; --seconds gives it longer"
        ]
    if settings.method in ("auto", "sdp") and proofs and proofs[-1].seconds > settings.seconds:
        return [f"the upper bound was improved for {settings.seconds:g} s; --seconds gives it longer"]
    return []


def _proofs(
    subject: Subject, settings: BoundsSettings, x: Tensor, box: tuple[float, float] | None, shown: bool
) -> tuple[list[Proof], str]:
    """Return upper bounds, from the loosest to the best, or why there are none."""
    best: dict[str, Proof] = {}
    for method in _methods(subject.p, settings.method):
        if method == "eclipse" and any(proof.seconds > settings.seconds for proof in best.values()):
            continue  # it is here to compare with the best, and would take its time again
        begun = time.perf_counter()
        with saying(f"proving an upper bound: {NAMES[method]}", shown):
            try:
                above, point = upper_at(subject.model, x[:1], p=subject.p, method=method, domain=settings.domain,
                                        box=box or (0.0, 1.0), seconds=settings.seconds)  # fmt: skip
            except TypeError as error:
                return [], str(error)
        proof = Proof(above, time.perf_counter() - begun, point)
        if above.method not in best or above.value < best[above.method].bound.value:
            best[above.method] = proof
    return sorted(best.values(), key=_value, reverse=True), ""


def _methods(p: float, method: str) -> list[str]:
    """Return what is tried: beside an exact value, which has no certificate, there are bounds that have one."""
    if p != 2:
        return ["product", method] if method == "exact" else [method]
    others = {"product": ["eclipse"], "exact": ["auto", "eclipse"]}.get(method, ["eclipse"])
    return list(dict.fromkeys(["product", method, *([] if method == "product" else others)]))


def _value(proof: Proof) -> float:
    return proof.bound.value


def _lower(
    subject: Subject,
    x: Tensor,
    box: tuple[float, float] | None,
    proofs: Sequence[Proof],
    seed: int,
    steps: int | None,
) -> Bound:
    below = lower(subject.model, x, p_in=subject.p, p_out=subject.p, box=box, steps=steps, seed=seed)
    for proof in proofs:
        if proof.point is not None:
            there = lower_at(subject.model, x, proof.point, p=subject.p, box=box)
            below = max(below, there, key=float)
    return replace(below, value=enclosed(below, proofs[-1].bound).lower) if proofs else below


def _against(found: Enclosure, subject: Subject, settings: BoundsSettings, x: Tensor) -> Enclosure:
    """Search longer, from other starts, for a pair that refutes a claim that is open."""
    begun, each = time.perf_counter(), LONGER * found.lower_seconds
    for k in range(1, AGAIN + 1):
        # A search is not begun that would end too late.
        if found.verdict != "open" or time.perf_counter() - begun + each > settings.seconds:
            break
        steps = LONGER * (settings.steps or effort(subject.model, x)[1])
        below = _lower(subject, x, found.box, found.proofs, subject.seed + k, steps)
        if below.value > found.lower.value and below.proven >= found.lower.proven:
            found = replace(found, lower=below)
    return replace(found, lower_seconds=found.lower_seconds + time.perf_counter() - begun)


def _layers(subject: Subject, settings: BoundsSettings, x: Tensor, found: Enclosure) -> list[Layer]:
    if found.upper is None:
        return []
    return layers(
        subject.model,
        x[:1],
        p=subject.p,
        method=settings.method,
        domain=settings.domain,
        box=found.box or (0.0, 1.0),
        whole=found.upper,
        seconds=min(SECONDS, settings.seconds),
    )
