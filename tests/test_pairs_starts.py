"""Pairs start from data: a sample and its noisy copy, two samples, or two points in the range of the data."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import rand, randn
from torch import Tensor

from cheaplip.lipschitz import lower
from cheaplip.pairs import Start, scale_of
from cheaplip.penalties import LipschitzPenalty

POOL = rand(30, 3, seed=4)


def test_noise_start_is_a_sample_and_a_copy_at_half_the_scale() -> None:
    pool = rand(200, 50, seed=4)
    u, v = Start(pool).draw(100)
    assert all(bool((row == pool).all(1).any()) for row in u)
    assert (v - u).norm(dim=1).mean().item() == pytest.approx(0.5 * scale_of(pool), rel=0.05)


def test_samples_start_is_two_different_samples() -> None:
    u, v = Start(POOL, kind="samples").draw(50)
    assert all(bool((row == POOL).all(1).any()) for row in torch.cat([u, v]))
    assert bool((u != v).any(1).all())


def test_uniform_start_fills_the_range_of_the_data() -> None:
    u, v = Start(POOL, kind="uniform").draw(500)
    points = torch.cat([u, v])
    low, high = POOL.amin(0), POOL.amax(0)
    assert bool(((points >= low) & (points <= high)).all())
    assert bool((points.amin(0) - low < 0.02).all())
    assert bool((high - points.amax(0) < 0.02).all())


def test_partners_are_the_second_points_with_a_little_noise() -> None:
    u, v = Start(POOL, POOL + 100).renew([3, 7])
    assert torch.equal(u, POOL[[3, 7]])
    assert (v - POOL[[3, 7]] - 100).abs().max().item() < 5


@pytest.mark.parametrize("kind", ["noise", "samples", "uniform"])
def test_draws_depend_on_seed_and_number_alone(kind: str) -> None:
    before = torch.get_rng_state()
    first, second, other = (
        Start(POOL, kind=kind, seed=3),
        Start(POOL, kind=kind, seed=3),
        Start(POOL, kind=kind, seed=4),
    )
    draws = [first.draw(4) for _ in range(2)]
    torch.manual_seed(99)
    second.draw(4)
    assert torch.equal(second.draw(4)[1], draws[1][1])
    assert not torch.equal(draws[0][1], draws[1][1])
    assert not torch.equal(other.draw(4)[1], draws[0][1])
    torch.set_rng_state(before)
    Start(POOL, kind=kind).draw(4)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["noise", "samples", "uniform"])
def test_draws_go_on_from_a_loaded_state_whatever_was_drawn_before(kind: str) -> None:
    first, second = Start(POOL, kind=kind, seed=3), Start(2 * POOL, kind=kind, seed=3)
    first.draw(5), first.renew([1, 2]), second.draw(3), second.renew([0])
    second.load_state_dict(first.state_dict())
    for a, b in zip(
        [*first.draw(4), *first.renew([1])],
        [*second.draw(4), *second.renew([1])],
        strict=True,
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", ["noise", "samples", "uniform"])
def test_draws_follow_the_pool_to_another_dtype(kind: str) -> None:
    start = Start(POOL, kind=kind)
    start.draw(5)
    start.renew([1])
    assert {x.dtype for x in (*start.float().draw(4), *start.renew([1, 2]))} == {torch.float32}


def test_draws_have_no_repeats_while_the_pool_lasts() -> None:
    u, _ = Start(POOL).draw(30)
    assert len({tuple(row) for row in u.tolist()}) == 30
    assert len(Start(POOL).draw(70)[0]) == 70


@given(factor=st.floats(1e-3, 1e3), seed=st.integers(0, 100), shift=st.floats(-10, 10))
def test_scale_grows_with_the_data_and_ignores_where_they_lie(factor: float, seed: int, shift: float) -> None:
    x = randn(20, 3, seed=seed)
    assert scale_of(factor * x) == pytest.approx(factor * scale_of(x), rel=1e-9)
    assert scale_of(x + shift) == pytest.approx(scale_of(x), rel=1e-9)
    assert x.norm(dim=1).min() < scale_of(x) < 2 * x.norm(dim=1).max()


@pytest.mark.parametrize("x", [torch.zeros(1, 3), torch.ones(4, 3), torch.full((2, 1), 1e-30)])
def test_scale_of_a_single_point_is_above_zero(x: Tensor) -> None:
    assert 0 < scale_of(x) < math.inf


@pytest.mark.parametrize("noise", [0, -1.0, math.nan, math.inf])
def test_noise_out_of_range_is_refused(noise: float) -> None:
    with pytest.raises(ValueError, match="noise must be a finite number above 0"):
        Start(POOL, noise=noise)


def test_partners_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="partners must"):
        Start(POOL, POOL[:5])


def test_data_outside_the_box_are_refused_and_rounding_is_not() -> None:
    x = rand(9, 2, 4, seed=1, dtype=torch.float32)
    mean, deviation = 0.1307, 0.3081
    low, high = (0 - mean) / deviation, (1 - mean) / deviation
    LipschitzPenalty.from_data((x - mean) / deviation, weight=0.1, box=([low, low], high))
    message = r"x must keep to the box \(0.0, 1.0\); got values from -0.\d+ to 2.\d+: give the box in the units of x"
    with pytest.raises(ValueError, match=message):
        LipschitzPenalty.from_data((x - mean) / deviation, weight=0.1, box=(0.0, 1.0))
    with pytest.raises(ValueError, match="x must keep to the box"):
        lower(torch.nn.Flatten(), (x - mean) / deviation, box=(0.0, 1.0))
