"""Training towards certificates: the signal is the bound that is proven afterwards, and more is proven for it."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import cheaplip as cl
from cheaplip.data import BatchLoader, load
from cheaplip.norms import span
from cheaplip.penalties.differentiable import chain_of, pairwise, spread

ACTIVATIONS: list[Callable[[], nn.Module]] = [nn.ReLU, nn.Sigmoid, nn.Tanh, nn.GELU, nn.LeakyReLU, lambda: nn.ELU(1.5)]


def network(activation: Callable[[], nn.Module], seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    inner = nn.Sequential(nn.Linear(6, 9), activation(), nn.Dropout())
    return nn.Sequential(nn.Flatten(), inner, nn.Linear(9, 7), activation(), nn.Linear(7, 4)).double()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bound", ["eclipse", "product"])
def test_penalty_is_a_bound_and_that_which_is_proven(activation: Callable[[], nn.Module], bound: str) -> None:
    net = network(activation)
    value = cl.UpperBoundPenalty(net, weight=1.0, bound=bound)(net).item()
    x = torch.zeros(1, 6, dtype=torch.float64)
    tightest = cl.lipschitz.upper(net, x, method="sdp").value
    assert value >= tightest * (1 - 1e-6)
    product = cl.lipschitz.upper(net, x, method="product").value
    if bound == "product":
        assert value == pytest.approx(product, rel=1e-9)
    else:
        assert value <= product * (1 + 1e-9)


def test_eclipse_is_the_one_that_is_proven() -> None:
    net = network(nn.ReLU)
    value = cl.UpperBoundPenalty(net, weight=1.0)(net).item()
    proven = cl.lipschitz.upper(net, torch.zeros(1, 6, dtype=torch.float64), method="eclipse").value
    assert value == pytest.approx(proven, rel=1e-5)


@pytest.mark.parametrize("bound", ["eclipse", "product"])
def test_gradient_is_that_of_finite_differences(bound: str) -> None:
    net = network(nn.Tanh)
    penalty = cl.UpperBoundPenalty(net, weight=1.0, bound=bound)
    penalty(net).backward()
    weights = [layer.linear.weight for layer in chain_of(net)]
    for weight in weights:
        direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        values = []
        for step in (1e-6, -1e-6):
            weight.data += step * direction
            values.append(penalty(net).item())
            weight.data -= step * direction
        assert weight.grad is not None
        assert (values[0] - values[1]) / 2e-6 == pytest.approx(float((weight.grad * direction).sum()), rel=1e-5)


def test_margins_of_pairs_are_bounds_too() -> None:
    net = network(nn.ReLU)
    constants = pairwise(spread(chain_of(net), "eclipse")).detach()
    x = torch.rand(5, 6, dtype=torch.float64)
    proven = cl.lipschitz.certify(net.eval(), x, net(x).argmax(1)).constants
    off = ~torch.eye(4, dtype=torch.bool)
    assert bool((proven[off] <= constants[off] * (1 + 1e-3)).all())


def test_margin_loss_is_cross_entropy_of_raised_logits() -> None:
    net = network(nn.ReLU)
    loss = cl.MarginLoss(net, weight=0.3)
    logits, y = torch.randn(8, 4, dtype=torch.float64), torch.arange(8) % 4
    constants = pairwise(spread(chain_of(net), "eclipse"))
    raised = logits + 0.3 * constants[y]
    assert loss(logits, y).item() == pytest.approx(nn.functional.cross_entropy(raised, y).item())
    plain = nn.functional.cross_entropy(logits, y).item()
    assert cl.MarginLoss(net, weight=0.0)(logits, y).item() == pytest.approx(plain)
    ramped = cl.MarginLoss(net, weight=0.3, ramp=2)
    values = [ramped(logits, y).item() for _ in range(4)]
    assert values[0] < values[1] < values[2] == values[3] == pytest.approx(loss(logits, y).item())


def trained(make: Callable[[nn.Module], nn.Module] | None) -> tuple[nn.Module, cl.History, float]:
    data = load("digits")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))
    driven = None if make is None else make(net)
    is_loss = isinstance(driven, cl.MarginLoss)
    history = cl.fit(
        net,
        BatchLoader(data.train.x, data.train.y, 32, seed=0),
        loss=driven if is_loss and driven is not None else nn.CrossEntropyLoss(),
        optimizer=torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9),
        epochs=6,
        penalty=None if is_loss or driven is None else driven,
        control=None if driven is None else cl.Discrepancy(driven, target=0.93, step=2e-3),
        progress=False,
    )
    proof = cl.lipschitz.certify(net, data.test.x, data.test.y, method="pairs-fast")
    return net, history, proof.accuracy(0.2)


def test_training_towards_certificates_proves_more() -> None:
    plain = trained(None)[2]
    margin, penalised = (
        trained(lambda net: cl.MarginLoss(net, weight=0.0)),
        trained(lambda net: cl.UpperBoundPenalty(net, weight=0.0)),
    )
    assert margin[2] > plain + 0.05
    assert penalised[2] > plain
    # The history tells ε as it tells λ.
    assert margin[1].column("weight")[-1] > 0


def test_loss_that_is_driven_resumes_exactly(tmp_path: object) -> None:
    def run(epochs: int, resume: bool, folder: object) -> tuple[nn.Module, cl.MarginLoss]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))
        data, loss = load("digits"), cl.MarginLoss(net, weight=0.1, ramp=40)
        cl.fit(
            net,
            BatchLoader(data.train.x, data.train.y, 32, seed=0),
            loss=loss,
            optimizer=torch.optim.SGD(net.parameters(), lr=0.1),
            epochs=epochs,
            control=cl.Discrepancy(loss, target=0.5, step=1e-3),
            checkpoint=str(folder),
            resume=resume,
            progress=False,
        )
        return net, loss

    run(1, False, tmp_path)
    (net, loss), (whole, other) = run(2, True, tmp_path), run(2, False, f"{tmp_path}/whole")
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), whole.parameters(), strict=True))
    assert float(loss.weight) == float(other.weight) != pytest.approx(0.1)
    assert int(loss.calls) == int(other.calls) > 40


@pytest.mark.parametrize(
    ("net", "kind", "message"),
    [
        (nn.Sequential(nn.Linear(3, 3), nn.ReLU()), ValueError, "end with a linear layer"),
        (
            nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2)),
            TypeError,
            r"'0' \(Conv2d\) is not understood",
        ),
        (nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)), TypeError, r"'1' \(BatchNorm1d\)"),
        (nn.Sequential(nn.Flatten()), ValueError, "end with a linear layer"),
    ],
)
def test_network_that_is_no_dense_chain_is_named(net: nn.Module, kind: type[Exception], message: str) -> None:
    for make in (cl.UpperBoundPenalty, cl.MarginLoss):
        with pytest.raises(kind, match=message):
            make(net, weight=0.1)


def test_arguments_are_checked() -> None:
    net = network(nn.ReLU)
    with pytest.raises(ValueError, match="bound must be one of"):
        cl.MarginLoss(net, weight=0.1, bound="sdp")
    with pytest.raises(ValueError, match="ramp must be a whole number"):
        cl.MarginLoss(net, weight=0.1, ramp=-1)
    with pytest.raises(ValueError, match="weight"):
        cl.UpperBoundPenalty(net, weight=math.nan)
    with pytest.raises(ValueError, match=r"logits must have shape \(n, 4\)"):
        cl.MarginLoss(net, weight=0.1)(torch.zeros(3, 5), torch.zeros(3, dtype=torch.int64))


def test_pairs_may_be_measured_by_margins() -> None:
    x = torch.rand(40, 6)
    penalty = cl.LipschitzPenalty.from_data(x, weight=1.0, pairs=8, p_out=span)
    weight = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))

    def same_for_all(points: Tensor) -> Tensor:
        return points @ weight[:1].T.expand(6, 3)

    assert float(penalty(same_for_all)) == pytest.approx(0.0, abs=1e-5)
    assert float(penalty(lambda points: points @ weight.T)) > 0.1
