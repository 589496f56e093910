"""Numbers are right where they are hard: gradients, pairs very near and far, weights of any scale, the same bits."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from oracles import rand, randn
from torch import Tensor, nn

import cheaplip as cl
from cheaplip import norms, runs
from cheaplip.runs import pipeline
from cheaplip.settings import TrainSettings

X, Y, U, V = randn(6, 3, seed=1), torch.tensor([0, 1, 2, 3, 0, 1]), randn(5, 3, seed=2), randn(5, 3, seed=3)
REDUCTIONS: tuple[Any, ...] = ("max", "mean", ("softmax", 0.3))
NORMS: tuple[Any, ...] = (1, 2, "inf")


def through(weight: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.tanh(x @ weight)


def still(**arguments: Any) -> cl.LipschitzPenalty:
    penalty = cl.LipschitzPenalty(U, V, weight=0.7, min_distance=0.0, **arguments)
    penalty.eval()
    return penalty


def called(value: object) -> str:
    """Return a name that is the same in every process."""
    return str(getattr(value, "__name__", value))


@pytest.mark.parametrize(("reduce", "power"), list(itertools.product(REDUCTIONS, (1, 2))), ids=str)
def test_gradient_of_the_penalty_is_that_of_finite_differences(reduce: Any, power: int) -> None:
    weight = randn(3, 4, seed=4).requires_grad_()
    penalty = still(reduce=reduce, power=power)
    assert torch.autograd.gradcheck(lambda w: penalty(through(w)), (weight,))
    assert torch.autograd.gradcheck(lambda w: penalty.joint(through(w), X)[1], (weight,))


@pytest.mark.parametrize(("p_in", "p_out"), list(itertools.product(NORMS, (*NORMS, norms.span))), ids=called)
def test_gradient_is_right_in_every_norm(p_in: Any, p_out: Any) -> None:
    weight = randn(3, 4, seed=4).requires_grad_()
    penalty = still(p_in=p_in, p_out=p_out)
    assert torch.autograd.gradcheck(lambda w: penalty(through(w)), (weight,))


@pytest.mark.parametrize("p", [*NORMS, norms.span], ids=called)
def test_gradient_of_a_norm_is_that_of_finite_differences(p: Any) -> None:
    x = randn(4, 5, seed=5).requires_grad_()
    (found,) = torch.autograd.grad(norms.vector_norm(x, p).sum(), x)
    assert torch.autograd.gradcheck(lambda x: norms.vector_norm(x, p), (x,))
    torch.testing.assert_close(norms.norm_gradient(x.detach(), p), found)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4)).double()


def of_penalty(penalty: Any, *batch: Any) -> Callable[[nn.Module], Tensor]:
    return lambda net: penalty(net, *batch)


def of_margin(net: nn.Module, bound: str) -> Callable[[nn.Module], Tensor]:
    loss = cl.MarginLoss(net, weight=0.5, bound=bound)
    return lambda net: loss(net(X), Y)


def at_fixed_points(penalty: Any) -> Callable[[nn.Module], Tensor]:
    """Take what the search found as given, as the penalty's gradient does."""
    penalty.search = lambda model, x, logits: x + 0.3 * randn(*x.shape, seed=6)
    return of_penalty(penalty, X)


def of_layers(net: nn.Module) -> Callable[[nn.Module], Tensor]:
    """Let power iteration come to its end; then its vectors move with the weights only in second order."""
    penalty = cl.LayerProductPenalty(net, X[:1], weight=0.5)
    for _ in range(300):
        penalty(net)
    return of_penalty(penalty.eval())


OF_WEIGHTS: dict[str, Callable[[nn.Module], Callable[[nn.Module], Tensor]]] = {
    "ECLipsE": lambda net: of_penalty(cl.UpperBoundPenalty(net, weight=0.5, bound="eclipse")),
    "ECLipsE, squared": lambda net: of_penalty(cl.UpperBoundPenalty(net, weight=0.5, bound="eclipse", power=2)),
    "product": lambda net: of_penalty(cl.UpperBoundPenalty(net, weight=0.5, bound="product")),
    "margin, ECLipsE": lambda net: of_margin(net, "eclipse"),
    "margin, product": lambda net: of_margin(net, "product"),
    "weights": lambda net: of_penalty(cl.WeightPenalty(weight=0.5)),
    "layers": of_layers,
    "TRADES": lambda net: at_fixed_points(cl.TradesPenalty(1.0, weight=0.5, box=None)),
    "ALP": lambda net: at_fixed_points(cl.AdversarialLipschitzPenalty(weight=0.5, distance=1.0)),
    "Jacobian": lambda net: of_penalty(cl.JacobianPenalty(weight=0.5, projections=None), X),
}


@pytest.mark.parametrize("name", OF_WEIGHTS)
def test_gradient_by_the_weights_is_that_of_finite_differences(name: str) -> None:
    net = network()
    value = OF_WEIGHTS[name](net)
    parameters = list(net.parameters())
    found = torch.autograd.grad(value(net), parameters, allow_unused=True)
    directions = [randn(*p.shape, seed=k) for k, p in enumerate(parameters)]
    slope = sum(float((g * d).sum()) for g, d in zip(found, directions, strict=True) if g is not None)
    before, ends = [p.detach().clone() for p in parameters], []
    for size in (1e-5, -1e-5):
        with torch.no_grad():
            for p, start, d in zip(parameters, before, directions, strict=True):
                p.copy_(start + size * d)
        ends.append(float(value(net).detach()))
    assert slope == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6)


