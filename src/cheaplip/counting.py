"""How sure a fraction is that was counted."""

from __future__ import annotations

import math

Z95 = 1.959963984540054  # 97.5 % of the normal distribution lie below


def wilson(correct: int, images: int) -> tuple[float, float]:
    """Return the 95 % interval of a fraction, by Wilson's score.

    Args:
        correct: how many were right, from 0 to ``images``.
        images: how many there were, at least 1.

    Raises:
        ValueError: for counts out of range.

    Reference: Wilson 1927, "Probable inference, the law of succession, and statistical inference".

    Example:
        >>> [round(end, 3) for end in wilson(81, 100)]
        [0.722, 0.875]
    """
    if images < 1 or not 0 <= correct <= images:
        raise ValueError(f"need at least 1 image and 0 <= correct <= images; got {correct} correct of {images}")
    share, z2 = correct / images, Z95**2 / images
    middle = (share + z2 / 2) / (1 + z2)
    half = math.sqrt(share * (1 - share) * z2 + z2**2 / 4) / (1 + z2)
    # Rounding must not push the ends past the fraction itself.
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))
