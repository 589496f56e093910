"""Pairs climb along the gradient, stay in their box, stay apart and are renewed in time."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import assert_all_close, changes, matrix_of, mlp, norm_of, operator_norm, quotients, randn
from torch import Tensor, nn

from cheaplip.pairs import Measurement, Pairs, Start
from cheaplip.pairs.search import GROW, SHRINK


def weighted(x: Tensor) -> Tensor:
    """A norm given as a callable."""
    flat = x.flatten(1)
    return (flat * torch.arange(1, flat.shape[1] + 1, dtype=flat.dtype)).square().sum(1).sqrt()


def make(count: int = 5, size: int = 4, seed: int = 1, **arguments: Any) -> Pairs:
    return Pairs(randn(count, size, seed=seed), randn(count, size, seed=seed + 1), **arguments)


def advance(pairs: Pairs, function: Callable[[Tensor], Tensor]) -> Measurement:
    """Measure where the pairs stand, then move them."""
    measured = pairs.measure(function, climb=True)
    pairs.move(measured)
    return measured


def uphill(function: Callable[[Tensor], Tensor], pairs: Pairs) -> tuple[Tensor, Tensor, Tensor]:
    """Return the quotients and their gradients by u and by v, by autograd."""
    u, v = pairs.u.clone().requires_grad_(), pairs.v.clone().requires_grad_()
    values = quotients(function, u, v, pairs.p_in, pairs.p_out)
    gradient_u, gradient_v = torch.autograd.grad(values.sum(), (u, v))
    return values.detach(), gradient_u, gradient_v


NORMS = pytest.mark.parametrize(
    ("p_in", "p_out"), [(p, q) for p in (1, 2, math.inf, weighted) for q in (1, 2, "inf", weighted)]
)


@NORMS
def test_measurement_is_that_of_the_formula_and_moves_nothing(p_in: Any, p_out: Any) -> None:
    net, pairs = mlp(4, 6, 3), make(p_in=p_in, p_out=p_out)
    state = copy.deepcopy(pairs.state_dict())
    for climb in (False, True):
        measured = pairs.measure(net, climb=climb)
        expected = quotients(net, pairs.u, pairs.v, p_in, p_out).detach()
        torch.testing.assert_close(measured.quotient, expected)
        assert measured.values == pytest.approx(expected.tolist())
        assert measured.steepest == int(expected.argmax())
        assert changes(state, pairs.state_dict()) == []


@NORMS
def test_paper_step_is_tau_times_quotient_times_gradient(p_in: Any, p_out: Any) -> None:
    net, pairs = mlp(4, 6, 3), make(p_in=p_in, p_out=p_out, search="paper", step=0.1, min_distance=0)
    values, gradient_u, gradient_v = uphill(net, pairs)
    length = (0.1 * GROW * values)[:, None]
    expected = pairs.u + length * gradient_u, pairs.v + length * gradient_v
    advance(pairs, net)
    assert_all_close([pairs.u, pairs.v], expected)


@NORMS
def test_ascent_moves_each_point_by_its_step_along_the_gradient(p_in: Any, p_out: Any) -> None:
    net, pairs = mlp(4, 6, 3), make(p_in=p_in, p_out=p_out, step=0.1, min_distance=0)
    _, gradient_u, gradient_v = uphill(net, pairs)
    before_u, before_v = pairs.u.clone(), pairs.v.clone()
    advance(pairs, net)
    for moved, gradient in ((pairs.u - before_u, gradient_u), (pairs.v - before_v, gradient_v)):
        assert_all_close([moved], [0.1 * GROW * nn.functional.normalize(gradient, dim=1)])


def test_own_search_sees_the_gradient_and_decides_where_to_go() -> None:
    net, seen = mlp(4, 6, 3), []

    def search(*given: Tensor) -> tuple[Tensor, Tensor]:
        seen.append([tensor.clone() for tensor in given])
        return given[0] + 1, given[1] + 2

    pairs = make(search=search, step=0.1)
    values, gradient_u, gradient_v = uphill(net, pairs)
    u, v = pairs.u.clone(), pairs.v.clone()
    advance(pairs, net)
    assert_all_close(seen[0], [u, v, gradient_u, gradient_v, values, torch.full((5,), 0.1 * GROW).double()], rtol=1e-7)
    assert_all_close([pairs.u, pairs.v], [u + 1, v + 2])


def test_step_grows_after_a_rise_shrinks_after_a_fall_and_stays_in_bounds() -> None:
    pairs = make(search=lambda u, v, *rest: (u, v), step=0.1)
    slope, steps = 1.0, [0.1]
    for rises in [True, True, False, True, False, *[False] * 20, *[True] * 60]:
        slope *= 1.1 if rises else 0.9
        advance(pairs, lambda x, slope=slope: slope * x)  # type: ignore[misc]
        steps.append(pairs.step[0].item())
    ratios = [after / before for before, after in itertools.pairwise(steps[:6])]
    assert ratios == pytest.approx([GROW, GROW, SHRINK, GROW, SHRINK])
    assert 0 < min(steps) < 0.1 < max(steps) < math.inf
    assert steps[25] == min(steps)
    assert steps[-1] == max(steps)


@pytest.mark.parametrize("search", ["ascent", "paper", "power"])
def test_quotients_rise_to_the_spectral_norm_of_a_linear_map(search: str) -> None:
    net = mlp(6, 4)
    pairs = make(count=8, size=6, search=search)
    for _ in range(300):
        measured = advance(pairs, net)
        assert max(measured.values) <= operator_norm(matrix_of(net, (6,)), 2) * (1 + 1e-9)
    assert max(measured.values) >= 0.999 * operator_norm(matrix_of(net, (6,)), 2)


@pytest.mark.parametrize("p", [1, 2, "inf"])
def test_power_iteration_reaches_the_operator_norm_of_a_linear_map_in_a_few_moves(p: float | str) -> None:
    net = mlp(6, 4)
    norm = operator_norm(matrix_of(net, (6,)), float(p))
    best = {}
    for search in ("power", "ascent"):
        pairs = make(count=16, size=6, search=search, p_in=p, p_out=p)
        best[search] = max(max(advance(pairs, net).values) for _ in range(6))
    assert best["power"] == pytest.approx(norm, rel=1e-2)
    assert best["ascent"] < best["power"]


def test_power_iteration_turns_to_the_jacobian_and_moves_centre_and_distance_uphill() -> None:
    net, pairs = mlp(5, 8, 3), make(count=4, size=5, search="power", step=0.01)
    u, v = pairs.u.clone(), pairs.v.clone()
    _, gradient_u, gradient_v = uphill(net, pairs)
    rows = torch.func.vmap(torch.func.jacrev(net))
    pulled = torch.einsum("nij,ni->nj", (rows(u) + rows(v)).detach(), (net(u) - net(v)).detach())
    advance(pairs, net)
    apart, distance = pairs.u - pairs.v, (u - v).norm(dim=1)
    torch.testing.assert_close(apart / apart.norm(dim=1)[:, None], pulled / pulled.norm(dim=1)[:, None])
    wider = ((gradient_u - gradient_v) * (u - v)).sum(1).sign()
    torch.testing.assert_close(apart.norm(dim=1) - distance, wider * pairs.step)
    moved = (pairs.u + pairs.v - u - v) / 2
    torch.testing.assert_close(moved.norm(dim=1), pairs.step)
    assert bool((((gradient_u + gradient_v) * moved).sum(1) > 0).all())


def test_power_iteration_needs_a_norm_with_a_dual() -> None:
    with pytest.raises(ValueError, match="p_in = 1, 2 or inf"):
        make(search="power", p_in=weighted)


@given(
    widths=st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 3)),
    seed=st.integers(0, 1000),
    box=st.sampled_from([None, (0.0, 1.0), (-0.3, 0.2), "per channel"]),
    search=st.sampled_from(["ascent", "paper", "power"]),
    p_in=st.sampled_from([1, 2, math.inf]),
    renew=st.sampled_from([None, 1, 3]),
    distance=st.sampled_from([None, 0.05]),
)
def test_pairs_stay_inside_their_box_and_apart(
    widths: tuple[int, ...], seed: int, box: Any, search: str, p_in: float, renew: int | None, distance: float | None
) -> None:
    low = torch.linspace(-1, 0, widths[0]).double()
    if box == "per channel":
        box = (low.tolist(), (low + 1).tolist())
    net = mlp(*widths, seed=seed)
    pairs = make(4, widths[0], seed, box=box, search=search, p_in=p_in, renew=renew, min_distance=distance)
    for _ in range(12):
        if box is not None:
            assert bool((pairs.points >= torch.as_tensor(box[0], dtype=torch.float64)).all())
            assert bool((pairs.points <= torch.as_tensor(box[1], dtype=torch.float64)).all())
        # Rounding aside; a pair that is closer all the same must not be measured.
        true = torch.stack([norm_of(a - b, p_in) for a, b in zip(pairs.u, pairs.v, strict=True)])
        assert bool(((true >= 0.99 * pairs.min_distance) | (pairs.distances() == math.inf)).all())
        measured = advance(pairs, net)
        assert bool(torch.isfinite(pairs.points).all())
        assert all(0 <= value < math.inf for value in measured.values)


@pytest.mark.parametrize(("side", "beside"), [(0.0, 0.01), (1.0, 0.99)])
def test_pair_at_the_wall_of_its_box_is_pushed_apart_to_the_full_distance(side: float, beside: float) -> None:
    pairs = Pairs(torch.full((1, 2), side), torch.full((1, 2), beside), box=(0.0, 1.0), min_distance=0.2)
    assert (pairs.u - pairs.v).norm().item() >= 0.99 * 0.2


def test_box_of_one_bound_per_channel_holds_for_images() -> None:
    x = randn(3, 2, 4, 4)
    pairs = Pairs(x, -x, box=([0.0, -1.0], [0.5, 1.0]))
    first, second = pairs.points[:, 0], pairs.points[:, 1]
    assert (first.min().item(), first.max().item()) == (0.0, 0.5)
    assert (second.min().item(), second.max().item()) == (-1.0, 1.0)


@pytest.mark.parametrize("count", [1, 3, 8, 11, 20])
@pytest.mark.parametrize("renew", [1, 2, 5, 8, 13, 50])
def test_each_pair_is_renewed_within_its_lifetime_and_not_all_the_time(count: int, renew: int) -> None:
    pairs = make(count, renew=renew, search=lambda u, v, *rest: (u, v))
    moves = 4 * renew
    born, renewals = torch.zeros(count, dtype=torch.long), torch.zeros(count, dtype=torch.long)
    for move in range(1, moves + 1):
        before = pairs.u.clone(), pairs.v.clone()
        advance(pairs, lambda x: 2 * x)
        fresh = ((pairs.u != before[0]) | (pairs.v != before[1])).any(1)
        renewals += fresh
        born[fresh] = move
        assert bool((move - born < renew).all())
        assert bool((pairs.step[fresh] == pairs.first_step).all())
    assert bool((renewals >= 4).all())
    assert bool((renewals <= 8).all())  # a lifetime that is no multiple of eight is rounded down


def test_pair_without_lifetime_is_never_renewed_while_all_is_well() -> None:
    pairs = make(search=lambda u, v, *rest: (u, v), renew=None)
    before = pairs.points.clone()
    for _ in range(60):
        advance(pairs, lambda x: 2 * x)
    assert torch.equal(before, pairs.points)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_pair_with_a_bad_quotient_is_left_out_and_renewed_at_once(bad: float) -> None:
    u = torch.tensor([[0.0], [9.0], [1.0]])
    pairs = Pairs(u, u + 0.5, start=Start(torch.zeros(3, 1)), search=lambda u, v, *rest: (u, v))
    measured = advance(pairs, lambda x: torch.where(x > 5, bad, x**2))
    assert measured.values[1] == -math.inf
    assert measured.steepest == 2
    assert measured.usable == [0, 2]
    assert pairs.u[:, 0].tolist() == [0.0, 0.0, 1.0]


def test_steepest_is_the_first_of_equals() -> None:
    u = torch.eye(3)
    assert Pairs(u, u + 1, min_distance=0).measure(lambda x: x.sum(1, keepdim=True)).steepest == 0
