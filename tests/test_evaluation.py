"""Accuracies are those of the images that came back, attacks are not trusted, and nothing is left behind."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from oracles import changes, mlp, picture, rand, randn
from scipy.stats import binomtest
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import cheaplip as cl
from cheaplip.attacks import PGD, Attack, Gaussian, PaperPGD, Threat, suite
from cheaplip.evaluation import Results, evaluate, wilson
from cheaplip.modes import Model

FLOAT = torch.float32
X = rand(90, 6, dtype=FLOAT)


def centers() -> Tensor:
    return rand(4, 6, seed=9, dtype=FLOAT)


def blobs(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Four clouds in the box [0, 1]."""
    y = torch.randint(4, (n,), generator=torch.Generator().manual_seed(seed))
    return (centers()[y] + 0.12 * randn(n, 6, seed=seed, dtype=FLOAT)).clamp(0, 1), y


@pytest.fixture(scope="module")
def net() -> nn.Module:
    """A small classifier of the clouds, trained and in train mode."""
    model = mlp(6, 20, 4, dtype=FLOAT)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    x, y = blobs(400, seed=1)
    for _ in range(150):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.train()


@pytest.fixture(scope="module")
def test_set() -> tuple[Tensor, Tensor]:
    return blobs(300, seed=2)


def bits(results: Results) -> dict[str, list[bool]]:
    return {name: result.robust.tolist() for name, result in results.items()}


# What the numbers say.


def test_clean_accuracy_is_the_fraction_of_right_answers(net: nn.Module, test_set: tuple[Tensor, Tensor]) -> None:
    x, y = test_set
    result = evaluate(net, test_set)["clean"]
    right = net(x).argmax(1) == y
    assert torch.equal(result.robust, right)
    assert result.accuracy == float(right.double().mean())
    assert (result.correct, result.images) == (int(right.sum()), 300)
    assert result.interval == wilson(result.correct, 300)
    assert 0.8 < result.accuracy < 1


def test_success_is_measured_on_what_the_attack_returned(net: nn.Module, test_set: tuple[Tensor, Tensor]) -> None:
    x, y = test_set
    returned = []

    def remember(model: Model, x: Tensor, y: Tensor) -> Tensor:
        returned.append(PGD(0.2)(model, x, y))
        return returned[-1]

    remember.threat = Threat(2, 0.2, (0.0, 1.0))  # type: ignore[attr-defined]
    result = evaluate(net, test_set, {"mine": remember}, batch_size=128)["mine"]
    assert torch.equal(result.robust, (net(torch.cat(returned)).argmax(1) == y) & (net(x).argmax(1) == y))
    assert 0 < result.accuracy < 1


