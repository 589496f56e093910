"""Attacks find what can be found, stay where they may go, and leave the model alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import changes, mlp, picture, rand, randn
from torch import Tensor, nn

from cheaplip import attacks
from cheaplip.attacks import PGD, Attack, Gaussian, PaperPGD, Threat, doubts, named, one_step, suite
from cheaplip.attacks.libraries.names import ENTRIES
from cheaplip.attacks.losses import LOSSES, margin, target_class
from cheaplip.norms import dual, vector_norm

NORMS = (1.0, 2.0, math.inf)
each_norm = pytest.mark.parametrize("norm", NORMS)
seeds = st.integers(0, 2**16)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def labels(n: int, classes: int, seed: int = 0) -> Tensor:
    return torch.randint(classes, (n,), generator=seeded(seed))


def linear(features: int, classes: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Linear:
    net = nn.Linear(features, classes, dtype=dtype)
    with torch.no_grad():
        net.weight.copy_(randn(classes, features, seed=seed, dtype=dtype))
        net.bias.copy_(randn(classes, seed=seed + 1, dtype=dtype))
    return net


def broken(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        z: Tensor = model(x)
    return z.argmax(1) != y


def radii(model: nn.Linear, x: Tensor, y: Tensor, norm: float) -> Tensor:
    """The exact distance of each sample to an error of a linear classifier: the nearest of its hyperplanes."""
    with torch.no_grad():
        z = model(x)
    distances = torch.full_like(z, math.inf)
    for i, label in enumerate(y.tolist()):
        for other in set(range(z.shape[1])) - {label}:
            slope = (model.weight[label] - model.weight[other]).detach()
            gap = (z[i, label] - z[i, other]).clamp_min(0)
            distances[i, other] = gap / torch.linalg.vector_norm(slope, ord=dual(norm))
    return distances.amin(1)


class Apply(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Recorder(nn.Module):
    """Keeps all that a model is asked about."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.points: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.points.append(x.detach().clone())
        z: Tensor = self.model(x)
        return z


# What can be found is found.


@each_norm
@pytest.mark.parametrize("classes", [2, 5])
@settings(max_examples=6)
@given(seed=seeds)
def test_pgd_breaks_a_linear_model_exactly_beyond_its_radius(norm: float, classes: int, seed: int) -> None:
    model, x = linear(12, classes, seed), randn(30, 12, seed=seed + 2)
    with torch.no_grad():
        y = model(x).argmax(1)
    radius = radii(model, x, y, norm)
    eps = float(radius.median()) + 1e-3
    attack = PGD(eps, norm, box=None, restarts=classes - 1, loss="targeted", steps=40, generator=seeded(seed))
    found = broken(model, attack(model, x, y), y)
    assert bool(found[radius * 1.02 < eps].all())
    assert not bool(found[radius * 0.98 > eps].any())


def best_gain(slope: Tensor, x: Tensor, norm: float, eps: float) -> float:
    """The most that a linear function can grow within a ball about ``x`` cut by the box [0, 1]."""
    room = torch.where(slope > 0, 1 - x, x)
    steep = slope.abs()
    if norm == math.inf:
        return float((steep * room.clamp_max(eps)).sum())
    if norm == 1:  # spend the radius on the steepest coordinates first
        order = steep.argsort(descending=True)
        left = eps - (room[order].cumsum(0) - room[order])
        return float((steep[order] * torch.minimum(room[order], left.clamp_min(0))).sum())
    low, high = 0.0, 1e9  # the change is t · slope, cut to the room, for the t that uses the radius up
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if torch.minimum(middle * steep, room).norm() > eps else (middle, high)
    return float((steep * torch.minimum(low * steep, room)).sum())


