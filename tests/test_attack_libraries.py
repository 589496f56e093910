"""Attacks of other libraries keep our promises, and every known trap of the libraries is closed."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracles import changes, mlp, picture, rand, randn
from torch import Tensor, nn

import cheaplip as cl
from cheaplip.attacks import (
    APGD,
    DDN,
    FAB,
    AutoAttack,
    Boundary,
    CarliniWagner,
    DeepFool,
    HopSkipJump,
    Square,
    named,
    suite,
)
from cheaplip.attacks.libraries.names import ENTRIES
from cheaplip.attacks.libraries.square import _can_start
from cheaplip.attacks.queries import Queries, queries_of
from cheaplip.norms import dual, vector_norm

pytest.importorskip("pyautoattack")
pytest.importorskip("foolbox", exc_type=ImportError)

NORMS = (1.0, 2.0, math.inf)
each_norm = pytest.mark.parametrize("norm", NORMS)
FAST: dict[str, Any] = {"steps": 10}

# A quick one of each kind, by what it is.
BOUNDED: list[Any] = [
    APGD(0.3, **FAST),
    APGD(0.05, "inf", loss="dlr", **FAST),
    APGD(1.0, 1, loss="targeted", targets=2, **FAST),
    Square(0.3, n_queries=20),
    Square(0.15, "inf", n_queries=20),
    Square(1.0, 1, n_queries=20),
]
CLOSED_SMALLEST: list[Any] = [HopSkipJump(steps=1), HopSkipJump("inf", steps=1), Boundary(steps=20)]
OPEN_SMALLEST: list[Any] = [
    *(FAB(norm, steps=5, targets=2) for norm in NORMS),
    DDN(steps=20),
    CarliniWagner(steps=15, searches=3),
    DeepFool(steps=8),
    DeepFool("inf", steps=8),
]
SMALLEST = [*OPEN_SMALLEST, *CLOSED_SMALLEST]
OPEN = [attack for attack in [*BOUNDED, *SMALLEST] if not hasattr(attack, "access")]
CLOSED = [attack for attack in [*BOUNDED, *SMALLEST] if hasattr(attack, "access")]
each = pytest.mark.parametrize("attack", [*BOUNDED, *SMALLEST], ids=str)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(features: int, classes: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Linear:
    net = nn.Linear(features, classes, dtype=dtype)
    with torch.no_grad():
        net.weight.copy_(randn(classes, features, seed=seed))
        net.bias.copy_(randn(classes, seed=seed + 1))
    return net


def classes_of(model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.no_grad():
        z = model(x)
    return z.argmax(1)


def radii(model: nn.Linear, x: Tensor, norm: float) -> Tensor:
    """The exact distance of each sample to another class of a linear classifier, where no box is in the way."""
    with torch.no_grad():
        z = model(x)
    first = z.argmax(1, keepdim=True)
    slope = model.weight.detach()[first] - model.weight.detach()[None]
    ratio = (z.gather(1, first) - z) / torch.linalg.vector_norm(slope, ord=dual(norm), dim=2)
    nearest: Tensor = ratio.scatter(1, first, math.inf).amin(1)
    return nearest


def balance(net: nn.Sequential, x: Tensor) -> None:
    """Give all classes the same mean score, so that each has its images."""
    with torch.no_grad():
        net[1][2].bias -= net(x).mean(0)  # type: ignore[index]


def problem(
    dtype: torch.dtype = torch.float32, shape: tuple[int, ...] = (1, 4, 3)
) -> tuple[nn.Sequential, Tensor, Tensor]:
    """A small network on images in [0, 1], and labels of which a third are wrong."""
    net = nn.Sequential(nn.Flatten(), mlp(math.prod(shape), 16, 5, dtype=dtype, act=nn.ReLU)).eval()
    x = rand(12, *shape, dtype=dtype)
    balance(net, x)
    y = classes_of(net, x)
    y[::3] = (y[::3] + 1) % 5
    return net, x, y


def call(attack: Any, model: Any, x: Tensor, y: Tensor, seed: int = 0) -> Tensor:
    """Run an attack from a seed of torch's global generator, which is left alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        x_adv: Tensor = attack(model, x, y)
    return x_adv


