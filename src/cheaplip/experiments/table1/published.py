"""What the paper's Table 1 says, in percent and in its own attack.

Reference: Bungert et al. 2021, Table 1. Weight is μ for weight regularisation, λ for CLIP.
"""

from __future__ import annotations

COLUMNS = ("train", "clean", "noise", "pgd-paper", "weight")
_TABLE: dict[tuple[str, str, float | None], tuple[float, ...]] = {
    ("mnist", "standard", None): (95.6, 89.8, 71.8, 25.3),
    ("mnist", "weight", 0.95): (93.1, 89.0, 71.4, 25.4, 0.0003),
    ("mnist", "weight", 0.90): (89.8, 89.7, 71.9, 24.8, 0.0015),
    ("mnist", "weight", 0.85): (84.8, 87.2, 72.3, 24.9, 0.0031),
    ("mnist", "clip", 0.95): (95.3, 90.7, 70.3, 24.4, 0.01),
    ("mnist", "clip", 0.90): (91.8, 91.6, 78.0, 36.2, 3.91),
    ("mnist", "clip", 0.85): (87.6, 87.2, 74.5, 37.7, 9.82),
    ("fashion-mnist", "standard", None): (98.5, 92.0, 25.7, 1.9),
    ("fashion-mnist", "weight", 0.95): (94.8, 91.2, 26.9, 3.5, 0.0011),
    ("fashion-mnist", "weight", 0.90): (89.8, 89.6, 28.1, 6.0, 0.0023),
    ("fashion-mnist", "weight", 0.85): (85.3, 85.4, 34.2, 10.2, 0.0091),
    ("fashion-mnist", "clip", 0.95): (94.6, 91.9, 19.8, 9.1, 0.18),
    ("fashion-mnist", "clip", 0.90): (90.6, 88.9, 23.3, 13.0, 0.74),
    ("fashion-mnist", "clip", 0.85): (85.9, 83.1, 31.9, 14.9, 4.18),
}


def published(data: str, method: str, target: float | None) -> dict[str, float]:
    """Return the paper's values for a row, accuracies as fractions of 1; empty for a row that it does not have.

    Args:
        data: the name of the data set.
        method: ``standard``, ``weight`` or ``clip``.
        target: the training accuracy to hold, as a fraction; None for ``standard``.

    Example:
        >>> published("mnist", "clip", 0.85)["pgd-paper"]
        0.377
    """
    found = dict(zip(COLUMNS, _TABLE.get((data, method, target), ()), strict=False))
    return {name: value if name == "weight" else round(value / 100, 3) for name, value in found.items()}