@each_norm
@settings(max_examples=10)
@given(seed=seeds, share=st.floats(0.05, 0.8))
def test_pgd_uses_ball_and_box_to_the_full(norm: float, seed: int, share: float) -> None:
    model, x, y = linear(20, 2, seed), rand(6, 20, seed=seed), torch.zeros(6, dtype=torch.int64)
    with torch.no_grad():
        model.bias[0].add_(1e3)  # out of reach, so that the best point comes back
    eps = share * 20 ** (1 / norm)
    x_adv = PGD(eps, norm, loss="margin", generator=seeded(seed))(model, x, y)
    with torch.no_grad():
        gain = margin(model(x_adv), y) - margin(model(x), y)
    slope = (model.weight[1] - model.weight[0]).detach()
    best = torch.tensor([best_gain(slope, sample, norm, eps) for sample in x], dtype=torch.float64)
    assert bool((gain <= best * (1 + 1e-6)).all())
    assert bool((gain >= best * (0.95 if norm == 1 else 0.99)).all())


@settings(max_examples=8)
@given(seed=seeds, norm=st.sampled_from(NORMS))
def test_regression_is_moved_as_far_as_the_ball_allows(seed: int, norm: float) -> None:
    model, x = linear(7, 1, seed), randn(5, 7, seed=seed + 2)
    with torch.no_grad():
        error = randn(5, 1, seed=seed + 3)
        y = model(x) + error
    attack = PGD(0.3, norm, loss="squared-error", restarts=2, box=None, generator=seeded(seed))
    with torch.no_grad():
        found = (model(attack(model, x, y)) - y).abs()
    most = error.abs() + 0.3 * torch.linalg.vector_norm(model.weight.detach(), ord=dual(norm))
    # From near the minimum of the error the climb may start on its lower side.
    clear = error.abs() > 0.3 * torch.linalg.vector_norm(model.weight.detach(), ord=dual(norm))
    assert bool((found <= most * (1 + 1e-9)).all())
    assert bool((found[clear] >= 0.98 * most[clear]).all())


@pytest.mark.parametrize("scale", [1e6, 1e-25])
@each_norm
def test_confident_and_flat_models_do_not_blind_it(norm: float, scale: float) -> None:
    model, x = linear(12, 2, dtype=torch.float32), randn(30, 12, seed=2, dtype=torch.float32)
    with torch.no_grad():
        y = model(x).argmax(1)
    radius = radii(model, x, y, norm)
    with torch.no_grad():
        model.weight.mul_(scale)
        model.bias.mul_(scale)
    leaf = x.clone().requires_grad_()
    (plain,) = torch.autograd.grad(F.cross_entropy(model(leaf), y, reduction="sum"), leaf)
    assert bool((vector_norm(plain, 2) == 0).any())  # here a plain cross-entropy sees nothing
    eps = float(radius.median()) * 1.01
    attack = PGD(eps, norm, box=None, loss="cross-entropy", generator=seeded())
    assert bool(broken(model, attack(model, x, y), y)[radius * 1.05 < eps].all())


# The losses.


PLAIN_LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "cross-entropy": lambda z, y, t: F.cross_entropy(z, y, reduction="none"),
    "margin": lambda z, y, t: z.scatter(1, y[:, None], -math.inf).amax(1) - z[range(len(y)), y],
    "targeted": lambda z, y, t: z[range(len(y)), t] - z[range(len(y)), y],
    "squared-error": lambda z, y, t: (z - y).square().sum(1),
}


@pytest.mark.parametrize("name", LOSSES)
@given(seed=seeds)
def test_loss_climbs_in_the_direction_of_its_gradient(name: str, seed: int) -> None:
    z, y = randn(8, 5, seed=seed), labels(8, 5, seed)
    if name == "squared-error":
        y = randn(8, 5, seed=seed + 1)
    target = target_class(z, labels(8, 5, seed), 1)
    leaf = z.clone().requires_grad_()
    (expected,) = torch.autograd.grad(PLAIN_LOSSES[name](leaf, y, target).sum(), leaf)
    torch.testing.assert_close(F.cosine_similarity(LOSSES[name](z, y, target), expected), torch.ones(8).double())


@given(seed=seeds, rank=st.integers(0, 9))
def test_target_is_the_wrong_class_of_a_rank(seed: int, rank: int) -> None:
    z, y = randn(6, 4, seed=seed), labels(6, 4, seed)
    for logits, label, target in zip(z, y.tolist(), target_class(z, y, rank).tolist(), strict=True):
        wrong = [c for c in logits.argsort(descending=True).tolist() if c != label]
        assert target == wrong[rank % 3]