# What can be found is found.


@each_norm
@pytest.mark.parametrize("loss", ["cross-entropy", "targeted", "dlr"])
def test_apgd_breaks_a_linear_model_beyond_its_radius_and_not_within(norm: float, loss: str) -> None:
    model, x = linear(12, 5), randn(40, 12, seed=2, dtype=torch.float32)
    y, radius = classes_of(model, x), radii(model, x, norm)
    eps = float(radius.median()) * 1.01
    broken = classes_of(model, call(APGD(eps, norm, loss=loss, steps=30, box=None), model, x, y)) != y
    near, far = radius * (1.1 if norm == 1 else 1.02) < eps, radius * 0.98 > eps
    # Only the targeted loss looks at every class; the others may climb towards one that is out of reach.
    found = broken[near].float().mean()
    assert found == 1 if loss == "targeted" else found >= 0.85
    assert not bool(broken[far].any())
    assert bool(near.any())
    assert bool(far.any())


@pytest.mark.parametrize(
    "attack",
    [*(FAB(norm, steps=30) for norm in NORMS), DDN(), CarliniWagner(steps=80, searches=6), DeepFool(), DeepFool("inf")],
    ids=str,
)
def test_smallest_change_of_a_linear_model_is_near_the_exact_one(attack: Any) -> None:
    model, x = linear(12, 5), randn(30, 12, seed=2, dtype=torch.float32) / 2
    y, radius = classes_of(model, x), radii(model, x, attack.threat.norm)
    x_adv = call(replace(attack, box=(-3.0, 3.0)), model, x, y)
    share = vector_norm(x_adv - x, attack.threat.norm) / radius
    assert bool((classes_of(model, x_adv) != y).all())
    assert float(share.min()) >= 0.999
    assert float(share.median()) <= 1.05


@pytest.mark.parametrize("scale", [1e-3, 64.0])
def test_ddn_finds_the_same_whatever_the_scale_of_the_logits(scale: float) -> None:
    net, x, y = problem()
    plain, scaled = (call(DDN(), lambda z, k=k: net(z) * k, x, y) for k in (1.0, scale))
    torch.testing.assert_close(vector_norm(scaled - x, 2), vector_norm(plain - x, 2), rtol=0.02, atol=1e-4)


@pytest.mark.parametrize(
    ("attack", "most"), [(HopSkipJump(steps=10), 1.2), (HopSkipJump("inf", steps=10), 1.6), (Boundary(steps=600), 2.5)]
)
def test_class_numbers_alone_lead_near_the_smallest_change_however_large_the_batch(attack: Any, most: float) -> None:
    model, x = linear(12, 5), randn(30, 12, seed=2, dtype=torch.float32) / 2
    y, radius = classes_of(model, x), radii(model, x, attack.threat.norm)
    x_adv = call(replace(attack, box=(-3.0, 3.0)), model, x, y)
    share = vector_norm(x_adv - x, attack.threat.norm) / radius
    assert bool((classes_of(model, x_adv) != y).all())
    assert 0.999 <= float(share.min()) <= float(share.median()) <= most


@each_norm
def test_square_breaks_what_is_easy_by_asking_for_scores(norm: float) -> None:
    model, x = linear(25, 5), randn(30, 25, seed=2, dtype=torch.float32)
    y, radius = classes_of(model, x), radii(model, x, norm)
    eps = 2 * float(radius.quantile(0.4))
    queries = queries_of(model, "scores")
    broken = classes_of(model, call(Square(eps, norm, n_queries=150, box=None), queries, x, y)) != y
    assert float(broken[2 * radius < eps].float().mean()) >= 0.7
    assert not bool(broken[radius > eps * 1.01].any())
    # One question about every image, one at the start, and one for each step until it is broken.
    asked = queries.per_image
    assert bool((asked[~broken] == 152).all())
    assert bool((asked[broken] <= 152).all())
    assert queries.count == int(asked.sum()) < 30 * 152


