"""What one look at the pairs tells."""

from __future__ import annotations

import math
from typing import NamedTuple, final

from torch import Tensor

from cheaplip.pairs.room import Apart
from cheaplip.pairs.steepness import Ascent


@final
class Measurement(NamedTuple):
    """What one forward over the pairs told.

    Attributes:
        quotient: (P,), the difference quotients ‖f(u) - f(v)‖ / ‖u - v‖.
        distance: (P,), the distances ‖u - v‖ at which they were taken; inf where a pair is too close to be trusted,
            so that its quotient counts as 0.
        distances: the same on the host.
        values: the quotients on the host; -inf where a quotient is no finite number.
        steepest: the index of the largest quotient, the first one on a tie.
        ascent: where the quotients rise, if that was asked for.
    """

    quotient: Tensor
    distance: Tensor
    distances: list[float]
    values: list[float]
    steepest: int
    ascent: Ascent | None

    @classmethod
    def of(cls, quotients: Tensor, apart: Apart, rise: Ascent | None = None) -> Measurement:
        """Return the measurement that these quotients are.

        Raises:
            ValueError: if all of them are NaN or infinite.
        """
        values: list[float] = quotients.tolist()
        if not math.isfinite(sum(values)):
            values = [value if math.isfinite(value) else -math.inf for value in values]
        largest = max(values)
        if largest == -math.inf:
            raise ValueError(
                f"the model's outputs are NaN or infinite at all {len(values)} pairs: "
                "lower the learning rate or λ, or check weights and inputs"
            )
        return cls(quotients, apart.distance, apart.values, values, values.index(largest), rise)

    @property
    def usable(self) -> list[int]:
        """The indices of the pairs whose quotient is a finite number."""
        return [index for index, value in enumerate(self.values) if value > -math.inf]
