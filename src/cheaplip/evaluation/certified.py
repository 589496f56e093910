"""What is proven of the images: the other side of what attacks find."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from cheaplip.checks import several
from cheaplip.evaluation.results import Result
from cheaplip.lipschitz import certify
from cheaplip.modes import Model

# Radii where no attack names any.
RADII = (0.5, 1.0, 1.58)


def radii_of(
    wanted: bool | Sequence[float], attacks: Mapping[str, Any], radii: Mapping[str, Sequence[float]]
) -> tuple[float, ...]:
    """Return the radii at which images are certified.

    Args:
        wanted: the radii; True for those of the attacks in the 2-norm, or usual ones where there are none; False for
            none.
        attacks: by name.
        radii: where attacks that make the change small are read off, by name.

    Raises:
        ValueError: if one is not finite and above 0.

    Example:
        >>> radii_of(True, {}, {}), radii_of([0.3], {}, {}), radii_of(False, {}, {})
        ((0.5, 1.0, 1.58), (0.3,), ())
    """
    if isinstance(wanted, bool):
        if not wanted:
            return ()
        threats = {name: getattr(attack, "threat", None) for name, attack in attacks.items()}
        ours = {name: threat for name, threat in threats.items() if threat is not None and threat.norm == 2}
        found = {float(threat.eps) for threat in ours.values() if threat.eps}
        found |= {eps for name in ours for eps in radii.get(name, ())}
        return tuple(sorted(found)) or RADII
    asked = tuple(several(wanted, "certify", "radii"))
    for eps in asked:
        if isinstance(eps, bool) or not isinstance(eps, (int, float)) or not 0 < eps < math.inf:
            raise ValueError(f"certify must be True, False or radii, finite numbers above 0; got {eps!r}")
    return tuple(float(eps) for eps in asked)


def certified(model: Model, x: Tensor, y: Tensor, radii: Sequence[float]) -> dict[str, Result]:
    """Return for each radius which images are certified, in the 2-norm and over all space.

    Args:
        model: see :func:`cheaplip.lipschitz.certify`.
        x: the images.
        y: their labels.
        radii: in units of the input.

    Raises:
        TypeError, ValueError: where no proof covers the model, naming the module.
    """
    proof = certify(model, x, y)
    label = f"proven, by {proof.method}"
    return {
        f"certified@{eps:g}": Result(
            "certified",
            label,
            proof.certified(eps),
            norm=2.0,
            eps=eps,
            proven=True,
            seconds=proof.seconds / len(radii),
            distance=proof.radius,
        )
        for eps in radii
    }