def test_autoattack_is_the_librarys_own_bit_for_bit() -> None:
    library = pytest.importorskip("pyautoattack")
    net = nn.Sequential(nn.Flatten(), mlp(64, 20, 10, dtype=torch.float32, act=nn.ReLU)).requires_grad_(False)
    x = rand(8, 1, 8, 8, dtype=torch.float32)
    y = classes_of(net, x)
    ours = AutoAttack(1.0, generator=seeded(3))(net, x, y)
    with torch.random.fork_rng():
        theirs, _ = library.AutoAttack(net, norm="L2", eps=1.0, seed=drawn(3)).run_standard_evaluation(x, y)
    assert torch.equal(ours, theirs)
    assert int((ours != x).flatten(1).any(1).sum()) == 8


def drawn(seed: int) -> int:
    """The seed that an attack draws from a generator of a seed."""
    return int(torch.randint(2**31 - 1, (1,), generator=seeded(seed)))


@pytest.mark.parametrize(("norm", "name", "eps"), [(1, "L1", 2.0), (2, "L2", 0.5), ("inf", "Linf", 0.1)])
def test_square_is_the_librarys_own_bit_for_bit(norm: Any, name: str, eps: float) -> None:
    library = pytest.importorskip("pyautoattack.square")
    net, x, y = problem(shape=(2, 8, 8))
    ours = Square(eps, norm, n_queries=60, generator=seeded(3))(net, x, y)
    with torch.random.fork_rng(), torch.no_grad():
        search = library.SquareAttack(net, norm=name, eps=eps, n_queries=60, seed=drawn(3), resc_schedule=False)
        theirs = search.perturb(x, y)
    broken = classes_of(net, theirs) != y
    assert torch.equal(ours[broken], theirs[broken])
    assert torch.equal(classes_of(net, ours) != y, broken)
    assert int(broken.sum()) > int((classes_of(net, x) != y).sum())


@each_norm
def test_fab_is_the_librarys_own_to_the_likeliest_class_bit_for_bit(norm: float) -> None:
    library = pytest.importorskip("pyautoattack.fab_pt")
    net, x, y = problem()
    name = {1.0: "L1", 2.0: "L2", math.inf: "Linf"}[norm]
    ours = FAB(norm, steps=10, targets=1)(net, x, y)
    attack = library.FABAttack_PT(
        net.requires_grad_(False), name, n_iter=10, eps=1e9, targeted=True, n_target_classes=1
    )
    with torch.random.fork_rng():
        assert torch.equal(ours, attack.perturb(x, y))
    assert bool((classes_of(net, ours) != y).all())


# Any box, any shape, any precision.


boxes = [(-1.0, 3.0), ([-1.0], [3.0]), (0.0, [255.0])]


@each
@pytest.mark.parametrize("box", boxes, ids=str)
def test_box_and_radius_are_mapped_to_the_unit_box_and_back(attack: Any, box: Any) -> None:
    net, x, y = problem()
    low, high = (float(torch.as_tensor(bound)) for bound in box)
    width = high - low
    scaled = replace(attack, box=box, **({"eps": attack.eps * width} if hasattr(attack, "eps") else {}))
    found = call(scaled, lambda z: net((z - low) / width), x * width + low, y)
    assert bool(scaled.threat.admits(x * width + low, found).all())
    assert bool(((found >= low) & (found <= high)).all())
    plain = call(attack, net, x, y)
    broken, expected = (classes_of(net, z) != y for z in ((found - low) / width, plain))
    assert int((broken != expected).sum()) <= 1  # by a rounding
    if width == 4:  # a power of 2, exact
        torch.testing.assert_close((found - low) / width, plain, atol=2e-3, rtol=0)


