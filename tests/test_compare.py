"""Networks are compared image by image, and no difference is called one that may be chance."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from torch import Tensor

from cheaplip.evaluation.pairing import clearly_best, mcnemar


def table(both: int, first: int, second: int, neither: int) -> tuple[Tensor, Tensor]:
    """Two networks that are right on so many images."""
    one = [True] * (both + first) + [False] * (second + neither)
    other = [True] * both + [False] * first + [True] * second + [False] * neither
    return torch.tensor(one), torch.tensor(other)


def test_a_textbook_table() -> None:
    found = mcnemar(*table(59, 6, 16, 80))
    assert found.accuracy == pytest.approx((6 - 16) / 161)
    assert found.chance == pytest.approx(2 * sum(math.comb(22, k) for k in range(7)) / 2**22)
    assert found.interval[0] < found.accuracy < found.interval[1]
    assert found.images == 161


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40), st.integers(1, 40))
def test_exchanging_the_networks_changes_the_sign_alone(both: int, first: int, second: int, neither: int) -> None:
    one, other = table(both, first, second, neither)
    there, back = mcnemar(one, other), mcnemar(other, one)
    assert there.accuracy == -back.accuracy
    assert there.chance == pytest.approx(back.chance)
    assert there.interval == pytest.approx((-back.interval[1], -back.interval[0]))
    assert -1 <= there.interval[0] <= there.interval[1] <= 1
    if first + second:
        assert there.chance == pytest.approx(binomtest(first, first + second).pvalue)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(0)
    hits = 0
    for _ in range(400):
        draws = torch.rand(200, generator=generator)
        one, other = draws < 0.80, (draws < 0.70) | (draws > 0.95)  # 0.80 and 0.75
        low, high = mcnemar(one, other).interval
        hits += low <= 0.05 <= high
    assert 0.92 <= hits / 400 <= 0.98


def test_only_more_than_chance_is_best() -> None:
    right = torch.arange(1000)
    assert clearly_best([right < 800, right < 900, right < 850]) == 1
    assert clearly_best([right < 800, right < 803]) is None
    assert clearly_best([right < 800, right < 800]) is None
    assert clearly_best([right < 800]) is None
    # Many comparisons share the level: 6 images that differ have the chance 1 in 32.
    assert clearly_best([right < 806, right < 800]) == 0
    assert clearly_best([right < 806, right < 800, right < 800]) is None


@pytest.mark.parametrize(
    ("first", "second", "error"),
    [
        (torch.ones(3), torch.ones(3), TypeError),
        (torch.ones(3, dtype=torch.bool), torch.ones(4, dtype=torch.bool), ValueError),
        (torch.ones(0, dtype=torch.bool), torch.ones(0, dtype=torch.bool), ValueError),
    ],
)
def test_what_cannot_be_compared_is_refused(first: Tensor, second: Tensor, error: type[Exception]) -> None:
    with pytest.raises(error, match="need"):
        mcnemar(first, second)
