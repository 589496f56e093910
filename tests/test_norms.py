"""Norms, their gradients and the projections are what their definitions say."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import norm_of, rand, randn
from torch import Tensor

from cheaplip.norms import (
    Box,
    box_tensors,
    check_norm,
    dual,
    norm_gradient,
    per_sample,
    project_ball,
    vector_norm,
)

NORMS = (1.0, 2.0, math.inf)
norms = st.sampled_from(NORMS)
shapes = st.sampled_from([(1,), (7,), (2, 3), (2, 4, 3)])
each_norm = pytest.mark.parametrize("p", NORMS)


@st.composite
def batches(draw: st.DrawFn) -> Tensor:
    """Three samples of any shape and size, some coordinates equal or zero, float64."""
    shape, seed = draw(shapes), draw(st.integers(0, 2**16))
    x = randn(3, *shape, seed=seed) * 10 ** draw(st.floats(-6, 6))
    return x.round(decimals=1) if draw(st.booleans()) else x


def weighted(x: Tensor) -> Tensor:
    """A norm that is none of the named ones."""
    flat = x.flatten(1)
    return (flat.square() * torch.arange(1.0, flat.shape[1] + 1, dtype=x.dtype)).sum(1).sqrt()


@given(batches(), norms)
def test_norm_is_that_of_each_sample_by_definition(x: Tensor, p: float) -> None:
    torch.testing.assert_close(vector_norm(x, p), torch.stack([norm_of(sample, p) for sample in x]))


@pytest.mark.parametrize("p", ["1", "2", "inf", 1, 2, math.inf])
def test_norm_may_be_given_as_text_or_number(p: float | str) -> None:
    assert check_norm(p) == float(p)
    torch.testing.assert_close(vector_norm(randn(4, 5), p), vector_norm(randn(4, 5), float(p)))


@pytest.mark.parametrize("p", [0, 3, -1, "two", None, math.nan, [2]])
def test_other_norms_are_refused_by_the_name_of_the_argument(p: object) -> None:
    with pytest.raises(ValueError, match=r"^p_in must be 1, 2, inf or a callable"):
        check_norm(p, "p_in")  # type: ignore[arg-type]


def test_callable_norm_must_give_one_value_per_sample() -> None:
    torch.testing.assert_close(vector_norm(torch.ones(2, 2), weighted), torch.full((2,), math.sqrt(3)))
    with pytest.raises(ValueError, match=r"shape \(4,\); got \(\): reduce over all"):
        vector_norm(torch.ones(4, 2), lambda x: x.norm())


@each_norm
def test_dual_of_the_dual_is_the_norm(p: float) -> None:
    assert dual(dual(p)) == p
    assert 1 / p + 1 / dual(p) == 1


@given(batches(), batches(), norms)
def test_no_inner_product_exceeds_norm_times_dual_norm(x: Tensor, z: Tensor, p: float) -> None:
    if x.shape == z.shape:
        products = (x * z).flatten(1).sum(1).abs()
        assert bool((products <= vector_norm(x, p) * vector_norm(z, dual(p)) * (1 + 1e-12)).all())


@given(batches(), norms)
def test_norm_gradient_is_the_dual_direction(x: Tensor, p: float) -> None:
    gradient = norm_gradient(x, p)
    norm = vector_norm(x, p)
    # It attains equality in Hölder's inequality and has dual norm 1, but for zero samples.
    torch.testing.assert_close((gradient * x).flatten(1).sum(1), norm)
    torch.testing.assert_close(vector_norm(gradient, dual(p)), (norm > 0).to(norm))
    torch.testing.assert_close(norm_gradient(x, p, vector_norm(x, p)), gradient)


@given(st.integers(0, 2**16), shapes, norms)
def test_norm_gradient_is_that_of_autograd(seed: int, shape: tuple[int, ...], p: float) -> None:
    x = randn(3, *shape, seed=seed).requires_grad_()
    (expected,) = torch.autograd.grad(vector_norm(x, p).sum(), x)
    torch.testing.assert_close(norm_gradient(x.detach(), p), expected)
    named: Callable[[Tensor], Tensor] = lambda z: vector_norm(z, p)  # noqa: E731
    torch.testing.assert_close(norm_gradient(x.detach(), named), expected)


@pytest.mark.parametrize("p", [*NORMS, weighted, lambda x: x.flatten(1).square().sum(1).sqrt()])
def test_norm_gradient_is_zero_at_zero(p: float | Callable[[Tensor], Tensor]) -> None:
    assert norm_gradient(torch.zeros(2, 3, 2), p).eq(0).all()


def test_norm_gradient_of_a_callable_works_where_gradients_are_off() -> None:
    x = randn(3, 4)
    with torch.no_grad():
        gradient = norm_gradient(x, weighted)
    torch.testing.assert_close((gradient * x).sum(1), weighted(x))


@given(batches(), norms, st.floats(0, 4))
def test_projection_on_a_ball_is_the_nearest_point_of_it(x: Tensor, p: float, share: float) -> None:
    radius = share * float(vector_norm(x, p).mean())
    nearest = project_ball(x, p, radius)
    rounding = 1e-9 * (float(vector_norm(x, 1).max()) + radius)
    assert bool((vector_norm(nearest, p) <= radius + rounding).all())
    # Nearest in a convex set: no point of it lies beyond the plane through `nearest` across `x - nearest`.
    way = x - nearest
    furthest = radius * vector_norm(way, dual(p))
    assert bool(((way * nearest).flatten(1).sum(1) >= furthest - rounding * vector_norm(x, 1)).all())


@given(batches(), norms)
def test_points_of_a_ball_stay_where_they_are(x: Tensor, p: float) -> None:
    radius = float(vector_norm(x, p).max()) * (1 + 1e-9)
    torch.testing.assert_close(project_ball(x, p, radius), x)


@given(batches(), norms, st.floats(1e-3, 4))
def test_projecting_twice_changes_nothing_more(x: Tensor, p: float, share: float) -> None:
    radius = share * float(vector_norm(x, p).mean())
    once = project_ball(x, p, radius)
    torch.testing.assert_close(project_ball(once, p, radius), once, rtol=1e-7, atol=1e-12 * (1 + radius))


def test_projection_on_the_1_norm_ball_is_the_known_one() -> None:
    found = project_ball(torch.tensor([[3.0, -1.0, 0.5], [0.2, 0.1, 0.0]]), 1, 2.5)
    torch.testing.assert_close(found, torch.tensor([[2.25, -0.25, 0.0], [0.2, 0.1, 0.0]]))


@each_norm
def test_ball_of_radius_zero_is_a_point(p: float) -> None:
    assert project_ball(randn(3, 4), p, 0.0).eq(0).all()


@each_norm
def test_projection_survives_float32_images(p: float) -> None:
    x = randn(20, 784, dtype=torch.float32) * 5
    found = project_ball(x, p, 2.0)
    assert bool((vector_norm(found.double(), p) <= 2.0 * (1 + 1e-5)).all())
    torch.testing.assert_close(found, project_ball(x.double(), p, 2.0).float(), rtol=1e-4, atol=1e-5)


def test_ball_without_a_radius_or_of_a_callable_norm_is_refused() -> None:
    for radius in (-1.0, math.nan):
        with pytest.raises(ValueError, match=f"must be at least 0; got {radius}"):
            project_ball(torch.ones(2, 2), 2, radius)
    with pytest.raises(ValueError, match="needs p = 1, 2 or inf"):
        project_ball(torch.ones(2, 2), weighted, 1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("bound", ["number", "list"])
@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 4), (5, 3, 4, 2)])
def test_box_bounds_act_channel_by_channel(shape: tuple[int, ...], bound: str) -> None:
    values = [-1.0, 0.0, 0.5] if bound == "list" else [-0.5] * 3
    low, high = box_tensors((values if bound == "list" else -0.5, torch.tensor(1.0)), torch.zeros(shape))
    x = rand(*shape, dtype=torch.float32) * 6 - 3
    cut = torch.clamp(x, low, high)
    for channel, least in enumerate(values):
        assert torch.equal(cut[:, channel], x[:, channel].clamp(least, 1.0))


def test_box_takes_dtype_and_device_of_the_batch() -> None:
    low, high = box_tensors((0, [1.0, 2.0]), torch.zeros(4, 2, 3, dtype=torch.float64))
    assert low.dtype == high.dtype == torch.float64


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((1.0, 0.0), "low < high in every channel"),
        ((0.0, 0.0), "low < high in every channel"),
        ((math.nan, 1.0), "low < high in every channel"),
        (([0.0, 2.0, 0.0], 1.0), "low < high in every channel"),
        (([0.0, 0.0], 1.0), r"one number per channel \(3\); got shape \(2,\)"),
        ((torch.zeros(1, 3), 1.0), r"one number per channel \(3\); got shape \(1, 3\)"),
        (1.0, r"box must be a pair \(low, high\) .*; got 1.0"),
        ((0.0, 0.5, 1.0), r"box must be a pair \(low, high\)"),
    ],
)
def test_what_is_no_box_is_refused(box: Box, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        box_tensors(box, torch.zeros(5, 3, 4))


def test_values_per_sample_broadcast_against_the_batch() -> None:
    x = randn(4, 2, 3)
    assert torch.equal(x * per_sample(torch.arange(4.0), x), torch.stack([k * x[k] for k in range(4)]))