@each
def test_channels_may_have_boxes_of_different_widths(attack: Any) -> None:
    net, x, y = problem(shape=(3, 4, 4))
    low, high = torch.tensor([0.0, -1.0, 0.2]), torch.tensor([1.0, 0.5, 4.0])
    x = x * (high - low).view(3, 1, 1) + low.view(3, 1, 1)
    balance(net, x)
    y, boxed = classes_of(net, x), replace(attack, box=(low, high))
    found = call(boxed, net, x, y)
    assert bool(boxed.threat.admits(x, found, tolerance=1e-6).all())
    assert bool((classes_of(net, found) != y).any())


@pytest.mark.parametrize("attack", BOUNDED, ids=str)
def test_without_a_box_the_whole_ball_is_used(attack: Any) -> None:
    model, x = linear(12, 5), 5 * randn(30, 12, seed=2, dtype=torch.float32)
    y = classes_of(model, x)
    free = replace(attack, box=None, eps=float(radii(model, x, attack.norm).median()))
    found = call(free, model, x, y)
    assert bool(free.threat.admits(x, found, tolerance=1e-5).all())
    assert bool((classes_of(model, found) != y).any())


@each
def test_float64_models_are_broken_in_float64(attack: Any) -> None:
    net, x, y = problem(torch.float64)
    found = call(attack, net, x, y)
    assert found.dtype == torch.float64
    assert int((classes_of(net, found) != y).sum()) > int((classes_of(net, x) != y).sum())
    assert bool(attack.threat.admits(x, found).all())


@each
@pytest.mark.parametrize("shape", [(12,), (7, 3), (3, 2, 2)])
def test_images_may_have_any_shape(attack: Any, shape: tuple[int, ...]) -> None:
    net, x, y = problem(shape=shape)
    found = call(attack, net, x, y)
    assert found.shape == x.shape
    assert bool(attack.threat.admits(x, found).all())


@each_norm
@pytest.mark.parametrize("shape", [(1,), (1, 12, 12), (2, 14, 9), (1, 8, 8)])
def test_square_can_start_on_every_shape(norm: float, shape: tuple[int, ...]) -> None:
    net, x, y = problem(shape=shape)
    found = call(Square(0.3, norm, n_queries=3), net, x, y)
    assert found.shape == x.shape
    assert [side for side in range(29) if not _can_start(side)] == [*range(5), 12, 14, 18, 19, 24]


# Few classes.


@pytest.mark.parametrize(("classes", "message"), [(2, "it is left out"), (3, "DLR loss stands in")])
@pytest.mark.parametrize("version", ["fast", "standard"])
def test_autoattack_runs_what_it_can_with_few_classes_and_says_so(classes: int, message: str, version: str) -> None:
    model, x = linear(25, classes), rand(3, 25, dtype=torch.float32)
    y = classes_of(model, x)
    with pytest.warns(UserWarning, match=f"APGD-T needs 4 classes, the model has {classes}: .*{message}"):
        found = call(AutoAttack(1.5, version=version), model, x, y)
    assert bool((classes_of(model, found) != y).any())


@pytest.mark.parametrize("classes", [4, 5, 9, 10, 12])
def test_autoattack_and_fab_aim_at_no_more_classes_than_there_are(classes: int) -> None:
    model, x = linear(25, classes), rand(3, 25, dtype=torch.float32)
    y = classes_of(model, x)
    for attack in (AutoAttack(3.0), FAB(steps=5)):
        assert bool((classes_of(model, call(attack, model, x, y)) != y).any())


def test_losses_that_need_more_classes_are_refused() -> None:
    x, y = rand(3, 12, dtype=torch.float32), torch.zeros(3, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"APGD-T needs 4 classes or more, .*the model has 3"):
        APGD(0.3, loss="targeted")(linear(12, 3), x, y)
    with pytest.raises(ValueError, match=r"APGD-DLR needs 3 classes or more, .*the model has 2"):
        APGD(0.3, loss="dlr")(linear(12, 2), x, y)


# The model, the random state and the process are left alone.


