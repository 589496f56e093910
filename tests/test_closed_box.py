"""Closed-box attacks see answers alone, keep to their budget, and still find what gradients find."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from oracles import changes, mlp, picture, rand, randn
from torch import Tensor, nn

from cheaplip.attacks import PGD
from cheaplip.attacks.nes import NES
from cheaplip.attacks.nes_labels import NESLabels
from cheaplip.attacks.queries import Queries, queries_of
from cheaplip.attacks.registry import named
from cheaplip.norms import vector_norm

NORMS = (1.0, 2.0, math.inf)
EPS = {1.0: 0.6, 2.0: 0.25, math.inf: 0.06}
ATTACKS = (NES, NESLabels)
each_attack = pytest.mark.parametrize("attack", ATTACKS)
each_norm = pytest.mark.parametrize("norm", NORMS)


def problem(n: int = 40, pixels: int = 36, classes: int = 4, seed: int = 0) -> tuple[nn.Module, Tensor, Tensor]:
    """A linear classifier, and images in [0, 1] with the labels that it gives them."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes, dtype=torch.float64))
    with torch.no_grad():
        model[1].weight.copy_(randn(classes, pixels, seed=seed))  # type: ignore[operator]
        model[1].bias.zero_()  # type: ignore[operator]
        x = rand(n, 1, 6, pixels // 6, seed=seed + 1)
        return model, x, model(x).argmax(1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def share_right(model: Any, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((model(x).argmax(1) == y).double().mean())


class Rounding(nn.Module):
    """A network that rounds its input: no gradient passes."""

    def __init__(self, model: nn.Module, levels: int = 255) -> None:
        super().__init__()
        self.model, self.levels = model, levels

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.model((x * self.levels).round() / self.levels)
        return z


# What an attack gets.


@each_attack
def test_an_attack_needs_a_function_alone(attack: Any) -> None:
    model, x, y = problem()
    seen: list[Tensor] = []

    def answer(points: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        assert not points.requires_grad
        seen.append(points.clone())
        z: Tensor = model(points)
        return z.argmax(1) if attack is NESLabels else z

    queries = queries_of(answer, attack.access)
    x_adv = attack(0.6, queries=200, generator=seeded())(queries, x, y)
    assert share_right(model, x_adv, y) < 1
    assert sum(map(len, seen)) == queries.count
    assert not isinstance(queries, nn.Module)


def test_no_attribute_of_a_closed_box_leads_to_the_model() -> None:
    model, _, _ = problem()
    for access in ("scores", "labels"):
        queries = queries_of(model, access)
        members = [getattr(queries, name) for name in dir(queries) if not name.startswith("__")]
        assert not any(isinstance(member, (nn.Module, nn.Parameter)) for member in members)
        with pytest.raises(AttributeError):
            queries.parameters()  # type: ignore[attr-defined]
        with pytest.raises(AttributeError):
            queries.model = model  # type: ignore[attr-defined]


def test_answers_have_no_gradient_and_are_counted_by_image() -> None:
    model, x, _ = problem()
    leaf = x.clone().requires_grad_()
    for access, dtype, shape in (("scores", torch.float64, (40, 4)), ("labels", torch.int64, (40,))):
        queries = queries_of(model, access)
        answers = queries(leaf)
        assert not answers.requires_grad
        assert answers.dtype == dtype
        assert answers.shape == shape
        queries(x[:3], torch.tensor([41, 0, 0]))
        assert queries.count == 43
        assert queries.per_image.tolist() == [3, *[1] * 39, 0, 1]


def test_a_closed_box_of_a_closed_box_is_itself_or_gives_less() -> None:
    model, x, _ = problem()
    scores = queries_of(model, "scores")
    assert queries_of(scores, "scores") is scores
    labels = queries_of(scores, "labels")
    assert torch.equal(labels(x), model(x).argmax(1))
    assert (scores.count, labels.count) == (40, 40)
    with pytest.raises(ValueError, match="needs scores, but the closed box answers labels alone"):
        queries_of(labels, "scores")


def test_answers_that_are_none_are_refused() -> None:
    x = rand(3, 4)
    for access in ("scores", "labels"):
        with pytest.raises(ValueError, match="the model answers NaN"):
            queries_of(lambda points: points * math.nan, access)(x)
        with pytest.raises(ValueError, match=r"must answer logits \(3, classes\), classes >= 2; got \(3, 1\)"):
            queries_of(lambda points: points[:, :1], access)(x)
    with pytest.raises(ValueError, match="got int"):
        queries_of(lambda points: 3, "scores")(x)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='access must be "scores" or "labels"; got \'gradients\''):
        Queries(nn.Identity(), "gradients")


# What it keeps to.


@each_norm
@each_attack
def test_threat_and_budget_are_kept(attack: Any, norm: float) -> None:
    model, x, y = problem()
    with torch.no_grad():
        model[1].bias[0] += 1e3  # type: ignore[index]  # nothing can be found, so all is spent
    y = torch.zeros_like(y)
    for budget in (50, 77, 400):
        for arguments in ({}, {"antithetic": True}, {"loss": ("margin", "cross-entropy")}) if attack is NES else ({},):
            made = attack(EPS[norm], norm, queries=budget, generator=seeded(), **arguments)
            queries = queries_of(model, attack.access)
            x_adv = made(queries, x, y)
            assert bool(made.threat.admits(x, x_adv).all())
            assert int(queries.per_image.max()) <= budget
            assert attack is NESLabels or int(queries.per_image.min()) > 0.75 * budget
            assert int(queries.per_image.sum()) == queries.count


@each_attack
def test_same_seed_gives_the_same_bits_and_the_model_is_left_alone(attack: Any) -> None:
    model, x, y = problem()
    before = picture(model)
    first, second = (attack(0.6, queries=300, generator=seeded(3))(model, x, y) for _ in range(2))
    assert torch.equal(first, second)
    assert changes(before, picture(model)) == []
    torch.manual_seed(5)
    third = attack(0.6, queries=300)(model, x, y)
    torch.manual_seed(5)
    assert torch.equal(third, attack(0.6, queries=300)(model, x, y))


@each_attack
def test_images_that_are_wrong_already_cost_one_query(attack: Any) -> None:
    model, x, y = problem()
    queries = queries_of(model, attack.access)
    assert torch.equal(attack(0.6, queries=100)(queries, x, (y + 1) % 4), x)
    assert queries.count == len(x)
    assert attack(0.6, queries=100)(model, x[:0], y[:0]).shape == (0, 1, 6, 6)


# What it finds.


@each_norm
@each_attack
def test_what_gradients_find_in_a_linear_classifier_is_found_without(attack: Any, norm: float) -> None:
    model, x, y = problem(n=100)
    by_gradient = share_right(model, PGD(EPS[norm], norm, generator=seeded())(model, x, y), y)
    assert 0.1 < by_gradient < 0.9
    without = share_right(model, attack(EPS[norm], norm, queries=2000, generator=seeded())(model, x, y), y)
    assert without <= by_gradient + (0.03 if attack is NES else 0.1)


@each_attack
def test_a_model_without_gradient_is_broken(attack: Any) -> None:
    model, x, y = problem()
    rounding = Rounding(model, levels=15)
    y = rounding(x).argmax(1)
    x_adv = attack(0.8, queries=2000, generator=seeded(), **({"probe": 0.5} if attack is NES else {}))(rounding, x, y)
    by_gradient = share_right(model, PGD(0.8, generator=seeded())(model, x, y), y)
    assert share_right(rounding, x_adv, y) <= by_gradient + 0.15


def test_memory_finds_more_than_new_estimates_each_time() -> None:
    model = nn.Sequential(nn.Flatten(), mlp(400, 24, 24, 5, seed=1))
    x = rand(100, 1, 20, 20, seed=1)
    y = model(x).argmax(1)
    kept, new = (
        share_right(model, NES(1.0, queries=300, directions=20, memory=memory, generator=seeded())(model, x, y), y)
        for memory in (True, False)
    )
    assert kept < new - 0.05


def test_labels_alone_start_from_noise_where_no_other_image_helps() -> None:
    model, x, y = problem()
    same = y == y[0]
    x_adv = NESLabels(2.0, queries=1500, generator=seeded())(model, x[same], y[same])
    assert share_right(model, x_adv, y[same]) < 0.5


def test_boxes_by_channel_and_none_are_kept() -> None:
    model, x, y = problem()
    for attack in ATTACKS:
        for box in (None, ([0.0], [1.0])):
            made = attack(0.6, queries=200, box=box, generator=seeded())
            assert bool(made.threat.admits(x, made(model, x, y)).all())


def test_names_and_labels() -> None:
    assert named("nes", eps=1.5) == NES(1.5)
    assert named("nes-linf").threat == NES(0.1, "inf").threat
    assert named("nes-labels").threat.eps == 2.0
    assert NES(1.5).label == "NES, scores alone, 5000 queries, ‖δ‖₂ ≤ 1.5"
    assert NESLabels(1.5).label == "NES, labels alone, 5000 queries, ‖δ‖₂ ≤ 1.5"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"eps": 0}, "eps must be a finite number above 0; got 0"),
        ({"norm": 3}, "norm must be 1, 2, inf"),
        ({"queries": 3}, "queries must be"),
        ({"queries": 2.5}, "queries must be a whole number"),
        ({"directions": 0}, "directions must be a whole number of at least 1; got 0"),
        ({"box": (1.0, 0.0)}, "box must have low < high"),
    ],
)
@each_attack
def test_bad_arguments_are_told(attack: Any, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        attack(**{"eps": 1.0} | arguments)


def test_bad_losses_and_probes_are_told() -> None:
    with pytest.raises(ValueError, match='loss must be "margin", "cross-entropy", both or None; got'):
        NES(1.0, loss="targeted")
    with pytest.raises(ValueError, match="probe must be a finite number above 0; got 0"):
        NES(1.0, probe=0)
    with pytest.raises(ValueError, match="at least 7: the image, and three for each loss; got 6"):
        NES(1.0, loss=("margin", "cross-entropy"), queries=6)


@each_attack
def test_images_outside_the_box_and_wrong_labels_are_told(attack: Any) -> None:
    model, x, y = problem()
    with pytest.raises(ValueError, match="images must lie in the box"):
        attack(1.0)(model, x + 3, y)
    with pytest.raises(TypeError, match="labels must be whole numbers"):
        attack(1.0)(model, x, y.double())
    assert vector_norm(x, 2).shape == y.shape