def test_clean_errors_count_against_bounded_attacks_and_not_against_noise() -> None:
    model = nn.Linear(1, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        model.bias.zero_()
    x, y = torch.tensor([[-0.5], [0.5]]), torch.zeros(2, dtype=torch.int64)  # the first one is wrong
    flip = Bounded(lambda x: -x, Threat(2, 2.0))
    noise = Bounded(lambda x: -x, Threat(2, None))
    r = evaluate(model, (x, y), {"flip": flip, "noise": noise, "bare": lambda model, x, y: -x})
    assert bits(r) == {
        "clean": [False, True],
        "flip": [False, False],
        "noise": [True, False],
        "bare": [True, False],
    }
    assert (r["bare"].norm, r["bare"].eps, r["bare"].label) == (None, None, "bare")


class Bounded:
    """An attack by a function of the images."""

    def __init__(self, function: Callable[[Tensor], Any], threat: Threat) -> None:
        self.function, self.threat = function, threat

    def __call__(self, model: Model, x: Tensor, y: Tensor) -> Any:
        return self.function(x)


def test_limit_bounds_the_attacked_images_and_not_the_clean_ones(
    net: nn.Module, test_set: tuple[Tensor, Tensor]
) -> None:
    attacks: dict[str, Attack] = {"noise": Gaussian(0.1), "pgd": PGD(0.2, steps=10)}
    everything = evaluate(net, test_set, attacks, batch_size=64)
    some = evaluate(net, test_set, attacks, batch_size=64, limit=100)
    assert {name: result.images for name, result in some.items()} == {"clean": 300, "noise": 100, "pgd": 100}
    assert torch.equal(some["noise"].robust[:64], everything["noise"].robust[:64])
    whole = evaluate(net, (test_set[0][:100], test_set[1][:100]), attacks, batch_size=64)
    assert torch.equal(some["pgd"].robust, whole["pgd"].robust)
    assert evaluate(net, test_set, attacks, limit=1000)["pgd"].images == 300


def test_strong_attack_is_stronger_than_the_paper_s(net: nn.Module, test_set: tuple[Tensor, Tensor]) -> None:
    r = evaluate(net, test_set, {"pgd": PGD(0.25), "paper": PaperPGD(0.25, step=0.03, box=(0.0, 1.0))})
    assert r["pgd"].accuracy < r["paper"].accuracy < r["clean"].accuracy


@given(images=st.integers(1, 3000), share=st.floats(0, 1))
def test_interval_is_wilson_s(images: int, share: float) -> None:
    correct = round(share * images)
    expected = binomtest(correct, images).proportion_ci(method="wilson")
    assert wilson(correct, images) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(
    ("correct", "images", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (50, 100, 0.4038, 0.5962), (1, 1, 0.2065, 1.0)],
)
def test_interval_has_its_known_values(correct: int, images: int, low: float, high: float) -> None:
    assert wilson(correct, images) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("correct", "images"), [(1, 0), (-1, 3), (4, 3)])
def test_interval_of_impossible_counts_is_refused(correct: int, images: int) -> None:
    with pytest.raises(ValueError, match=f"got {correct} correct of {images}"):
        wilson(correct, images)


# What it takes and what it gives.