@each
def test_gradients_flags_weights_and_images_are_left_alone(attack: Any) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 5)).eval()
    _, x, y = problem()
    model(x).sum().backward()
    state, inputs, targets = picture(model), x.clone(), y.clone()
    with torch.no_grad():
        found = call(attack, model, x, y)
    assert changes(state, picture(model)) == []
    assert torch.equal(x, inputs)
    assert torch.equal(y, targets)
    assert not x.requires_grad
    assert not found.requires_grad


@each
def test_a_plain_function_is_a_model(attack: Any) -> None:
    net, x, y = problem()
    weight = next(net.parameters())
    found = call(attack, lambda z: net(z) * 1.0, x, y)
    torch.testing.assert_close(found, call(attack, net, x, y))
    assert weight.grad is None
    assert weight.requires_grad


@each
def test_seed_decides_all_and_the_global_generators_move_by_one_draw_at_most(attack: Any) -> None:
    net, x, y = problem()
    first, again = (call(attack, net, x, y, seed=5) for _ in range(2))
    assert torch.equal(first, again)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        attack(net, x, y)
        after = torch.get_rng_state()
        torch.manual_seed(5)
        torch.randint(2**31 - 1, (1,))
        assert torch.equal(after, torch.get_rng_state())
    state = np.random.get_state(legacy=False)
    call(attack, net, x, y)
    assert str(state) == str(np.random.get_state(legacy=False))


