"""One attack on one batch: what it returns is checked against its threat and classified anew."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias, final

import torch
from torch import Tensor

from cheaplip.attacks import Threat
from cheaplip.attacks.losses import check_classes, check_output
from cheaplip.attacks.queries import Queries, queries_of
from cheaplip.evaluation.surroundings import seeded
from cheaplip.modes import Model
from cheaplip.norms import vector_norm

# An attack, or any function (model, x, y) -> x_adv.
AnyAttack: TypeAlias = Callable[[Model, Tensor, Tensor], Tensor]


@final
class Outcome(NamedTuple):
    """What became of a batch under an attack.

    Attributes:
        robust: for each image whether it was right nevertheless, booleans ``(n,)`` on the CPU.
        distance: of an attack that makes the change small, how far the adversarial image is, ``(n,)``: 0 where the
            clean one is misclassified, inf where none was found. Else None.
        queries: how often the model was asked, of a closed-box attack, for all images together; else None.
        seconds: how long it took.
    """

    robust: Tensor
    distance: Tensor | None
    queries: int | None
    seconds: float


class Cache(Protocol):
    """Keeps outcomes, so that an evaluation that was stopped goes on where it was."""

    def get(self, key: str, attack: AnyAttack, number: int, images: int) -> Outcome | None:
        """Return the outcome of the batch of this number, if it is there."""
        ...

    def put(self, key: str, attack: AnyAttack, number: int, outcome: Outcome) -> None:
        """Keep an outcome."""
        ...


def threat_of(attack: AnyAttack) -> Threat:
    """Return what an attack says that it may do; nothing where it says nothing."""
    threat = getattr(attack, "threat", None)
    return threat if isinstance(threat, Threat) else Threat()


def is_minimal(attack: AnyAttack) -> bool:
    """Tell whether an attack makes the change as small as it can."""
    return bool(getattr(attack, "minimal", False)) and threat_of(attack).norm is not None


def is_closed(attack: AnyAttack) -> bool:
    """Tell whether an attack asks the model and sees no more of it."""
    return getattr(attack, "access", None) is not None


def classified(model: Model, x: Tensor, y: Tensor, where: str) -> Tensor:
    """Tell which images are classified correctly, ``(n,)``."""
    with torch.no_grad():
        z = model(x)
    check_output(z, y, regression=False)
    check_classes(z, y)
    if bool(z.isnan().any()):
        raise ValueError(f"the model's output {where} is NaN: check its weights and the data")
    return z.argmax(1) == y


def attacked(name: str, attack: AnyAttack, model: Model, x: Tensor, y: Tensor, clean: Tensor, seed: int) -> Outcome:
    """Let an attack change a batch, and say what became of it.

    Args:
        name: of the attack, for errors.
        attack: any.
        model: as it is evaluated.
        x: images.
        y: labels.
        clean: which images are right as they are.
        seed: of all draws of the attack.

    Raises:
        ValueError: if the attack leaves its threat, returns NaN or another shape, or the model's output is NaN.
    """
    started = time.perf_counter()
    subject: Model = model
    queries: Queries | None = None
    if is_closed(attack):
        subject = queries = queries_of(model, str(attack.access))  # type: ignore[attr-defined]
    x_adv = _changed(name, attack, subject, x, y, seed)
    right = classified(model, x_adv, y, f"on what {name} returned")
    threat, distance = threat_of(attack), None
    if is_minimal(attack):
        far = vector_norm(x_adv - x, threat.norm or 2.0)
        distance = torch.where(clean, torch.where(right, math.inf, far), 0.0).cpu()
    # The clean image is among those that a bounded attack may return.
    bounded = threat.eps is not None or distance is not None
    robust = (right & clean if bounded else right).cpu()
    asked = None if queries is None else queries.count
    return Outcome(robust, distance, asked, time.perf_counter() - started)


def _changed(name: str, attack: AnyAttack, model: Model, x: Tensor, y: Tensor, seed: int) -> Tensor:
    """Return what an attack made of the images, in as many parts as the memory demands."""
    try:
        with seeded(seed, x.device):
            # Copies: an attack may write to what it gets.
            return _checked(name, attack, x, attack(model, x.clone(), y.clone()))
    except torch.cuda.OutOfMemoryError:
        if len(x) < 2:
            raise
    torch.cuda.empty_cache()
    half = len(x) // 2
    parts = ((x[:half], y[:half], 2 * seed + 1), (x[half:], y[half:], 2 * seed + 2))
    return torch.cat([_changed(name, attack, model, *part) for part in parts])


def _checked(name: str, attack: AnyAttack, x: Tensor, x_adv: object) -> Tensor:
    """Return changed images, or raise if an attack was not allowed to make them."""
    if not isinstance(x_adv, Tensor) or x_adv.shape != x.shape:
        got = tuple(x_adv.shape) if isinstance(x_adv, Tensor) else type(x_adv).__name__
        raise ValueError(f"attack {name!r} must return images of shape {tuple(x.shape)}; got {got}")
    x_adv = x_adv.detach().to(x)
    if not bool(torch.isfinite(x_adv).all()):
        raise ValueError(f"attack {name!r} returned images that are not finite: check the model's gradients")
    threat = threat_of(attack)
    allowed = threat.admits(x, x_adv)
    if not bool(allowed.all()):
        change = "" if threat.norm is None else f"; largest change {float(vector_norm(x_adv - x, threat.norm).max()):g}"
        raise ValueError(
            f"attack {name!r} left its threat (norm {threat.norm}, eps {threat.eps}, box {threat.box}) at "
            f"{int((~allowed).sum())} of {len(x)} images{change}: what it reports would not be comparable"
        )
    return x_adv
