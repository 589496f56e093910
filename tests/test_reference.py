"""The literal Algorithms 1 and 2 do what the paper says: checked by hand on cases with a closed form."""

from __future__ import annotations

import copy

import pytest
import torch
from oracles import assert_all_close, mlp, quotients, rand, randn
from torch.nn import functional as F

from cheaplip.reference import Pair, adversarial_update, clip_step, difference_quotient, lipschitz_constant

GROW, SHRINK = 1.25, 0.5


def make_pairs(count: int = 5, size: int = 4, tau: float = 0.05) -> list[Pair]:
    return [Pair(a, b, tau) for a, b in zip(randn(count, size, seed=1), randn(count, size, seed=2), strict=True)]


def test_difference_quotient_of_a_linear_map_is_the_stretch_of_the_difference() -> None:
    matrix = torch.tensor([[3.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    zero, unit = torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    assert difference_quotient(lambda x: x @ matrix, unit[0], zero).item() == pytest.approx(3.0, abs=1e-15)
    assert difference_quotient(lambda x: x @ matrix, unit[1], zero).item() == pytest.approx(1.0, abs=1e-15)


def test_adversarial_update_of_the_square_has_the_closed_form() -> None:
    # L(x, x') = |x + x'| for f = square, with both derivatives 1 where x + x' > 0.
    pair = Pair(torch.tensor([1.0]), torch.tensor([0.5]), tau=0.2)
    moved = adversarial_update(lambda x: x**2, pair, GROW, SHRINK)
    assert moved.tau == pytest.approx(0.25)
    assert moved.previous == pytest.approx(1.5)
    torch.testing.assert_close(moved.x, torch.tensor([1.0 + 0.25 * 1.5]))
    torch.testing.assert_close(moved.x_prime, torch.tensor([0.5 + 0.25 * 1.5]))


@pytest.mark.parametrize(("previous", "factor"), [(0.0, GROW), (1.4, GROW), (1.5, SHRINK), (2.0, SHRINK)])
def test_step_grows_only_if_the_last_move_raised_the_quotient(previous: float, factor: float) -> None:
    pair = Pair(torch.tensor([1.0]), torch.tensor([0.5]), tau=0.2, previous=previous)
    assert adversarial_update(lambda x: x**2, pair, GROW, SHRINK).tau == pytest.approx(0.2 * factor)


def test_adversarial_update_leaves_its_argument_and_the_network_alone() -> None:
    net, pair = mlp(4, 6, 3), make_pairs()[0]
    kept = copy.deepcopy(pair)
    moved = adversarial_update(net, pair, GROW, SHRINK)
    assert torch.equal(pair.x, kept.x)
    assert torch.equal(pair.x_prime, kept.x_prime)
    assert (pair.tau, pair.previous) == (kept.tau, kept.previous)
    assert not torch.equal(moved.x, pair.x)
    assert all(p.grad is None for p in net.parameters())


def test_small_moves_raise_every_quotient() -> None:
    net, pairs = mlp(4, 6, 3), make_pairs(tau=1e-3)
    before = torch.stack([difference_quotient(net, p.x, p.x_prime) for p in pairs])
    moved = [adversarial_update(net, p, GROW, SHRINK) for p in pairs]
    after = torch.stack([difference_quotient(net, p.x, p.x_prime) for p in moved])
    assert bool((after > before).all())


def test_lipschitz_constant_is_the_largest_quotient() -> None:
    net, pairs = mlp(4, 6, 3), make_pairs()
    u, v = torch.stack([p.x for p in pairs]), torch.stack([p.x_prime for p in pairs])
    torch.testing.assert_close(lipschitz_constant(net, pairs), quotients(net, u, v).max())


@pytest.mark.parametrize("maximum", ["before", "after"])
def test_clip_step_descends_on_the_loss_plus_the_weighted_maximum(maximum: str) -> None:
    net, pairs, x, y = mlp(4, 6, 3), make_pairs(), rand(8, 4), torch.arange(8) % 3
    twin, weight, rate = copy.deepcopy(net), 0.3, 0.1
    optimizer = torch.optim.SGD(net.parameters(), lr=rate)
    moved, _, lipschitz = clip_step(
        net, F.cross_entropy, optimizer, pairs, (x, y), weight,
        target=0.9, weight_step=0.1, grow=GROW, shrink=SHRINK, maximum=maximum,
    )  # fmt: skip
    at = pairs if maximum == "before" else moved
    u, v = torch.stack([p.x for p in at]), torch.stack([p.x_prime for p in at])
    steepest = quotients(twin, u, v).max()
    assert lipschitz == pytest.approx(steepest.item(), rel=1e-12)
    objective = F.cross_entropy(twin(x), y) + weight * steepest
    wanted = [
        p - rate * g
        for p, g in zip(twin.parameters(), torch.autograd.grad(objective, list(twin.parameters())), strict=True)
    ]
    assert_all_close(net.parameters(), wanted)


@pytest.mark.parametrize(
    ("labels_are_right", "weight", "wanted"), [(True, 0.3, 0.4), (False, 0.3, 0.2), (False, 0.05, 0.0)]
)
def test_weight_follows_the_discrepancy_principle(labels_are_right: bool, weight: float, wanted: float) -> None:
    net, x = mlp(4, 6, 3), rand(8, 4)
    guessed = net(x).argmax(1)
    y = guessed if labels_are_right else (guessed + 1) % 3
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    _, adapted, _ = clip_step(
        net, F.cross_entropy, optimizer, make_pairs(), (x, y), weight,
        target=0.9, weight_step=0.1, grow=GROW, shrink=SHRINK,
    )  # fmt: skip
    assert adapted == pytest.approx(wanted, abs=1e-12)