class Pairs(Dataset[tuple[Tensor, Tensor]]):
    """The test set as a data set that knows nothing but single items."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.pairs = list(zip(x, y, strict=True))

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.pairs[index]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x, y: [x, y],
        lambda x, y: [(x[:7], y[:7]), (x[7:150], y[7:150]), (x[150:], y[150:])],
        lambda x, y: iter([(x[:140], y[:140]), (x[140:], y[140:])]),
        lambda x, y: DataLoader(TensorDataset(x, y), batch_size=32),
        Pairs,
        lambda x, y: SimpleNamespace(x=x, y=y),
        lambda x, y: (x, y.to(torch.uint8)),
    ],
    ids=["list", "batches", "iterator", "loader", "dataset", "object", "uint8"],
)
def test_data_may_come_in_any_form(
    net: nn.Module, test_set: tuple[Tensor, Tensor], wrap: Callable[[Tensor, Tensor], Any]
) -> None:
    attacks: dict[str, Attack] = {"noise": Gaussian(0.3), "pgd": PGD(0.2, steps=5)}
    expected = evaluate(net, test_set, attacks, batch_size=50, limit=120)
    assert bits(evaluate(net, wrap(*test_set), attacks, batch_size=50, limit=120)) == bits(expected)


def test_entries_have_the_shape_of_a_result_file(net: nn.Module, test_set: tuple[Tensor, Tensor]) -> None:
    attacks: dict[str, Any] = {
        **suite(["noise", "pgd"], eps=[0.1, 0.2]),
        "linf": PGD(0.1, "inf", steps=5, restarts=2),
        "paper": PaperPGD(0.2, steps=3),
        "mine": lambda model, x, y: x,
    }
    r = evaluate(net, test_set, attacks, limit=40)
    noise, first, second, linf, paper, mine = r.entries()
    assert first == {
        "attack": "pgd",
        "norm": "2",
        "eps": 0.1,
        "steps": 100,
        "restarts": 1,
        "images": 40,
        "accuracy": r["pgd@0.1"].accuracy,
        "interval": list(r["pgd@0.1"].interval),
    }
    assert (second["attack"], second["eps"]) == ("pgd", 0.2)
    assert (linf["norm"], linf["steps"], linf["restarts"]) == ("inf", 5, 2)
    assert noise["sigma"] == 1.0
    assert paper["weak"] is True
    assert not {"eps", "steps", "weak"} & noise.keys()
    assert mine.keys() == {"attack", "images", "accuracy", "interval"}


def test_table_shows_each_result_and_what_is_weak(net: nn.Module, test_set: tuple[Tensor, Tensor]) -> None:
    r = evaluate(net, test_set, {"pgd": PGD(0.2, steps=5), "pgd-paper": PaperPGD(0.2, steps=3)}, limit=40)
    head, clean, pgd, paper = str(r).splitlines()
    assert "95 % interval" in head
    assert clean.split()[:2] == ["clean", f"{100 * r['clean'].accuracy:.1f}"]
    assert f"{100 * r['pgd'].accuracy:.1f} %" in pgd
    assert "5 steps, ‖δ‖₂ ≤ 0.2" in pgd
    assert "weak" in paper
    assert "weak" not in pgd


def test_doubts_about_the_model_end_the_table(net: nn.Module, test_set: tuple[Tensor, Tensor]) -> None:
    squashed = nn.Sequential(net, nn.Sigmoid())
    r = evaluate(squashed, test_set, {"pgd": PGD(0.1, steps=2)}, limit=20)
    assert str(r).splitlines()[-1].startswith("doubt: the model ends with sigmoid")
    assert evaluate(net, test_set, {"pgd": PGD(0.1, steps=2)}, limit=20).doubts == ()
    assert evaluate(squashed, test_set, {"noise": Gaussian()}, limit=20).doubts == ()


def test_results_are_a_mapping_that_names_what_it_has(net: nn.Module, test_set: tuple[Tensor, Tensor]) -> None:
    r = cl.evaluate(net, test_set, {"noise": Gaussian(0.1)})
    assert list(r) == ["clean", "noise"]
    assert len(r) == 2
    assert "pgd" not in r
    with pytest.raises(KeyError, match="no result 'pgd': there are clean, noise"):
        r["pgd"]


def test_model_may_be_a_function(net: nn.Module, test_set: tuple[Tensor, Tensor]) -> None:
    attacks: dict[str, Attack] = {"pgd": PGD(0.2, steps=5)}
    expected = evaluate(net, test_set, attacks)
    before = picture(net)
    assert bits(evaluate(lambda x: 2 * net(x), test_set, attacks))["clean"] == bits(expected)["clean"]
    assert changes(before, picture(net)) == []


def test_model_and_data_may_be_float64(net: nn.Module, test_set: tuple[Tensor, Tensor]) -> None:
    x, y = test_set
    r = evaluate(mlp(6, 20, 4), (x.double(), y), {"pgd": PGD(0.2, steps=5), "noise": Gaussian()})
    assert r["pgd"].images == 300


def test_bar_shows_on_standard_error_and_only_on_request(
    net: nn.Module, test_set: tuple[Tensor, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(net, test_set, {"noise": Gaussian()})
    quiet = capsys.readouterr()
    assert quiet.out + quiet.err == ""
    evaluate(net, test_set, {"noise": Gaussian()}, progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "100%" in shown.err


# Chance.


def test_same_seed_gives_the_same_bits_and_another_one_others(net: nn.Module, test_set: tuple[Tensor, Tensor]) -> None:
    attacks: dict[str, Attack] = {"noise": Gaussian(0.3), "pgd": PGD(0.2, steps=3)}
    torch.manual_seed(1)
    first = evaluate(net, test_set, attacks, seed=4, batch_size=100)
    torch.manual_seed(2)
    assert bits(evaluate(net, test_set, attacks, seed=4, batch_size=100)) == bits(first)
    assert bits(evaluate(net, test_set, attacks, seed=5, batch_size=100)) != bits(first)


def test_other_attacks_do_not_change_an_attack_s_draws(net: nn.Module, test_set: tuple[Tensor, Tensor]) -> None:
    alone = evaluate(net, test_set, {"noise": Gaussian(0.3)}, batch_size=100)
    among = evaluate(net, test_set, {"pgd": PGD(0.2, steps=3), "noise": Gaussian(0.3)}, batch_size=100)
    assert torch.equal(alone["noise"].robust, among["noise"].robust)


def test_shuffling_loader_gives_the_same_bits_again(net: nn.Module, test_set: tuple[Tensor, Tensor]) -> None:
    loader = DataLoader(TensorDataset(*test_set), batch_size=50, shuffle=True)
    first = evaluate(net, loader, {"noise": Gaussian(0.3)})
    assert bits(evaluate(net, loader, {"noise": Gaussian(0.3)})) == bits(first)


# Nothing is left behind.


@pytest.fixture
def moody() -> nn.Module:
    """A model that would show any trace: train mode, one layer in eval mode, one frozen weight, gradients."""
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4))
    model(X).sum().backward()
    model[1].eval()
    model[3].bias.requires_grad_(False)
    return model


def test_model_gradients_and_random_state_are_left_as_they_were(moody: nn.Module) -> None:
    before = picture(moody)
    y = torch.zeros(90, dtype=torch.int64)

    def rude(model: Model, x: Tensor, y: Tensor) -> Tensor:
        torch.manual_seed(0)
        leaf = x.requires_grad_()
        F.cross_entropy(model(leaf), y).backward()  # type: ignore[no-untyped-call]
        return x.detach().mul_(0.5)

    evaluate(moody, (X, y), {"rude": rude, "pgd": PGD(0.2, steps=3), "noise": Gaussian(), "paper": PaperPGD(steps=2)})
    assert changes(before, picture(moody)) == []
    assert torch.equal(X, rand(90, 6, dtype=FLOAT))
    assert not X.requires_grad


def test_all_is_restored_after_an_error_too(moody: nn.Module) -> None:
    before = picture(moody)

    def fail(model: Model, x: Tensor, y: Tensor) -> Tensor:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        evaluate(moody, (X, torch.zeros(90, dtype=torch.int64)), {"fail": fail})
    assert changes(before, picture(moody)) == []


def test_model_is_seen_in_eval_mode_with_frozen_parameters(moody: nn.Module) -> None:
    seen = []

    def look(model: Model, x: Tensor, y: Tensor) -> Tensor:
        assert isinstance(model, nn.Module)
        seen.append((any(m.training for m in model.modules()), any(p.requires_grad for p in model.parameters())))
        return x

    r = evaluate(moody, (X, torch.zeros(90, dtype=torch.int64)), {"look": look})
    assert seen == [(False, False)]
    assert torch.equal(r["clean"].robust, moody.eval()(X).argmax(1) == 0)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_works_where_gradients_are_off(
    net: nn.Module, test_set: tuple[Tensor, Tensor], mode: Callable[[], Any]
) -> None:
    attacks: dict[str, Attack] = {"pgd": PGD(0.2, steps=5)}
    expected = evaluate(net, test_set, attacks)
    with mode():
        x, y = test_set[0] + 0, test_set[1] + 0
        assert bits(evaluate(net, (x, y), attacks)) == bits(expected)


def test_recurrent_models_are_attacked_too() -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.GRU(3, 5, num_layers=2, dropout=0.5, batch_first=True), nn.Linear(5, 4)

        def forward(self, x: Tensor) -> Tensor:
            z: Tensor = self.head(self.rnn(x)[0][:, -1])
            return z

    model = Reader()
    before = picture(model)
    enabled = torch.backends.cudnn.enabled
    r = evaluate(model, (rand(20, 7, 3, dtype=FLOAT), torch.zeros(20, dtype=torch.int64)), {"pgd": PGD(0.5, steps=3)})
    assert r["pgd"].images == 20
    assert changes(before, picture(model)) == []
    assert torch.backends.cudnn.enabled == enabled


# Attacks are not trusted, and bad input is refused.


@pytest.mark.parametrize(
    ("function", "threat", "message"),
    [
        (
            lambda x: x + 1.0,
            Threat(2, 1.0),
            r"'cheat' left its threat \(norm 2.0, eps 1.0.* 90 of 90 images; largest",
        ),
        (lambda x: x + 0.1001, Threat("inf", 0.1), "left its threat"),  # type: ignore[arg-type]
        (lambda x: x.add_(0.2), Threat(math.inf, 0.1), "left its threat"),  # in place, on what it was given
        (lambda x: x - 0.5, Threat(math.inf, 0.6, (0.0, 1.0)), "left its threat"),
        (lambda x: x - 0.5, Threat(2, None, (0.0, 1.0)), "left its threat"),
        (lambda x: x * math.nan, Threat(), "'cheat' returned images that are not finite"),
        (lambda x: x / 0, Threat(), "'cheat' returned images that are not finite"),
        (lambda x: x[:1], Threat(), r"'cheat' must return images of shape \(90, 6\); got \(1, 6\)"),
        (lambda x: None, Threat(), r"must return images of shape \(90, 6\); got NoneType"),
    ],
)
def test_attack_that_cheats_is_caught_by_name(function: Callable[[Tensor], Any], threat: Threat, message: str) -> None:
    model, y = mlp(6, 4, dtype=FLOAT), torch.zeros(90, dtype=torch.int64)
    with pytest.raises(ValueError, match=message):
        evaluate(model, (X, y), {"cheat": Bounded(function, threat)})


def test_attack_at_the_edge_of_its_threat_is_no_cheat() -> None:
    model, y = mlp(6, 4, dtype=FLOAT), torch.zeros(90, dtype=torch.int64)
    edge = Bounded(lambda x: x + 0.1, Threat(math.inf, 0.1))
    assert evaluate(model, (X, y), {"edge": edge})["edge"].images == 90


ZEROS = torch.zeros(90, dtype=torch.int64)
LINEAR = nn.Linear(6, 4)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"loader": (X, X)}, TypeError, "labels must be whole numbers; got torch.float32: measure a regression"),
        ({"loader": (X, ZEROS[:8])}, ValueError, r"equally many; got shapes \(90, 6\) and \(8,\)"),
        ({"loader": (X, ZEROS + 4)}, ValueError, r"labels must lie in 0\.\.3, .* 4 outputs; got 4 to 4"),
        ({"loader": (X.to(torch.uint8), ZEROS)}, TypeError, "images must be floating"),
        ({"loader": (X * math.nan, ZEROS)}, ValueError, "output on the images is NaN"),
        ({"loader": []}, ValueError, "nothing to evaluate"),
        ({"loader": [X, ZEROS, ZEROS]}, TypeError, r"must be a pair \(x, y\) of tensors; got Tensor"),
        ({"loader": [(X, [0] * 90)]}, TypeError, "got Tensor and list"),
        ({"loader": 3}, TypeError, "loader must be an iterable of batches .*; got int"),
        ({"model": nn.Linear(6, 1)}, ValueError, r"must return logits \(90, classes\), classes >= 2; got \(90, 1\)"),
        ({"model": 3}, TypeError, "model must be a"),
        ({"attacks": {"clean": PGD(1.0)}}, ValueError, '"clean" is taken'),
        ({"attacks": {"pgd": 2.0}}, TypeError, r"'pgd' must be callable as attack\(model, x, y\); got float"),
        ({"limit": 0}, ValueError, "limit must be a whole number of at least 1; got 0"),
        ({"batch_size": 0}, ValueError, "batch_size must be a whole number of at least 1; got 0"),
        ({"seed": -1}, ValueError, "seed must be a whole number of at least 0; got -1"),
        ({"seed": 0.5}, ValueError, "seed must be a whole number of at least 0; got 0.5"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"model": LINEAR, "loader": (X, ZEROS), **change}
    with pytest.raises(error, match=message) as caught:
        evaluate(**arguments)
    assert "\n" not in str(caught.value)


# Attacks that make the change small, closed boxes, and what is kept.


class Swaps:
    """Takes the next image, and says that this is as near as it gets."""

    minimal = True
    threat = Threat(2.0, None, (0.0, 1.0))

    def __call__(self, model: Model, x: Tensor, y: Tensor) -> Tensor:
        return x.roll(1, 0)


def test_distances_are_measured_and_read_off_at_every_radius(net: nn.Module, test_set: tuple[Tensor, Tensor]) -> None:
    x, y = test_set[0][:50], test_set[1][:50]
    r = evaluate(net, (x, y), {"swaps": Swaps()}, radii=[0.3, 0.9], doubt=False)
    with torch.no_grad():
        right = net.eval()(x).argmax(1) == y
        fooled = net(Swaps()(net, x, y)).argmax(1) != y
    far = (Swaps()(net, x, y) - x).norm(dim=1)
    expected = torch.where(right, torch.where(fooled, far, math.inf), 0.0)
    for eps in (0.3, 0.9):
        assert torch.equal(r[f"swaps@{eps:g}"].robust, expected > eps)
        assert r[f"swaps@{eps:g}"].eps == eps
    distance = r["swaps@0.3"].distance
    assert distance is not None
    torch.testing.assert_close(distance, expected)
    whole = evaluate(net, (x, y), {"swaps": Swaps()}, doubt=False)["swaps"]
    assert whole.eps is None
    assert torch.equal(whole.robust, expected == math.inf)
    assert whole.median == pytest.approx(float(expected.sort().values[24]))


def test_closed_box_attack_gets_a_function_and_its_questions_are_counted(
    net: nn.Module, test_set: tuple[Tensor, Tensor]
) -> None:
    seen = []

    class Asks:
        threat = Threat(2.0, 0.1)
        access = "scores"

        def __call__(self, model: Model, x: Tensor, y: Tensor) -> Tensor:
            seen.append(model)
            for _ in range(3):
                assert not model(x.requires_grad_()).requires_grad
            return x

    r = evaluate(net, test_set, {"asks": Asks()}, limit=50, doubt=False)
    assert r["asks"].queries == 3
    assert r["asks"].closed
    assert "3 queries an image" in str(r)
    assert not isinstance(seen[0], nn.Module)
    assert not hasattr(seen[0], "parameters")


class Shelf:
    """Keeps outcomes in memory."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, int], Any] = {}

    def get(self, key: str, attack: Any, number: int, images: int) -> Any:
        return self.kept.get((key, number))

    def put(self, key: str, attack: Any, number: int, outcome: Any) -> None:
        self.kept[key, number] = outcome


