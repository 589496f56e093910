"""Numbers and results in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

NORMS = {"1": "₁", "2": "₂", "inf": "∞"}
SPACE = "\N{NO-BREAK SPACE}"


def percent(share: float, digits: int = 1) -> str:
    """Return a fraction of 1 in per cent.

    Example:
        >>> percent(0.5).replace(SPACE, " ")
        '50.0 %'
    """
    return f"{100 * share:.{digits}f}{SPACE}%"


def number(value: float) -> str:
    """Return a number with the digits that anyone reads.

    Example:
        >>> [number(value) for value in (3.3344, 1234567.0, 0.00123, 12.0)]
        ['3.33', '1.23e+06', '0.00123', '12']
    """
    return f"{value:.3g}" if abs(value) < 100 or abs(value) >= 1e6 else f"{value:.0f}"


def seconds(value: float) -> str:
    """Return a duration.

    Example:
        >>> seconds(0.25).replace(SPACE, " "), seconds(41.9).replace(SPACE, " "), seconds(754.0).replace(SPACE, " ")
        ('0.25 s', '42 s', '12 min 34 s')
    """
    if value < 60:
        return f"{value:.2g}{SPACE}s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes}{SPACE}min {rest}{SPACE}s"


def between(entry: Mapping[str, Any]) -> str:
    """Return the 95 % interval of an attack's accuracy, empty if there is none.

    Example:
        >>> between({"interval": [0.6, 0.66]}).replace(SPACE, " ")
        '60.0 to 66.0 %'
    """
    if "interval" not in entry:
        return ""
    low, high = entry["interval"]
    return f"{100 * low:.1f} to {percent(high)}"


def reach(entry: Mapping[str, Any]) -> str:
    """Return how far an attack may go.

    Example:
        >>> reach({"norm": "2", "eps": 1.5}).replace(SPACE, " "), reach({"sigma": 1.0}).replace(SPACE, " "), reach({})
        ('‖δ‖₂ ≤ 1.5', 'σ = 1', '')
    """
    said = ""
    if "eps" in entry:
        said = f"‖δ‖{NORMS.get(entry.get('norm', ''), '')} ≤ {entry['eps']:g}"
    elif "sigma" in entry:
        said = f"σ = {entry['sigma']:g}"
    return said.replace(" ", SPACE)


def norms(lipschitz: Mapping[str, Any]) -> str:
    """Return between which norms a Lipschitz constant is, empty if that is not known.

    Example:
        >>> norms({"p_in": "inf", "p_out": "2"}), norms({})
        ('‖·‖∞ → ‖·‖₂', '')
    """
    signs = [NORMS.get(str(lipschitz.get(name))) for name in ("p_in", "p_out")]
    return " → ".join(f"‖·‖{sign}" for sign in signs) if None not in signs else ""


def attack(entry: Mapping[str, Any]) -> str:
    """Return what an attack is called, weak where it is.

    Example:
        >>> attack({"attack": "pgd-paper", "weak": True, "norm": "2", "eps": 2.0}).replace(SPACE, " ")
        'pgd-paper (weak), ‖δ‖₂ ≤ 2'
    """
    return ", ".join(filter(None, (titled(entry), reach(entry))))


def titled(entry: Mapping[str, Any]) -> str:
    """Return the name of an attack, and what kind of evidence it is where that is not plain.

    Example:
        >>> titled({"attack": "certified", "proven": True})
        'certified (a proof)'
    """
    kind = " (weak)" if entry.get("weak") else " (a proof)" if entry.get("proven") else ""
    return f"{entry['attack']}{kind}"


def strongest(robust: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the attack that left the least accuracy, of strong ones with a radius where there are any.

    Example:
        >>> strongest([{"attack": "noise", "accuracy": 0.1}, {"attack": "pgd", "eps": 1.0, "accuracy": 0.4}])
        {'attack': 'pgd', 'eps': 1.0, 'accuracy': 0.4}
    """
    robust = [entry for entry in robust if not entry.get("proven")]
    bounded = [entry for entry in robust if "eps" in entry]
    candidates = [entry for entry in bounded if not entry.get("weak")] or bounded or robust
    return min(candidates, key=_accuracy, default=None)


def _accuracy(entry: Mapping[str, Any]) -> float:
    return float(entry["accuracy"])