def test_several_losses_break_what_any_of_them_breaks() -> None:
    model, x = mlp(6, 30, 8), randn(300, 6)
    y = model(x).argmax(1)
    settings: dict[str, Any] = {"steps": 15, "box": None, "random_start": False}
    first, second, both = (
        broken(model, PGD(0.4, loss=loss, **settings)(model, x, y), y)
        for loss in ("cross-entropy", "margin", ("cross-entropy", "margin"))
    )
    assert bool((first & ~second).any())
    assert bool((second & ~first).any())
    assert torch.equal(both, first | second)


def test_further_restarts_break_more_and_never_less() -> None:
    model, x = mlp(6, 30, 8), randn(300, 6)
    y = model(x).argmax(1)
    settings: dict[str, Any] = {"steps": 15, "box": None, "random_start": False, "loss": "targeted"}
    once, thrice = (broken(model, PGD(0.8, restarts=k, **settings)(model, x, y), y) for k in (1, 3))
    assert bool(thrice[once].all())
    assert thrice.sum() > once.sum()


# What comes back.


boxes = st.sampled_from([None, (0.0, 1.0), (-0.5, 2.0), ([0.0, -1.0, 0.0], [1.0, 1.0, 3.0]), (0.0, torch.ones(3))])


@given(
    norm=st.sampled_from(NORMS),
    share=st.floats(1e-3, 2),
    box=boxes,
    shape=st.sampled_from([(3,), (3, 4), (3, 2, 5)]),
    start=st.booleans(),
    stop=st.booleans(),
    steps=st.integers(1, 6),
    seed=seeds,
)
def test_pgd_stays_in_ball_and_box(
    norm: float, share: float, box: Any, shape: tuple[int, ...], start: bool, stop: bool, steps: int, seed: int
) -> None:
    x = rand(10, *shape, seed=seed, dtype=torch.float32)
    model = nn.Sequential(nn.Flatten(), linear(math.prod(shape), 3, seed, torch.float32))
    eps = share * math.prod(shape) ** (1 / norm)
    attack = PGD(
        eps,
        norm,
        steps=steps,
        box=box,
        random_start=start,
        early_stop=stop,
        loss="cross-entropy",
        generator=seeded(seed),
    )
    x_adv = attack(model, x, labels(10, 3, seed))
    assert x_adv.shape == x.shape
    assert x_adv.dtype == x.dtype
    assert not x_adv.requires_grad
    assert bool((vector_norm((x_adv - x).double(), norm) <= eps * (1 + 1e-5) + 1e-6).all())
    if box is not None:
        low, high = (torch.as_tensor(bound).view(-1, *[1] * (x.dim() - 2)) for bound in box)
        assert bool(((x_adv >= low) & (x_adv <= high)).all())


@each_norm
def test_start_is_uniform_in_the_ball(norm: float) -> None:
    x = torch.zeros(20_000, 2, dtype=torch.float64)
    attack = PGD(3.0, norm, steps=1, step=1e-9, box=None, early_stop=False, loss="margin", generator=seeded())
    points = attack(linear(2, 2), x, labels(len(x), 2))
    lengths = vector_norm(points, norm) / 3
    for share in (0.25, 0.5, 0.9):  # of the area
        assert abs(float((lengths <= share**0.5).double().mean()) - share) < 0.015
    assert bool((points.mean(0).abs() < 0.05).all())


def test_best_point_on_the_way_is_returned_where_nothing_breaks() -> None:
    net = mlp(5, 30, 3)
    with torch.no_grad():
        net[2].weight.mul_(8)  # type: ignore[index]
        net[2].bias[0] += 500  # type: ignore[index]
    model, x, y = Recorder(net), rand(20, 5), torch.zeros(20, dtype=torch.int64)
    x_adv = PGD(1.0, steps=9, step=2.0, loss="margin", generator=seeded())(model, x, y)
    with torch.no_grad():
        visited = torch.stack([margin(net(point), y) for point in model.points])
        torch.testing.assert_close(margin(net(x_adv), y), visited.amax(0))
    assert bool((visited.argmax(0) < len(visited) - 1).any())  # the last point is not always the best


