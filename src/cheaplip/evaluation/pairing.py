"""Two networks on the same images: how far apart they are, and whether that is more than chance."""

from __future__ import annotations

import math
from typing import NamedTuple, final

from torch import Tensor

from cheaplip.counting import Z95


@final
class Difference(NamedTuple):
    """What two networks differ by on the same images.

    Attributes:
        accuracy: that of the first less that of the second.
        interval: the 95 % interval of this difference.
        chance: how likely networks that are equally good differ by as much, two-sided.
        images: how many were compared.
    """

    accuracy: float
    interval: tuple[float, float]
    chance: float
    images: int


def mcnemar(first: Tensor, second: Tensor) -> Difference:
    """Compare two networks by the images that only one of them gets right: McNemar's exact test.

    Images that both get right, or both wrong, say nothing about which is better; so this is far sharper than two
    intervals that overlap.

    Args:
        first: for each image whether the first network is right, booleans ``(images,)``.
        second: the same of the second network, on the same images.

    Raises:
        ValueError: if the images are not as many, or none.
        TypeError: for other than booleans.

    Reference: McNemar 1947; for the interval Agresti and Min 2005, "Simple improved confidence intervals for comparing
    matched proportions".

    Example:
        >>> import torch
        >>> right = torch.arange(100)
        >>> found = mcnemar(right < 90, right < 80)
        >>> found.accuracy, [round(end, 3) for end in found.interval], round(found.chance, 4)
        (0.1, [0.037, 0.159], 0.002)
    """
    for robust in (first, second):
        if str(robust.dtype) != "torch.bool":
            raise TypeError(f"need booleans, whether each image was right; got {robust.dtype}")
    if first.shape != second.shape or first.dim() != 1 or not len(first):
        raise ValueError(
            f"need the same images of both networks, at least 1; got shapes {tuple(first.shape)} and "
            f"{tuple(second.shape)}"
        )
    from scipy.stats import binomtest

    images = len(first)
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    differing = only_first + only_second
    chance = float(binomtest(only_first, differing).pvalue) if differing else 1.0
    # Half an image is added to each of the four cells of the table.
    b, c, n = only_first + 0.5, only_second + 0.5, images + 2
    middle, half = (b - c) / n, Z95 * math.sqrt(max(0.0, b + c - (b - c) ** 2 / n)) / n
    interval = (max(-1.0, middle - half), min(1.0, middle + half))
    return Difference((only_first - only_second) / images, interval, chance, images)


def clearly_best(columns: list[Tensor], level: float = 0.05) -> int | None:
    """Return which of several networks is better than each other one by more than chance; None if none is.

    Args:
        columns: for each network whether each image was right, booleans ``(images,)``, the same images.
        level: of the test, shared by the comparisons (Bonferroni).

    Example:
        >>> import torch
        >>> right = torch.arange(100)
        >>> clearly_best([right < 90, right < 80, right < 60]), clearly_best([right < 90, right < 89])
        (0, None)
    """
    counts = [int(column.sum()) for column in columns]
    best = counts.index(max(counts))
    others = [column for number, column in enumerate(columns) if number != best]
    if not others:
        return None
    found = [mcnemar(columns[best], other) for other in others]
    sure = all(one.chance < level / len(others) and one.accuracy > 0 for one in found)
    return best if sure else None
