"""The nearest adversarial image that any of several attacks finds."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from cheaplip.attacks.bisection import Bisection
from cheaplip.attacks.libraries import DDN, FAB
from cheaplip.attacks.losses import check_call
from cheaplip.attacks.protocol import Attack, Threat
from cheaplip.checks import several
from cheaplip.modes import Model
from cheaplip.norms import Box, per_sample, vector_norm


@final
@dataclass(frozen=True)
class Closest:
    """Several attacks that make the change small; of each image the nearest that any of them finds.

    Args:
        attacks: in the same norm and the same box; not those that only ask the model.

    Raises:
        ValueError: for none, or for attacks of different norms or boxes, or with a radius.

    Example:
        >>> Closest((Bisection(), Bisection(steps=50))).threat.norm
        2.0
    """

    attacks: tuple[Attack, ...]

    minimal: ClassVar[bool] = True

    def __post_init__(self) -> None:
        threats = [getattr(attack, "threat", None) for attack in several(self.attacks, "attacks", "attacks")]
        if not threats or any(threat is None or threat != threats[0] or threat.eps is not None for threat in threats):
            raise ValueError(
                "attacks must be one or more that make the change small, all in the same norm and box; got "
                f"{', '.join(map(repr, threats)) or 'none'}"
            )

    @property
    def threat(self) -> Threat:
        """The norm that is made small, and the box."""
        return self.attacks[0].threat

    @property
    def label(self) -> str:
        """What tables call it."""
        return "nearest of: " + "; ".join(getattr(attack, "label", type(attack).__name__) for attack in self.attacks)

    def __call__(self, model: Model, x: Tensor, y: Tensor) -> Tensor:
        """Return the closest adversarial images found, the shape of ``x``; where there is none, the image itself."""
        y = check_call(model, x, y)
        best = x.detach().clone()
        nearest = x.new_full((len(x),), math.inf)
        for attack in self.attacks if len(x) else ():
            point = attack(model, x, y).detach()
            with torch.no_grad():
                fooled = model(point).argmax(1) != y
            far = torch.where(fooled, vector_norm(point - x, self.threat.norm or 2.0), math.inf)
            best = torch.where(per_sample(far < nearest, x), point, best)
            nearest = torch.minimum(far, nearest)
        return best


def closest(norm: float | str = 2, box: Box | None = (0.0, 1.0)) -> Closest:
    """Return the best that we know to measure distances: bisection over PGD, with the extra FAB-T and in L2 DDN.

    Args:
        norm: 1, 2 or inf.
        box: of the images; None for none, in which the libraries' attacks cannot work.

    Example:
        >>> closest(2, box=None).label
        'nearest of: smallest ‖δ‖₂, bisection of PGD, 12 radii, 30 steps each'
    """
    own = Bisection(norm, box=box)
    attacks: list[Attack] = [own]
    if box is not None and importlib.util.find_spec("pyautoattack"):
        attacks.append(FAB(norm, box=box))
    if box is not None and own.threat.norm == 2 and importlib.util.find_spec("foolbox"):
        attacks.append(DDN(box=box))
    return Closest(tuple(attacks))