def test_early_stop_breaks_all_that_the_last_points_break() -> None:
    model, x = mlp(6, 20, 5), rand(300, 6)
    y = labels(300, 5)
    settings: dict[str, Any] = {"steps": 12, "loss": "cross-entropy", "random_start": False}
    last = broken(model, PGD(0.2, **settings, early_stop=False)(model, x, y), y)
    best = broken(model, PGD(0.2, **settings)(model, x, y), y)
    assert 0 < int(last.sum()) < 300
    assert bool(best[last].all())


def test_broken_samples_leave_the_batch() -> None:
    model, x = Recorder(linear(4, 3)), randn(400, 4)
    y = labels(400, 3)
    PGD(0.5, box=None, steps=30, loss="margin", generator=seeded())(model, x, y)
    sizes = [len(point) for point in model.points]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 400
    right = int((~broken(model.model, x, y)).sum())
    assert sizes[1] == right
    assert sizes[-1] < right


def test_misclassified_images_come_back_as_they_are() -> None:
    model, x, y = linear(4, 3), randn(50, 4), labels(50, 3)
    wrong = broken(model, x, y)
    assert torch.equal(PGD(0.5, box=None)(model, x, y)[wrong], x[wrong])


def test_training_attack_asks_the_model_once_a_step() -> None:
    model, x, y = Recorder(mlp(6, 8, 3)), rand(40, 6), labels(40, 3)
    PGD(0.5, steps=7, loss="cross-entropy", early_stop=False)(model, x, y)
    assert [len(point) for point in model.points] == [40] * 7
    model.points.clear()
    one_step(0.5)(model, x, y)
    assert len(model.points) == 1


def test_empty_batch_comes_back_empty() -> None:
    for attack in (PGD(1.0), one_step(1.0), PaperPGD(), Gaussian()):
        assert attack(linear(4, 3), torch.zeros(0, 4).double(), labels(0, 3)).shape == (0, 4)


def test_fast_gradient_sign_method_is_pgd_of_one_step() -> None:
    model, x, y = mlp(6, 8, 3), rand(40, 6), labels(40, 3)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(leaf), y), leaf)
    fgsm = PGD(0.1, "inf", steps=1, step=0.1, loss="cross-entropy", random_start=False, early_stop=False)
    torch.testing.assert_close(fgsm(model, x, y), (x + 0.1 * gradient.sign()).clamp(0, 1))


def test_one_step_adversary_starts_at_random_and_steps_a_quarter_beyond_the_radius() -> None:
    attack = one_step(0.8, box=None)
    assert (attack.steps, attack.step, attack.random_start, attack.early_stop) == (1, 1.0, True, False)
    model, x, y = linear(6, 2), rand(4, 6), torch.zeros(4, dtype=torch.int64)
    first, second = (attack(model, x, y) for _ in range(2))
    assert not torch.equal(first, second)


# The model and the random state are left alone.


@pytest.mark.parametrize("attack", [PGD(0.3, steps=4), one_step(0.3), PaperPGD(steps=3), Gaussian()])
def test_attack_leaves_gradients_flags_and_weights_alone(attack: Attack) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 3)).double().eval()
    x, y = rand(10, 6), labels(10, 3)
    (model(x).sum()).backward()
    state = picture(model)
    state.pop("generator")
    inputs = x.clone()
    with torch.no_grad():
        attack(model, x, y)
    after = picture(model)
    after.pop("generator")
    assert changes(state, after) == []
    assert torch.equal(x, inputs)
    assert not x.requires_grad


