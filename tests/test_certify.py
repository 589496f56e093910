"""Certified radii: exact where the network is linear, below every attack elsewhere, silent about nothing."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import cheaplip as cl
from cheaplip.lipschitz import certify

METHODS = ["pairs", "pairs-fast", "global"]


def network(seed: int = 0, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 12), activation(), nn.Linear(12, 10), activation(), nn.Linear(10, 4))


def samples(net: nn.Module, count: int = 60) -> tuple[Tensor, Tensor]:
    """Return points and what the network says of them; every tenth label is wrong."""
    x = torch.rand(count, 6, generator=torch.Generator().manual_seed(1))
    y = net(x).argmax(1)
    y[::10] = (y[::10] + 1) % 4
    return x, y


@settings(max_examples=10)
@given(seed=st.integers(0, 10_000))
@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_radius_of_a_linear_network_is_the_distance_to_the_next_class(p: float, seed: int) -> None:
    torch.manual_seed(seed)
    net = nn.Linear(5, 3)
    x, y = torch.randn(20, 5), torch.randint(3, (20,))
    found = certify(net, x, y, p=p)
    weight, bias = net.weight.detach().double(), net.bias.detach().double()
    z = x.double() @ weight.T + bias
    dual = {1: math.inf, 2: 2.0, math.inf: 1.0}[p]
    for k in range(20):
        others = [j for j in range(3) if j != int(y[k])]
        distances = [(z[k, y[k]] - z[k, j]) / (weight[y[k]] - weight[j]).norm(dual) for j in others]
        exact = max(0.0, float(min(distances)))
        assert found.radius[k] <= exact * (1 + 1e-12)
        assert float(found.radius[k]) == pytest.approx(exact, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.GELU])
@pytest.mark.parametrize("domain", ["all", "box"])
def test_no_attack_succeeds_within_the_radius(method: str, activation: type[nn.Module], domain: str) -> None:
    net = network(3, activation)
    x, y = samples(net)
    found = certify(net, x, y, method=method, domain=domain)
    right = net(x).argmax(1) == y
    assert torch.equal(found.radius > 0, right)
    for eps in (0.02, 0.1, 0.3):
        box = (0.0, 1.0) if domain == "box" else None
        attacked = cl.attacks.PGD(eps, norm=2, box=box)(net, x, y)
        held = net(attacked).argmax(1) == y
        assert bool(held[found.certified(eps)].all())
    assert found.accuracy(1e-9) == pytest.approx(float(right.double().mean()))


def test_methods_are_ordered_and_say_so() -> None:
    net = network()
    x, y = samples(net)
    pairs, fast, whole = (certify(net, x, y, method=method) for method in METHODS)
    assert bool((pairs.radius >= fast.radius * (1 - 1e-6)).all())
    assert bool((fast.radius >= whole.radius * (1 - 1e-6)).all())
    assert float(pairs.radius.sum()) > 1.05 * float(whole.radius.sum())
    assert ("pair by pair" in pairs.method, "pair by pair" in whole.method) == (True, False)
    assert bool((pairs.constants == pairs.constants.T).all())
    assert not bool(pairs.constants.diagonal().any())


def test_constants_hold_for_differences_of_outputs() -> None:
    net = network(5)
    x, y = samples(net)
    constants = certify(net, x, y).constants
    for i, j in ((0, 1), (2, 3), (1, 3)):

        def difference(points: Tensor, i: int = i, j: int = j) -> Tensor:
            z: Tensor = net(points)
            return (z[:, i] - z[:, j]).unsqueeze(1)

        found = cl.lipschitz.lower(difference, x, pairs=16, steps=40, modules=[net]).value
        assert 0 < found <= float(constants[i, j]) * (1 + 1e-5)


def test_accuracy_and_interval_at_a_radius() -> None:
    net = network()
    x, y = samples(net)
    found = certify(net, x, y, method="pairs-fast")
    accuracies = [found.accuracy(eps) for eps in (0.0, 0.05, 0.2, 10.0)]
    assert accuracies == sorted(accuracies, reverse=True)
    assert (accuracies[0], accuracies[-1]) == (0.9, 0.0)
    low, high = found.interval(0.05)
    assert low < found.accuracy(0.05) < high
    with pytest.raises(ValueError, match="eps must be a finite number"):
        found.accuracy(-1.0)


def test_convolutional_network_is_certified_by_its_last_layer() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)).eval()
    x = torch.rand(10, 1, 6, 6)
    y = net(x).argmax(1)
    pairs, whole = (certify(net, x, y, method=method) for method in ("pairs", "global"))
    assert bool((pairs.radius > whole.radius).all())
    assert "rows of the last layer" in pairs.method


@pytest.mark.parametrize(
    ("x", "y", "arguments", "kind", "message"),
    [
        (torch.rand(3, 6), torch.rand(3), {}, TypeError, "whole numbers"),
        (torch.rand(3, 6), torch.zeros(2, dtype=torch.int64), {}, ValueError, "equally many"),
        (torch.rand(0, 6), torch.zeros(0, dtype=torch.int64), {}, ValueError, "at least one"),
        (torch.full((1, 6), math.nan), torch.zeros(1, dtype=torch.int64), {}, ValueError, "finite"),
        (torch.zeros(1, 6, dtype=torch.int64), torch.zeros(1, dtype=torch.int64), {}, TypeError, "floating"),
        (torch.rand(1, 6), torch.tensor([4]), {}, ValueError, "labels must be 0 to 3"),
        (torch.rand(1, 6) + 2, torch.tensor([0]), {"domain": "box"}, ValueError, "lie in the box"),
        (torch.rand(1, 6), torch.tensor([0]), {"method": "magic"}, ValueError, "method must be one of"),
        (torch.rand(1, 5), torch.tensor([0]), {}, ValueError, "shapes cannot be multiplied"),
    ],
)
def test_bad_input_is_one_clear_sentence(
    x: Tensor, y: Tensor, arguments: dict[str, str], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        certify(network(), x, y, **arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_evaluation_encloses_the_truth() -> None:
    net = network(7)
    x, y = samples(net)
    attacks = {"pgd@0.05": cl.attacks.PGD(0.05, box=None), "pgd@0.2": cl.attacks.PGD(0.2, box=None)}
    found = cl.evaluate(net, (x, y), attacks, limit=50, certify=True)
    assert list(found) == ["clean", "pgd@0.05", "pgd@0.2", "certified@0.05", "certified@0.2"]
    for eps in ("0.05", "0.2"):
        proven, attacked = found[f"certified@{eps}"], found[f"pgd@{eps}"]
        assert proven.images == attacked.images == 50
        assert not bool((proven.robust & ~attacked.robust).any())
    entry = found["certified@0.2"].entry()
    assert (entry["attack"], entry["norm"], entry["eps"], entry["proven"]) == ("certified", "2", 0.2, True)
    assert "proven, by" in str(found)


def test_evaluation_certifies_at_radii_of_its_own() -> None:
    net = network()
    assert list(cl.evaluate(net, samples(net), certify=[0.1])) == ["clean", "certified@0.1"]
    assert "certified@1.58" in cl.evaluate(net, samples(net), certify=True)
    with pytest.raises(ValueError, match="finite numbers above 0"):
        cl.evaluate(net, samples(net), certify=[0.0])
    with pytest.raises(TypeError, match=r"needs a torch\.nn\.Module"):
        cl.evaluate(lambda x: net(x), samples(net), certify=True)