@pytest.mark.parametrize("attack", [BOUNDED[0], AutoAttack(0.3, version="fast"), *CLOSED], ids=str)
def test_generator_decides_all_draws(attack: Any) -> None:
    net, x, y = problem()
    state = torch.get_rng_state()
    first, again, other = (replace(attack, generator=seeded(seed))(net, x, y) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


@each
def test_nothing_is_printed_logged_or_written(attack: Any, capfd: Any, tmp_path: Path, monkeypatch: Any) -> None:
    net, x, y = problem()
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    call(attack, net, x, y)
    assert root.handlers == []
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


# Batches.


@each
def test_misclassified_images_come_back_as_they_are(attack: Any) -> None:
    net, x, y = problem()
    wrong = classes_of(net, x) != y
    assert 0 < int(wrong.sum()) < len(x)
    assert torch.equal(call(attack, net, x, y)[wrong], x[wrong])
    assert torch.equal(call(attack, net, x[wrong], y[wrong]), x[wrong])


@each
def test_empty_batches_and_single_images_are_taken(attack: Any) -> None:
    net, x, y = problem()
    assert call(attack, net, x[:0], y[:0]).shape == (0, 1, 4, 3)
    assert call(attack, net, x[1:2], y[1:2]).shape == (1, 1, 4, 3)


@pytest.mark.parametrize("attack", [*OPEN, *CLOSED_SMALLEST], ids=str)
def test_image_that_nothing_breaks_comes_back_as_it_is(attack: Any) -> None:
    net, x, _ = problem()
    y = torch.zeros(len(x), dtype=torch.int64)
    found = call(attack, lambda z: net(z) + torch.tensor([1e3, 0, 0, 0, 0]), x, y)
    assert torch.equal(found, x)


@pytest.mark.parametrize("attack", SMALLEST, ids=str)
def test_what_comes_back_changed_is_misclassified(attack: Any) -> None:
    net, x, y = problem(shape=(1, 6, 6))
    found = call(attack, net, x, y)
    changed = (found != x).flatten(1).any(1)
    assert bool(changed.any())
    assert bool((classes_of(net, found) != y)[changed].all())
    assert attack.minimal
    assert attack.threat.eps is None
    assert bool(((found >= 0) & (found <= 1)).all())


# Closed boxes.


@pytest.mark.parametrize("attack", CLOSED, ids=str)
def test_closed_box_attack_needs_no_more_than_answers(attack: Any) -> None:
    net, x, y = problem()
    queries = queries_of(net, attack.access)
    found = call(attack, queries, x, y)
    assert torch.equal(found, call(attack, net, x, y))
    assert queries.count == int(queries.per_image.sum()) > 2 * len(x)
    assert len(queries.per_image) == len(x)

    def answers(z: Tensor) -> Tensor:
        with torch.no_grad():
            scores: Tensor = net(z)
        assert not z.requires_grad
        return scores.argmax(1) if attack.access == "labels" else scores

    assert torch.equal(call(attack, Queries(answers, attack.access), x, y), found)


@pytest.mark.parametrize("norm", [2, "inf"])
def test_model_that_answers_at_random_is_refused_by_a_walk_along_its_boundary(norm: Any) -> None:
    _, x, y = problem()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        with pytest.raises(ValueError, match="two answers to one question"):
            HopSkipJump(norm)(lambda z: torch.rand(len(z), 5), x, y)


# What cannot work is refused in a sentence.


def cut(z: Tensor) -> Tensor:
    return z.detach().flatten(1)[:, :5] * 3


@pytest.mark.parametrize("attack", OPEN, ids=str)
def test_open_box_attack_refuses_a_model_without_a_gradient(attack: Any) -> None:
    _, x, _ = problem()
    with pytest.raises(ValueError, match="no gradient to follow: take a model without detach"):
        call(attack, cut, x, classes_of(cut, x))
    rest = nn.Linear(5, 5)  # here the output has a gradient, but none by the image
    with pytest.raises(ValueError, match="no gradient to follow"):
        call(attack, lambda z: rest(cut(z)), x, classes_of(lambda z: rest(cut(z)), x))


@pytest.mark.parametrize("attack", CLOSED, ids=str)
def test_closed_box_attack_breaks_a_model_without_a_gradient(attack: Any) -> None:
    _, x, _ = problem()
    y = classes_of(cut, x)
    wide = replace(attack, eps=10 * attack.eps) if hasattr(attack, "eps") else attack
    assert bool((classes_of(cut, call(wide, cut, x, y)) != y).any())


@pytest.mark.parametrize("attack", OPEN, ids=str)
def test_gradient_that_is_nan_is_not_called_robust(attack: Any) -> None:
    net, x, _ = problem()

    def model(z: Tensor) -> Tensor:  # infinite slope times zero
        out: Tensor = net((z * 0).abs().sqrt() + z)
        return out

    with pytest.raises(ValueError, match="gradient by its input is NaN"):
        call(attack, model, x, classes_of(model, x))


@each
def test_images_and_labels_that_do_not_fit_are_refused(attack: Any) -> None:
    net, x, y = problem()
    with pytest.raises(ValueError, match=r"must lie in the box \[0, 1\]; got values from -0.99"):
        attack(net, x * 3 - 1, y)
    with pytest.raises(ValueError, match="must lie in the box"):
        attack(net, x * math.nan, y)
    with pytest.raises(ValueError, match="equally many"):
        attack(net, x, y[:5])
    with pytest.raises(TypeError, match="labels must be whole numbers"):
        attack(net, x, y.float())
    with pytest.raises(TypeError, match="images must be floating"):
        attack(net, x.to(torch.uint8), y)
    with pytest.raises(ValueError, match="NaN"):
        attack(lambda z: net(z) * math.nan, x, y)
    if getattr(attack, "access", "scores") == "scores":
        with pytest.raises(ValueError, match=r"labels must lie in 0\.\.4"):
            attack(net, x, y + 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: APGD(0), "eps must be"),
        (lambda: APGD(1, 3), "norm must be"),
        (lambda: APGD(1, loss="margin"), 'one of "cross-entropy", "dlr", "targeted"; got \'margin\''),
        (lambda: APGD(1, steps=0), "steps must be"),
        (lambda: APGD(1, restarts=0), "restarts must be"),
        (lambda: APGD(1, targets=0), "targets must be"),
        (lambda: AutoAttack(1, version="rand"), 'version must be "standard" or "fast"; got \'rand\''),
        (lambda: Square(1, n_queries=0), "n_queries must be"),
        (lambda: FAB(steps=0), "steps must be"),
        (lambda: FAB(box=None), r"FAB-T searches in a box: give one .*; got None"),  # type: ignore[arg-type]
        (lambda: DDN(box=None), "DDN searches in a box"),  # type: ignore[arg-type]
        (lambda: DDN(steps=0), "steps must be"),
        (lambda: CarliniWagner(searches=0), "searches must be"),
        (lambda: CarliniWagner(step=0), "step must be"),
        (lambda: DeepFool(1), "DeepFool looks for .* 2-norm or the maximum norm; got norm=1"),
        (lambda: DeepFool(classes=1), "classes must be a whole number of at least 2; got 1"),
        (lambda: HopSkipJump(1), "HopSkipJump looks for"),
        (lambda: Boundary(steps=0), "steps must be"),
        (lambda: named("ddn", eps=1.0), "ddn has no radius"),
        (lambda: named("ddn", box=None), "this data has none: leave it out"),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


# The extra.


@pytest.mark.parametrize("attack", [*OPEN, *CLOSED], ids=str)
def test_missing_library_is_named_with_the_extra(attack: Any, monkeypatch: Any) -> None:
    net, x, y = problem()
    for name in ("foolbox", "pyautoattack", "pyautoattack.autopgd_base", "pyautoattack.fab_pt", "pyautoattack.square"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r'needs (foolbox|pyautoattack): pip install "cheaplip\[attacks\]"'):
        attack(net, x, y)


def test_libraries_are_imported_when_first_used_in_silence_and_without_git() -> None:
    code = """
import sys, torch, cheaplip.attacks as attacks
made = [attacks.named(name) for name in attacks.NAMES]
assert not {"foolbox", "pyautoattack", "eagerpy", "git"} & {name.partition(".")[0] for name in sys.modules}
attacks.DDN(steps=2)(torch.nn.Identity(), torch.tensor([[0.8, 0.2]]), torch.tensor([0]))
assert "foolbox" in sys.modules
import os; assert "GIT_PYTHON_REFRESH" not in os.environ
"""
    environment = {key: value for key, value in os.environ.items() if key != "GIT_PYTHON_REFRESH"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**environment, "PATH": "/nowhere"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_name_makes_the_attack_it_says() -> None:
    default = {2.0: (2.0, ""), math.inf: (0.1, "-linf"), 1.0: (12.0, "-l1")}
    bounded = ("autoattack-fast", "autoattack", "apgd-ce", "apgd-t", "square")
    expected: dict[str, tuple[float, float | None]]
    expected = {name + suffix: (norm, eps) for name in bounded for norm, (eps, suffix) in default.items()}
    expected |= {"fab-t" + suffix: (norm, None) for norm, (_, suffix) in default.items()}
    expected |= dict.fromkeys(("ddn", "cw", "deepfool", "hopskipjump", "boundary"), (2.0, None))
    expected |= dict.fromkeys(("deepfool-linf", "hopskipjump-linf"), (math.inf, None))
    made = {name: named(name, box=(-1.0, 2.0)) for name in ENTRIES}
    assert {name: (attack.threat.norm, attack.threat.eps) for name, attack in made.items()} == expected
    assert all(attack.threat.box == (-1.0, 2.0) for attack in made.values())
    assert len({attack.label for attack in made.values()}) == len(made)  # type: ignore[attr-defined]
    assert made["autoattack-fast"] == AutoAttack(2.0, version="fast", box=(-1.0, 2.0))
    assert made["apgd-t-l1"] == APGD(12.0, 1, loss="targeted", box=(-1.0, 2.0))
    assert list(suite(["square", "ddn"], eps=[1.0, 1.5])) == ["square@1", "square@1.5", "ddn"]


def test_evaluation_takes_them_and_says_what_they_are() -> None:
    net, x, y = problem()
    attacks: dict[str, Any] = {"autoattack-fast": AutoAttack(0.3, version="fast"), "square": Square(0.3, n_queries=20)}
    first, again = (cl.evaluate(net, (x, y), attacks, seed=3) for _ in range(2))
    assert first["autoattack-fast"].accuracy <= first["square"].accuracy <= first["clean"].accuracy
    assert first["square"].accuracy == again["square"].accuracy
    assert first["autoattack-fast"].eps == 0.3
