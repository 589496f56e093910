"""An evaluation says when it should not be believed, and stays silent about sound networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from oracles import mlp, rand, randn
from torch import Tensor, nn

from cheaplip.attacks import PGD, Bisection, Gaussian, Threat
from cheaplip.evaluation import Result, evaluate
from cheaplip.evaluation.doubting import contradictions, refuted
from cheaplip.modes import Model

FLOAT = torch.float32


def clouds(n: int, seed: int) -> tuple[Tensor, Tensor]:
    y = torch.randint(4, (n,), generator=torch.Generator().manual_seed(seed))
    centers = rand(4, 6, seed=9, dtype=FLOAT)
    return (centers[y] + 0.12 * randn(n, 6, seed=seed, dtype=FLOAT)).clamp(0, 1), y


TEST = clouds(60, seed=2)


class Changed(nn.Module):
    """A network with something around it."""

    def __init__(self, net: nn.Module, forward: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.how = net, forward

    def forward(self, x: Tensor) -> Tensor:
        return self.how(self.net, x)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    model = mlp(6, 20, 4, dtype=FLOAT)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    x, y = clouds(400, seed=1)
    for _ in range(150):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.eval()


PLANTED: dict[str, tuple[Callable[[nn.Module, Tensor], Tensor], str]] = {
    "sigmoid, times 50": (lambda net, x: 50 * torch.sigmoid(net(x)), "ends with sigmoid"),
    "steep sigmoid": (lambda net, x: torch.sigmoid(50 * net(x)), "ends with sigmoid"),
    "softmax": (lambda net, x: net(x).softmax(1), "ends with softmax"),
    "by hand": (lambda net, x: 1 / (1 + torch.exp(-net(x))), "lie in [0, 1]"),
    "by hand, times 50": (lambda net, x: 50 / (1 + torch.exp((-90 * net(x)).clamp(-50, 50))) - 1, "pile up"),
    "quantised input": (lambda net, x: net((8 * x).round() / 8), "gradient is exactly zero"),
    "noise inside": (lambda net, x: net(x + 0.2 * torch.randn_like(x)), "random"),
    "rugged input": (lambda net, x: net(x + 0.1 * torch.sin(200 * x)), "misleads"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_fault_is_named(name: str, net: nn.Module) -> None:
    forward, words = PLANTED[name]
    doubts = evaluate(Changed(net, forward), TEST, {"pgd": PGD(0.15, steps=5)}).doubts
    assert any(words in doubt for doubt in doubts), doubts


@pytest.mark.parametrize(
    ("forward", "attacks"),
    [
        (lambda net, x: net(x), {"pgd": PGD(0.15), "large": PGD(0.3)}),
        (lambda net, x: net(x), {"pgd": PGD(0.05, "inf")}),
        (lambda net, x: net(x), {"near": Bisection(steps=10)}),
        (lambda net, x: 1e3 * net(x), {"pgd": PGD(0.15)}),
        (lambda net, x: net(torch.sigmoid(4 * x)), {"pgd": PGD(0.15, box=None)}),
        (lambda net, x: net(x).log_softmax(1), {"pgd": PGD(0.15)}),
    ],
)
def test_sound_network_raises_no_doubt(forward: Any, attacks: Any, net: nn.Module) -> None:
    assert evaluate(Changed(net, forward), TEST, attacks).doubts == ()


def test_nothing_is_tried_where_nothing_is_attacked_or_doubts_are_not_wanted(net: nn.Module) -> None:
    calls = []

    def count(net: nn.Module, x: Tensor) -> Tensor:
        calls.append(len(x))
        return torch.softmax(net(x), 1)

    counted = Changed(net, count)
    assert evaluate(counted, TEST, {"noise": Gaussian()}).doubts == ()
    assert len(calls) == 2
    assert evaluate(counted, TEST, {"pgd": PGD(0.1)}, doubt=False).doubts == ()


def test_attack_that_lacks_something_on_this_model_is_doubted_once_for_each_name(net: nn.Module) -> None:
    class Lacking:
        threat = Threat(2, 0.1, (0.0, 1.0))

        def lacks(self, classes: int) -> str:
            return f"it needs 5 classes, the model has {classes}" if classes < 5 else ""

        def __call__(self, model: Model, x: Tensor, y: Tensor) -> Tensor:
            return x

    attacks: dict[str, Any] = {"half@1": Lacking(), "half@2": Lacking(), "pgd": PGD(0.15, steps=5)}
    (doubt,) = evaluate(net, TEST, attacks).doubts
    assert doubt == "half is weaker here than elsewhere: it needs 5 classes, the model has 4"
    wider = nn.Sequential(net, nn.ConstantPad1d((0, 1), -9.0))
    assert evaluate(wider, TEST, attacks).doubts == ()


def test_model_without_gradient_gets_one_doubt_and_no_probes(net: nn.Module) -> None:
    class Still:
        threat = Threat(2.0, 0.1)

        def __call__(self, model: Model, x: Tensor, y: Tensor) -> Tensor:
            return x

    (doubt,) = evaluate(Changed(net, lambda net, x: net(x).detach()), TEST, {"still": Still()}).doubts
    assert "no gradient" in doubt


def result(name: str, eps: float, right: int, *, closed: bool = False, weak: bool = False) -> Result:
    robust = torch.arange(100) < right
    return Result(name, name, robust, norm=2.0, eps=eps, closed=closed, weak=weak)


def test_accuracy_that_grows_with_the_radius_is_a_contradiction() -> None:
    (doubt,) = contradictions({"pgd@1": result("pgd", 1.0, 40), "pgd@2": result("pgd", 2.0, 60)})
    assert "must not grow" in doubt
    assert contradictions({"pgd@1": result("pgd", 1.0, 40), "pgd@2": result("pgd", 2.0, 42)}) == ()
    assert contradictions({"pgd@1": result("pgd", 1.0, 40), "other@2": result("other", 2.0, 60)}) == ()


def test_closed_box_that_beats_open_ones_is_a_contradiction() -> None:
    closed, open_ = result("square", 1.0, 40, closed=True), result("pgd", 1.0, 60)
    (doubt,) = contradictions({"a": closed, "b": open_})
    assert "square, which only asks the model, breaks 20 images" in doubt
    assert contradictions({"a": closed, "b": open_, "c": result("apgd", 1.0, 39)}) == ()
    assert contradictions({"a": closed, "b": result("pgd", 2.0, 60)}) == ()
    assert contradictions({"a": closed, "b": result("pgd-paper", 1.0, 60, weak=True)}) == ()


def test_attack_that_breaks_a_proof_raises() -> None:
    proof = Result(
        "certified", "proven", torch.ones(3, dtype=torch.bool), norm=2.0, eps=0.5, proven=True,
        distance=torch.tensor([1.0, 0.7, 0.9], dtype=torch.float64),
    )  # fmt: skip
    near = Result("ddn", "DDN", torch.zeros(3, dtype=torch.bool), norm=2.0, distance=torch.tensor([1.2, 0.6, 2.0]))
    with pytest.raises(ValueError, match=r"ddn breaks image 1 within 0\.6, where nothing within 0\.7 should"):
        refuted({"certified": proof, "ddn": near})
    broken = Result("pgd", "PGD", torch.tensor([True, True, False]), norm=2.0, eps=0.8)
    with pytest.raises(ValueError, match="pgd breaks image 2"):
        refuted({"certified": proof, "pgd": broken})
    refuted({"certified": proof, "pgd": Result("pgd", "PGD", torch.tensor([True, False, True]), norm=2.0, eps=0.8)})
    refuted({"certified": proof, "pgd": Result("pgd", "PGD", ~proof.robust, norm=float("inf"), eps=0.1)})
