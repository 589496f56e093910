"""Reasons not to believe what attacks report: tried on the model, and read off the results."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from cheaplip.attacks import PGD, Threat, doubts
from cheaplip.evaluation.attacking import AnyAttack, attacked, classified, is_minimal, threat_of
from cheaplip.evaluation.results import Result
from cheaplip.modes import Model
from cheaplip.norms import box_tensors, vector_norm

# So many images are tried; so many of them, or this part, may differ by chance.
IMAGES, CHANCE, PART = 100, 3, 0.02
# Of the attacks that are compared: few and many steps, and how many restarts.
FEW, MANY, RESTARTS = 10, 50, 3
# A proof and a measured distance may differ by rounding, relatively.
ROUNDING = 1e-4
# Without a box, a radius that is unbounded for all that matters, in units of the largest image.
FAR = 100.0


def probed(model: Model, x: Tensor, y: Tensor, attacks: Mapping[str, AnyAttack], seed: int) -> tuple[str, ...]:
    """Try whether attacks along the gradient can be believed on a model; return a sentence per finding.

    Beside a look at outputs and gradients, PGD runs as it must break a model that hides nothing: with a radius that
    reaches everything, with many steps where few did not do, and with restarts.

    Args:
        model: a classifier, in eval mode.
        x: images; the first hundred are taken.
        y: labels.
        attacks: that are run, by name; without a norm among them there is nothing to doubt.
        seed: of the random starts.

    Reference: Carlini et al. 2019, "On Evaluating Adversarial Robustness"; Croce and Hein 2020.
    """
    threats = [threat_of(attack) for attack in attacks.values() if threat_of(attack).eps or is_minimal(attack)]
    if not threats:
        return ()
    found = list(doubts(model, x, y))
    x, y = x[:IMAGES], y[:IMAGES]
    clean = classified(model, x, y, "on the images")
    with torch.enable_grad():
        z = model(x[:1].detach().requires_grad_())
    found += _lacking(attacks, z.shape[1])
    if not z.requires_grad:
        return tuple(found)
    threat = max(threats, key=lambda threat: threat.eps is not None)

    def robust(radius: float, steps: int = MANY, restarts: int = 1) -> int:
        attack = PGD(radius, threat.norm or 2.0, steps=steps, restarts=restarts, loss="margin", box=threat.box)
        return int(attacked("probe", attack, model, x, y, clean, seed).robust.sum())

    far = robust(_everything(x, threat))
    if far > max(len(x) / z.shape[1], CHANCE):
        found.append(
            f"{far} of {len(x)} images resist an attack that may change them into any other: it cannot follow this "
            "model's gradients"
        )
    if threat.eps is not None:
        few, many, again = (robust(threat.eps, *effort) for effort in ((FEW, 1), (MANY, 1), (MANY, RESTARTS)))
        found += _compared(len(x), few, many, again)
    return tuple(found)


def _lacking(attacks: Mapping[str, AnyAttack], classes: int) -> list[str]:
    """Say which attacks cannot do all that they are known for, once for each name."""
    told = {}
    for key, attack in attacks.items():
        lacks = attack.lacks(classes) if hasattr(attack, "lacks") else ""
        if lacks:
            name = key.partition("@")[0]
            told[name] = f"{name} is weaker here than elsewhere: {lacks}"
    return list(told.values())


def _compared(images: int, few: int, many: int, again: int) -> Iterator[str]:
    """Say what is wrong with the numbers of images that few steps, many, and restarts leave."""
    if many > few + CHANCE:
        yield f"{MANY} steps of PGD leave {many} of {images} images and {FEW} steps {few}: more must not leave more"
    if many > again + CHANCE:
        yield (
            f"{RESTARTS} starts of PGD leave {again} of {images} images and one start {many}: the gradient misleads, "
            "use more starts, or attacks without gradients"
        )


def _everything(x: Tensor, threat: Threat) -> float:
    """Return a radius within which every other image lies."""
    norm = float(threat.norm or 2.0)
    if threat.box is None:
        return FAR * max(1e-6, float(vector_norm(x, norm).max()))
    low, high = box_tensors(threat.box, x)
    return float(vector_norm((high - low).expand(1, *x.shape[1:]), norm))


def contradictions(results: Mapping[str, Result]) -> tuple[str, ...]:
    """Find results that cannot both be right: more broken within less, or with less access.

    Args:
        results: by key, all of the same images but for ``clean``.

    Example:
        >>> robust = torch.ones(100, dtype=torch.bool)
        >>> small, large = (Result("pgd", "PGD", robust, norm=2.0, eps=eps) for eps in (1.0, 2.0))
        >>> contradictions({"pgd@1": small, "pgd@2": large})
        ()
    """
    attacks = [r for r in results.values() if r.norm is not None and r.eps is not None and not r.proven]
    found = []
    for large in attacks:
        smaller = [r for r in attacks if (r.name, r.norm) == (large.name, large.norm) and r.eps < large.eps]  # type: ignore[operator]
        for small in smaller:
            if large.correct > small.correct + _chance(large):
                found.append(
                    f"{large.name} leaves {large.correct} images at radius {large.eps:g} and {small.correct} at "
                    f"{small.eps:g}: the accuracy must not grow with the radius"
                )
    for one in attacks:
        rivals = [r for r in attacks if r.norm == one.norm and r.eps == one.eps and not r.closed and not r.weak]
        if not one.closed or not rivals:
            continue
        missed = int((~one.robust & torch.stack([rival.robust for rival in rivals]).all(0)).sum())
        if missed > _chance(one):
            found.append(
                f"{one.name}, which only asks the model, breaks {missed} images at radius {one.eps:g} that resist "
                f"{' and '.join(rival.name for rival in rivals)}, which see its gradients: these are misled"
            )
    return tuple(found)


def _chance(result: Result) -> float:
    return max(CHANCE, PART * result.images)


def refuted(results: Mapping[str, Result]) -> None:
    """Raise if an attack breaks what is proven.

    Args:
        results: by key.

    Raises:
        ValueError: naming the attack and the image.
    """
    proofs = [r for r in results.values() if r.proven and r.distance is not None]
    for proof in proofs[:1]:
        radius = proof.distance
        for key, r in results.items():
            if radius is None or r.proven or r.norm != proof.norm:
                continue
            reached = torch.full((r.images,), math.inf) if r.eps is None else torch.where(r.robust, math.inf, r.eps)
            reached = reached if r.distance is None else torch.minimum(reached, r.distance)
            broken = (reached.double() < radius * (1 - ROUNDING)).nonzero().flatten()
            if len(broken):
                image = int(broken[0])
                raise ValueError(
                    f"{key} breaks image {image} within {float(reached[image]):g}, where nothing within "
                    f"{float(radius[image]):g} should: please report this fault of cheaplip with the model"
                )