def test_evaluation_goes_on_where_it_was_stopped(net: nn.Module, test_set: tuple[Tensor, Tensor]) -> None:
    calls = []

    class Stops:
        threat = Threat(2.0, 0.1)

        def __call__(self, model: Model, x: Tensor, y: Tensor) -> Tensor:
            calls.append(len(x))
            if len(calls) == 3:
                raise KeyboardInterrupt
            return PGD(0.1, steps=2)(model, x, y)

    shelf = Shelf()
    with pytest.raises(KeyboardInterrupt):
        evaluate(net, test_set, {"stops": Stops()}, batch_size=100, cache=shelf, doubt=False)
    resumed = evaluate(net, test_set, {"stops": Stops()}, batch_size=100, cache=shelf, doubt=False)
    assert calls == [100, 100, 100, 100]
    whole = evaluate(net, test_set, {"stops": PGD(0.1, steps=2)}, batch_size=100, doubt=False)
    assert torch.equal(resumed["stops"].robust, whole["stops"].robust)


def test_random_states_of_numpy_and_python_are_set_aside_too(net: nn.Module, test_set: tuple[Tensor, Tensor]) -> None:
    drawn: list[tuple[float, float]] = []

    def attack(model: Model, x: Tensor, y: Tensor) -> Tensor:
        drawn.append((random.random(), float(np.random.rand())))
        return x

    random.seed(7)
    np.random.seed(7)
    expected = (random.random(), float(np.random.rand()))
    for _ in range(2):
        random.seed(7)
        np.random.seed(7)
        evaluate(net, test_set, {"own": attack}, limit=20)
        assert (random.random(), float(np.random.rand())) == expected
    assert drawn[0] == drawn[1] != expected
