"""The libraries' attacks by the names that commands and result files use."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from cheaplip.attacks.libraries.apgd import APGD, AutoAttack
from cheaplip.attacks.libraries.decisions import Boundary, HopSkipJump
from cheaplip.attacks.libraries.fab import FAB
from cheaplip.attacks.libraries.foolbox import DDN, CarliniWagner, DeepFool
from cheaplip.attacks.libraries.square import Square
from cheaplip.attacks.protocol import Attack
from cheaplip.norms import Box

Entry = tuple[Callable[[float, "Box | None"], Attack], "float | None"]

# The radius if none is given, and what is added to the name, by norm.
_BALLS = {2.0: (2.0, ""), math.inf: (0.1, "-linf"), 1.0: (12.0, "-l1")}


def _bounded(name: str, make: Callable[..., Attack]) -> Iterator[tuple[str, Entry]]:
    """Give the entries of an attack with a radius, one per norm."""
    for norm, (radius, suffix) in _BALLS.items():
        yield name + suffix, (partial(_in_ball, make, norm), radius)


def _in_ball(make: Callable[..., Attack], norm: float, eps: float, box: Box | None) -> Attack:
    return make(eps, norm, box=box)


def _smallest(name: str, make: Callable[..., Attack], norms: Sequence[float] = ()) -> Iterator[tuple[str, Entry]]:
    """Give the entries of an attack that looks for the smallest change: one per norm, or one where it knows but one."""
    for norm in norms or (None,):
        settings: dict[str, Any] = {} if norm is None else {"norm": norm}
        suffix = "" if norm is None else _BALLS[norm][1]
        yield name + suffix, (partial(_without_radius, partial(make, **settings)), None)


def _without_radius(make: Callable[..., Attack], eps: float, box: Box | None) -> Attack:
    return make(box=box)


_SMALLEST: dict[str, Entry] = {
    **dict(_smallest("fab-t", FAB, (2.0, math.inf, 1.0))),
    **dict(_smallest("ddn", DDN)),
    **dict(_smallest("cw", CarliniWagner)),
    **dict(_smallest("deepfool", DeepFool, (2.0, math.inf))),
    **dict(_smallest("hopskipjump", HopSkipJump, (2.0, math.inf))),
    **dict(_smallest("boundary", Boundary)),
}

# name: (how to make it for a radius and a box, the radius if none is given; None where there is no radius)
ENTRIES: dict[str, Entry] = {
    **dict(_bounded("autoattack-fast", partial(AutoAttack, version="fast"))),
    **dict(_bounded("autoattack", AutoAttack)),
    **dict(_bounded("apgd-ce", APGD)),
    **dict(_bounded("apgd-t", partial(APGD, loss="targeted"))),
    **dict(_bounded("square", Square)),
    **_SMALLEST,
}
NEED_A_BOX = tuple(_SMALLEST)
