"""The attacks by the names that commands and result files use."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence

from cheaplip.attacks.closest import closest
from cheaplip.attacks.gradient import PGD, PaperPGD
from cheaplip.attacks.libraries.names import ENTRIES as LIBRARIES
from cheaplip.attacks.libraries.names import NEED_A_BOX as SMALLEST
from cheaplip.attacks.nes import NES
from cheaplip.attacks.nes_labels import NESLabels
from cheaplip.attacks.noise import Gaussian
from cheaplip.attacks.protocol import Attack, checked_eps
from cheaplip.checks import several
from cheaplip.norms import Box

# name: (how to make it for a radius and a box, the radius if none is given; None where there is no radius)
_REGISTRY: dict[str, tuple[Callable[[float, Box | None], Attack], float | None]] = {
    "noise": (lambda eps, box: Gaussian(1.0), None),
    "noise-clamped": (lambda eps, box: Gaussian(1.0, clamp=True), None),
    "pgd-paper": (lambda eps, box: PaperPGD(eps), 2.0),
    "pgd-paper-box": (lambda eps, box: PaperPGD(eps, box=box), 2.0),
    "pgd": (lambda eps, box: PGD(eps, 2, box=box), 2.0),
    "pgd-linf": (lambda eps, box: PGD(eps, "inf", box=box), 0.1),
    "pgd-l1": (lambda eps, box: PGD(eps, 1, box=box), 12.0),
    "nes": (lambda eps, box: NES(eps, 2, box=box), 2.0),
    "nes-linf": (lambda eps, box: NES(eps, "inf", box=box), 0.1),
    "nes-labels": (lambda eps, box: NESLabels(eps, 2, box=box), 2.0),
    "distance": (lambda eps, box: closest(2, box), None),
    "distance-linf": (lambda eps, box: closest("inf", box), None),
    "distance-l1": (lambda eps, box: closest(1, box), None),
    **LIBRARIES,
}
NAMES = tuple(_REGISTRY)
_NEED_A_BOX = ("noise-clamped", "pgd-paper-box", *SMALLEST)


def named(name: str, *, eps: float | None = None, box: Box | None = (0.0, 1.0)) -> Attack:
    """Return the attack of a name.

    Args:
        name: ``noise``, Gaussian noise of standard deviation 1; ``noise-clamped``, the same cut to [0, 1];
            ``pgd``, 100 steps in the 2-norm, ``pgd-linf``, in the maximum norm, and ``pgd-l1``, all in the box;
            ``pgd-paper``, the weak attack of the paper, and ``pgd-paper-box``, the same in the box.
            ``nes`` and ``nes-linf``, 5,000 queries for scores, and ``nes-labels``, 5,000 for labels alone.
            ``distance``, for each image the smallest change found by bisection, FAB-T and DDN.
            With ``pip install "cheaplip[attacks]"``: ``autoattack-fast``, ``autoattack``, ``apgd-ce``, ``apgd-t``,
            ``square``; for the smallest change ``ddn``, ``fab-t``, ``cw``, ``deepfool``, ``hopskipjump``, ``boundary``;
            with ``-linf`` or ``-l1`` behind the name in those norms, where the attack knows them.
        eps: the radius, in units of the input; None for the name's own: 2, in the maximum norm 0.1, in the 1-norm 12.
        box: the box of the data, for the attacks that stay in one; None for data without one.

    Raises:
        ValueError: for an unknown name, a radius where there is none, or no box where one is needed.

    Example:
        >>> named("pgd", eps=1.5).threat.eps
        1.5
    """
    if not isinstance(name, str) or name not in _REGISTRY:
        near = difflib.get_close_matches(str(name), NAMES, n=1)
        remedy = f"did you mean {near[0]!r}?" if near else f"choose among {', '.join(NAMES)}"
        raise ValueError(f"unknown attack {name!r}: {remedy}")
    make, radius = _REGISTRY[name]
    if radius is None and eps is not None:
        raise ValueError(f"{name} has no radius; got eps={eps!r}: leave it out")
    if box is None and name in _NEED_A_BOX:
        raise ValueError(f"{name} stays in the box of the data, but this data has none: leave it out")
    return make(eps if eps is not None else (radius or 0.0), box)


def suite(names: Iterable[str], eps: Sequence[float] | None = None, box: Box | None = (0.0, 1.0)) -> dict[str, Attack]:
    """Return several attacks, each with a radius at every one of ``eps``, ready for :func:`cheaplip.evaluate`.

    The keys are the names; with several radii, name and radius: what follows an ``@`` tells runs of one attack apart.

    Args:
        names: names as in :func:`named`.
        eps: the radii; None for each name's own.
        box: the box of the data; None for data without one.

    Raises:
        ValueError: for an unknown or repeated name, no radius at all or one out of range, or see :func:`named`.

    Example:
        >>> list(suite(["noise", "pgd"], eps=[1.0, 1.5]))
        ['noise', 'pgd@1', 'pgd@1.5']
    """
    names = several(names, "names", "attacks")
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"names must be texts; got {names!r}")
    if len(set(names)) < len(names):
        raise ValueError(f"each attack may be named once; got {', '.join(names)}")
    eps = None if eps is None else [checked_eps(radius) for radius in several(eps, "eps", "radii")]
    if eps is not None and (not len(eps) or len(set(eps)) < len(eps)):
        raise ValueError(f"eps must hold one or more different radii; got {list(eps)}")
    made: dict[str, Attack] = {}
    for name in names:
        unbounded = name in _REGISTRY and _REGISTRY[name][1] is None
        radii: Sequence[float | None] = [None] if eps is None or unbounded else eps
        for radius in radii:
            made[name if len(radii) == 1 else f"{name}@{_text(radius)}"] = named(name, eps=radius, box=box)
    return made


def _text(radius: float | None) -> str:
    """Return a radius as short as it can be without becoming another one."""
    short = f"{radius:g}"
    return short if float(short) == radius else repr(radius)