@pytest.mark.parametrize("distance", [1e-12, 1e-6, 1e6, 1e12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_quotient_is_right_or_the_pair_renewed_at_any_distance(
    distance: float, dtype: torch.dtype, offset: float
) -> None:
    u = torch.full((4, 3), offset, dtype=dtype)
    v = u + distance * torch.eye(4, 3, dtype=dtype)
    v[3] = u[3] - distance
    penalty = cl.LipschitzPenalty(u, v, weight=1.0, renew=None)
    for _ in range(3):
        penalty(lambda x: 3.0 * x)
        # Pairs that floats cannot tell apart, or too close, count for nothing until they are renewed, at once.
        wrong = float(penalty.value) == 0.0
        assert float(penalty.value) == pytest.approx(0.0 if wrong else 3.0, rel=1e-3)
    assert not wrong
    points = penalty.pairs.points
    assert bool(torch.isfinite(points).all())
    assert float(norms.vector_norm(penalty.pairs.u - penalty.pairs.v).min()) > 0


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_weights_of_any_scale_scale_the_value_and_keep_its_gradient(scale: float) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8, bias=False), nn.ReLU(), nn.Linear(8, 3, bias=False))
    penalty = cl.LipschitzPenalty.from_data(rand(20, 6, dtype=torch.float32), weight=1.0, pairs=8, renew=None)
    penalty.eval()
    base = float(penalty(net).detach())
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(scale)
    assert float(penalty(net).detach()) == pytest.approx(base * scale**2, rel=1e-5)
    penalty.train()
    for _ in range(20):
        reg = penalty(net)
    torch.autograd.backward(reg)
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in net.parameters())
    assert bool(torch.isfinite(penalty.pairs.points).all())
    assert float(penalty.value) >= 0.999 * base * scale**2  # pairs climb at any scale
    found = cl.lipschitz.lower(net, rand(20, 6, dtype=torch.float32), pairs=8, steps=20)
    above = cl.lipschitz.upper(net, torch.zeros(1, 6), method="product")
    assert 0 < found.value <= above.value < float("inf")


@pytest.mark.parametrize("slope", [1e-30, 1e-39])
def test_slopes_too_small_for_floats_leave_no_subnormal_pairs_and_no_nan(slope: float) -> None:
    penalty = cl.LipschitzPenalty.from_data(
        rand(20, 6, dtype=torch.float32), weight=1.0, pairs=8, box=(0.0, 1.0), renew=None
    )
    for _ in range(20):
        reg = penalty(lambda x: slope * torch.sigmoid(x))
        assert bool(torch.isfinite(reg))
        size = penalty.pairs.points.abs()
        assert not bool(((size > 0) & (size < torch.finfo(torch.float32).tiny)).any())


def test_commands_train_with_subnormal_floats_taken_for_zero_and_leave_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def subnormal() -> bool:
        return float(torch.tensor([1e-39]) * 1) != 0

    seen: list[bool] = []
    fit = cl.fit

    def watched(*arguments: Any, **named: Any) -> Any:
        seen.append(subnormal())
        return fit(*arguments, **named)

    monkeypatch.setattr(pipeline, "fit", watched)
    before = subnormal()
    model = "mlp:64-4-10"
    runs.train(TrainSettings(model=model, epochs=1, batch_size=512, target=None, out=str(tmp_path / "run")))
    if not torch.set_flush_denormal(not before):  # how it was
        pytest.skip("this processor cannot")
    assert seen == [False]
    assert subnormal() == before


TRAINED = """
import hashlib, sys, torch, cheaplip as cl
from torch import nn
torch.set_num_threads(int(sys.argv[1]))
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))
x = torch.rand(96, 8)
data = [(part, part[:, :3].argmax(1)) for part in x.split(16)]
penalty = cl.LipschitzPenalty.from_data(x, weight=0.1, pairs=8, seed=1)
control = cl.Discrepancy(penalty, target=0.9, step=0.01)
cl.fit(net, data, loss=nn.CrossEntropyLoss(), optimizer=torch.optim.SGD(net.parameters(), lr=0.1), epochs=3,
       penalty=penalty, control=control, seed=3, progress=False)
state = [*net.state_dict().values(), penalty.pairs.points, penalty.weight]
print(hashlib.sha256(b"".join(t.detach().numpy().tobytes() for t in state)).hexdigest())
"""


def bits(threads: int) -> str:
    """Train in another process and return a digest of all that came out."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-c", TRAINED, str(threads)]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()


def test_same_seed_gives_the_same_bits_in_another_process_and_with_more_threads() -> None:
    first = bits(1)
    assert len(first) == len(hashlib.sha256().hexdigest())
    assert bits(2) == first  # torch splits sums over threads only where there is far more to add


def test_same_seed_gives_the_same_bits_again_in_one_process() -> None:
    def run() -> list[Tensor]:
        torch.manual_seed(0)
        net = nn.Linear(4, 3)
        penalty = cl.LipschitzPenalty.from_data(rand(20, 4, dtype=torch.float32), weight=0.1, pairs=4)
        for _ in range(10):
            penalty(net)
        bound = cl.lipschitz.lower(net, rand(20, 4, dtype=torch.float32), pairs=4, steps=5)
        return [penalty.pairs.points.clone(), torch.tensor(bound.value)]

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))