@pytest.mark.parametrize("make", [lambda g: PGD(0.3, steps=4, generator=g), lambda g: Gaussian(generator=g)])
def test_generator_decides_all_draws(make: Callable[[torch.Generator], Attack]) -> None:
    model, x, y = mlp(6, 8, 3), rand(10, 6), labels(10, 3)
    state = torch.get_rng_state()
    first, again, other = (make(seeded(seed))(model, x, y) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("attack", [PGD(0.3, steps=4), Gaussian()])
def test_without_a_generator_the_global_one_decides(attack: Attack) -> None:
    model, x, y = mlp(6, 8, 3), rand(10, 6), labels(10, 3)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        first = attack(model, x, y)
        torch.manual_seed(5)
        assert torch.equal(attack(model, x, y), first)


# The paper's attack and noise.


@pytest.mark.parametrize("box", [None, (0.0, 1.0)])
def test_paper_attack_is_equation_13(box: tuple[float, float] | None) -> None:
    model, x, y = mlp(6, 8, 3), rand(20, 6), labels(20, 3)
    expected = x.clone()
    for _ in range(5):
        leaf = expected.clone().requires_grad_()
        F.cross_entropy(model(leaf), y, reduction="sum").backward()  # type: ignore[no-untyped-call]
        assert leaf.grad is not None
        change = leaf.detach() + 0.25 * leaf.grad.sign() - x
        length = change.norm(dim=1, keepdim=True)
        expected = x + torch.where(length > 0.5, 0.5 * change / length, change)
        if box:
            expected = expected.clamp(*box)
    torch.testing.assert_close(PaperPGD(eps=0.5, step=0.25, steps=5, box=box)(model, x, y), expected)


def test_paper_attack_says_that_it_is_weak() -> None:
    attack = PaperPGD()
    assert (attack.eps, attack.step, attack.steps, attack.box) == (2.0, 0.25, 100, None)
    assert attack.weak
    assert "weak" in attack.label
    assert not getattr(PGD(1.0), "weak", False)


def test_noise_has_the_given_deviation() -> None:
    x = torch.full((200, 100), 0.5)
    noisy = Gaussian(0.7, generator=seeded())(nn.Identity(), x, labels(200, 3))
    assert abs(float((noisy - x).std()) - 0.7) < 0.02
    assert abs(float((noisy - x).mean())) < 0.02
    cut = Gaussian(0.7, clamp=True, generator=seeded())(nn.Identity(), x, labels(200, 3))
    assert torch.equal(cut, noisy.clamp(0, 1))


# Names, threats, doubts.


def test_every_name_makes_the_attack_it_says() -> None:
    x, y, model = rand(5, 4), labels(5, 3), linear(4, 3)
    own = [name for name in attacks.NAMES if name not in ENTRIES]  # the libraries' have a file of their own
    made = {name: named(name) for name in own}
    assert {name: (attack.threat.norm, attack.threat.eps, attack.threat.box) for name, attack in made.items()} == {
        "noise": (2, None, None),
        "noise-clamped": (2, None, (0, 1)),
        "pgd": (2, 2, (0, 1)),
        "pgd-linf": (math.inf, 0.1, (0, 1)),
        "pgd-l1": (1.0, 12.0, (0, 1)),
        "pgd-paper": (2, 2, None),
        "pgd-paper-box": (2, 2, (0, 1)),
        "nes": (2, 2, (0, 1)),
        "nes-linf": (math.inf, 0.1, (0, 1)),
        "nes-labels": (2, 2, (0, 1)),
        "distance": (2, None, (0, 1)),
        "distance-linf": (math.inf, None, (0, 1)),
        "distance-l1": (1, None, (0, 1)),
    }
    for attack in made.values():
        x_adv = attack(model, x, y)
        assert x_adv.shape == x.shape
        assert bool(attack.threat.admits(x, x_adv).all())
    assert isinstance(made["pgd"], PGD)
    assert made["pgd"].loss == ("cross-entropy", "margin")
    assert made["pgd"].steps == 100
    assert named("pgd", eps=1.5) == PGD(eps=1.5, norm=2)
    boxed = {name: named(name, box=(-1.0, 2.0)).threat.box for name in own}
    own_in_a_box = set(own) - {"noise", "noise-clamped", "pgd-paper"}
    assert {name for name, box in boxed.items() if box == (-1.0, 2.0)} == own_in_a_box


def test_suite_has_every_attack_at_every_radius() -> None:
    made = suite(["noise", "pgd", "pgd-paper"], eps=[1.0, 1.5])
    assert {key: attack.threat.eps for key, attack in made.items()} == {
        "noise": None,
        "pgd@1": 1.0,
        "pgd@1.5": 1.5,
        "pgd-paper@1": 1.0,
        "pgd-paper@1.5": 1.5,
    }
    assert {key: attack.threat.eps for key, attack in suite(["pgd", "pgd-linf"]).items()} == {
        "pgd": 2.0,
        "pgd-linf": 0.1,
    }
    assert list(suite(["pgd"], eps=[3.0])) == ["pgd"]


@given(seed=seeds, norm=st.sampled_from(NORMS), eps=st.floats(1e-3, 10))
def test_threat_admits_its_ball_and_box_and_nothing_else(seed: int, norm: float, eps: float) -> None:
    x, change = rand(6, 3, 2, seed=seed) * 0.5 + 0.25, randn(6, 3, 2, seed=seed)
    change = change / vector_norm(change, norm)[:, None, None] * eps
    assert bool(Threat(norm, eps).admits(x, x + change).all())
    assert not bool(Threat(norm, eps).admits(x, x + change * 1.001).any())
    inside = ((x + change >= 0) & (x + change <= 1)).flatten(1).all(1)
    assert torch.equal(Threat(norm, eps, (0.0, 1.0)).admits(x, x + change, tolerance=1e-12), inside)
    assert not bool(Threat().admits(x, x * math.nan).any())
    assert bool(Threat().admits(x, x + 1e9).all())


def test_attacks_are_frozen_and_compare_by_their_settings() -> None:
    assert PGD(2, "2", box=(torch.zeros(3), [1, 1, 1])) == PGD(2.0, 2, box=([0.0] * 3, (1.0,) * 3))
    assert PGD(2.0) != PGD(2.0, steps=50)
    assert len({PGD(2.0), PGD(2.0), PaperPGD(2.0)}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        PGD(2.0).eps = 1.0  # type: ignore[misc]


def test_doubts_are_raised_about_models_that_blind_attacks_and_no_others() -> None:
    x, y = rand(40, 6), labels(40, 3)
    assert doubts(mlp(6, 8, 3), x, y) == ()
    (squashed,) = doubts(nn.Sequential(mlp(6, 8, 3), nn.Softmax(1)), x, y)
    assert "attack the logits" in squashed

    (flat,) = doubts(nn.Sequential(linear(6, 3), Apply(lambda z: (z * 9).round() - 100)), x, y)
    assert "exactly zero at 40 of 40" in flat
    (random,) = doubts(nn.Sequential(nn.Dropout(0.5), linear(6, 3)), x, y)
    assert "random" in random
    (cut,) = doubts(nn.Sequential(linear(6, 3), Apply(torch.Tensor.detach)), x, y)
    assert "no gradient" in cut


# Bad input.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PGD(0), "eps must be a finite number above 0; got 0"),
        (lambda: PGD(math.inf), "eps must be a finite number above 0; got inf"),
        (lambda: PGD("2"), "eps must be a finite number above 0; got '2'"),  # type: ignore[arg-type]
        (lambda: PGD(1, 3), "norm must be 1, 2, inf"),
        (lambda: PGD(1, lambda x: x), "norm of an attack must be 1, 2 or inf"),  # type: ignore[arg-type]
        (lambda: PGD(1, steps=0), "steps must be a whole number of at least 1; got 0"),
        (lambda: PGD(1, steps=2.5), "steps must be a whole number"),  # type: ignore[arg-type]
        (lambda: PGD(1, restarts=0), "restarts must be a whole number"),
        (lambda: PGD(1, step=-1), "step must be a finite number above 0; got -1"),
        (lambda: PGD(1, loss="dlr"), 'one or several different ones of "cross-entropy", "margin"'),
        (lambda: PGD(1, loss=()), "got ()"),
        (lambda: PGD(1, loss=("margin", "margin")), "several different"),
        (lambda: PGD(1, loss=("margin", "squared-error")), "stands alone"),
        (lambda: PGD(1, early_stop=False), "needs restarts=1 and one loss"),
        (lambda: PGD(1, early_stop=False, loss="targeted"), "needs restarts=1 and one loss"),
        (lambda: PGD(1, loss="margin", restarts=2, random_start=False), "would repeat one run"),
        (lambda: PGD(1, box=(1, 0)), "low < high in every channel"),
        (lambda: PGD(1, box=(0, 1, 2)), r"box must be a pair \(low, high\) .* or None; got"),  # type: ignore[arg-type]
        (lambda: PGD(1, box=("a", 1)), r"box must be a pair \(low, high\) .* or None; got"),  # type: ignore[arg-type]
        (lambda: PaperPGD(eps=-1), "eps must be"),
        (lambda: PaperPGD(step=0), "step must be"),
        (lambda: PaperPGD(steps=0), "steps must be"),
        (lambda: Gaussian(0.0), "sigma must be a finite number above 0; got 0.0"),
        (lambda: Threat(None, 1.0), "needs the norm in which it counts"),
        (lambda: named("pdg"), "unknown attack 'pdg': did you mean 'pgd'?"),
        (lambda: named("xyz"), "unknown attack 'xyz': choose among noise, noise-clamped, pgd"),
        (lambda: named("noise", eps=1.0), "noise has no radius"),
        (lambda: suite(["pgd", "pgd"]), "named once"),
        (lambda: suite(["pgd"], eps=[]), "one or more different radii"),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


X, Y = rand(8, 4), labels(8, 3)


@pytest.mark.parametrize("attack", [PGD(1.0), one_step(1.0), PaperPGD()])
@pytest.mark.parametrize(
    ("model", "x", "y", "error", "message"),
    [
        (linear(4, 3), X, Y.double(), TypeError, "labels must be whole numbers"),
        (linear(4, 3), X, Y[:, None], TypeError, r"labels must be whole numbers, shape \(n,\)"),
        (linear(4, 3), X, Y[:5], ValueError, r"equally many; got shapes \(8, 4\) and \(5,\)"),
        (linear(4, 3), X[:, 0], Y, ValueError, r"images must have shape \(n, \*shape\)"),
        (linear(4, 3), X.to(torch.uint8), Y, TypeError, "images must be floating; got torch.uint8"),
        (linear(4, 1), X, Y, ValueError, r"must return logits \(8, classes\), classes >= 2; got \(8, 1\)"),
        (Apply(lambda x: (x, x)), X, Y, TypeError, "one tensor; got tuple"),  # type: ignore[arg-type, return-value]
    ],
)
def test_what_does_not_fit_the_model_is_refused(
    attack: Attack, model: nn.Module, x: Tensor, y: Tensor, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        attack(model, x, y)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("bad", [X * 3 - 1, X * math.nan])
def test_images_outside_the_box_are_refused(bad: Tensor, norm: float) -> None:
    for box in ((0.0, 1.0), ([0.0] * 4, 1.0)):
        with pytest.raises(ValueError, match=r"must lie in the box .* box of your data, or box=None"):
            PGD(1.0, norm, box=box)(linear(4, 3), bad, Y)


def test_label_that_is_no_class_is_refused() -> None:
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.1, for the model has 2 outputs; got 0 to 2"):
        PGD(1.0)(linear(4, 2), X, Y)


@pytest.mark.parametrize("norm", NORMS)
def test_model_whose_gradient_is_nan_is_not_called_robust(norm: float) -> None:
    # |x|^0.5 of a coordinate that is zero: finite output, infinite slope, and 0 times that is NaN.
    model = nn.Sequential(Apply(lambda x: (x * 0).abs().sqrt() + x), linear(4, 3))
    assert bool(model(X).isfinite().all())
    with pytest.raises(ValueError, match="NaN"):
        PGD(0.01, norm, random_start=False)(model, X, model(X).argmax(1))


def test_model_without_a_gradient_is_refused() -> None:
    model = nn.Sequential(linear(4, 3), Apply(torch.Tensor.detach))
    with pytest.raises(ValueError, match="does not depend on its input in a differentiable way"):
        PGD(0.01)(model, X, model(X).argmax(1))


def test_values_of_a_regression_must_fit_the_output() -> None:
    attack = PGD(0.1, loss="squared-error")
    with pytest.raises(ValueError, match=r"same shape; got \(8, 3\) and \(8,\)"):
        attack(linear(4, 3), X, Y.double())
    with pytest.raises(TypeError, match=r"needs floating values y; got torch\.int64"):
        attack(linear(4, 3), X, Y)
