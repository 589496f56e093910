"""TRADES, Jacobian and adversarial Lipschitz regularisation: closed forms, and what they leave alone."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, final

import pytest
import torch
import torch.nn.functional as F
from oracles import assert_all_close, changes, gradients, mlp, picture, rand, randn
from torch import Tensor, nn

import cheaplip as cl
from cheaplip.penalties import AdversarialLipschitzPenalty, JacobianPenalty, TradesPenalty

MAKERS: dict[str, Callable[..., Any]] = {
    "TRADES": lambda **others: TradesPenalty(0.3, **({"weight": 2.0, "steps": 3} | others)),
    "Jacobian": lambda **others: JacobianPenalty(**({"weight": 2.0} | others)),
    "ALP": lambda **others: AdversarialLipschitzPenalty(**({"weight": 2.0, "distance": 0.5} | others)),
}
each = pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))


def linear(*shape: int) -> nn.Linear:
    layer = nn.Linear(shape[1], shape[0]).double()
    layer.weight.data = randn(*shape, seed=7)
    return layer


def two_classes(slope: Tensor) -> nn.Linear:
    layer = nn.Linear(len(slope), 2, bias=False).double()
    layer.weight.data = torch.stack([slope / 2, -slope / 2])
    return layer


def divergence(before: float, after: float) -> float:
    """KL of two classes whose log-odds are these."""
    p, q = 1 / (1 + math.exp(-before)), 1 / (1 + math.exp(-after))
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


@pytest.mark.parametrize("norm", [1, 2, "inf"])
def test_trades_of_a_linear_model_is_the_divergence_at_the_ends_of_its_ball(norm: float | str) -> None:
    slope, eps = torch.tensor([0.5, -1.5, 1.0], dtype=torch.float64), 0.4
    reach = eps * {"1": 1.5, "2": slope.norm().item(), "inf": 3.0}[str(norm)]
    penalty = TradesPenalty(eps, weight=2.0, norm=norm, steps=40, step=0.4, box=None)
    model = two_classes(slope)
    for number in range(6):
        x = randn(1, 3, seed=number)
        odds = (x @ slope).item()
        logits, term = penalty.joint(model, x)
        torch.testing.assert_close(logits, model(x))
        assert term.item() == pytest.approx(2 * penalty.value.item())
        ends = [divergence(odds, odds + side * reach) for side in (1, -1)]
        assert min(abs(penalty.value.item() - end) for end in ends) < 1e-5 * max(ends)


def test_trades_gradient_goes_through_clean_and_changed_points() -> None:
    torch.manual_seed(0)
    model, x = mlp(4, 8, 3), rand(6, 4)
    penalty = TradesPenalty(0.3, weight=2.0, steps=3)
    penalty.search = lambda model, x, logits: 1 - x  # type: ignore[method-assign]
    clean, moved = model(x).log_softmax(1), model(1 - x).log_softmax(1)
    expected = 2.0 * (clean.exp() * (clean - moved)).sum(1).mean()
    assert_all_close(gradients(penalty(model, x), model), gradients(expected, model))


def test_trades_points_stay_in_ball_and_box() -> None:
    x, model = rand(8, 4), mlp(4, 8, 3)
    penalty = TradesPenalty(0.3, weight=1.0, steps=4)
    points = penalty.search(model, x, model(x).detach())
    assert bool(((points >= 0) & (points <= 1)).all())
    distances = (points - x).norm(dim=1)
    assert float(distances.max()) <= 0.3 + 1e-9
    assert float(distances.min()) > 0.05


def test_jacobian_of_a_linear_model_is_half_its_squared_frobenius_norm() -> None:
    model, x = linear(3, 5), randn(7, 5)
    penalty = JacobianPenalty(weight=0.5, projections=None)
    logits, term = penalty.joint(model, x)
    torch.testing.assert_close(logits, model(x))
    torch.testing.assert_close(term.detach(), 0.25 * model.weight.detach().square().sum())
    assert_all_close(gradients(term, model), [0.5 * model.weight.detach(), torch.zeros_like(model.bias)])


def test_random_projections_give_the_jacobian_on_average() -> None:
    torch.manual_seed(0)
    model, x = linear(3, 5), randn(20_000, 5)
    square = model.weight.detach().square().sum().item()
    for projections in (1, 4):
        penalty = JacobianPenalty(weight=1.0, projections=projections)
        penalty(model, x)
        assert penalty.value.item() == pytest.approx(square, rel=0.03)
    one_output = JacobianPenalty(weight=2.0)(linear(1, 5), x[:3])  # where there is only one direction
    torch.testing.assert_close(one_output.detach(), linear(1, 5).weight.detach().square().sum())


def test_jacobian_gradient_is_that_of_the_definition() -> None:
    model, x = mlp(4, 8, 3), rand(6, 4)
    term = JacobianPenalty(weight=1.0, projections=None)(model, x)
    rows = torch.func.vmap(torch.func.jacrev(model))(x)
    assert_all_close(gradients(term, model), gradients(0.5 * rows.square().sum() / 6, model))


@pytest.mark.parametrize(("constant", "power"), [(0.0, 1), (0.0, 2), (1.0, 1), (1.0, 2), (99.0, 1)])
def test_adversarial_lipschitz_of_a_linear_model_is_its_spectral_norm(constant: float, power: int) -> None:
    model, x = linear(3, 5), randn(7, 5)
    penalty = AdversarialLipschitzPenalty(weight=0.5, distance=0.3, steps=200, constant=constant, power=power)
    norm = torch.linalg.matrix_norm(model.weight, 2)
    expected = 0.5 * (norm - constant).clamp_min(0) ** power
    term = penalty(model, x)
    torch.testing.assert_close(term, expected)
    assert_all_close(gradients(term, model), gradients(expected, model), rtol=1e-6)
    assert penalty.value.item() == pytest.approx(norm.item())


def test_one_power_iteration_beats_random_directions() -> None:
    torch.manual_seed(0)
    model, x = mlp(20, 30, 3), rand(50, 20)
    random = AdversarialLipschitzPenalty(weight=1.0, distance=0.1)
    random.search = lambda model, x, output: x + 0.1 * F.normalize(torch.randn_like(x))  # type: ignore[method-assign]
    found = AdversarialLipschitzPenalty(weight=1.0, distance=0.1)(model, x)
    assert found.item() > 2 * random(model, x).item()


def test_flat_model_has_no_nan() -> None:
    model = nn.Linear(4, 3).double()
    nn.init.zeros_(model.weight)
    for make in MAKERS.values():
        term = make()(model, rand(5, 4))
        assert term.item() == pytest.approx(0.0, abs=1e-12)
        assert all(bool(torch.isfinite(g).all()) for g in gradients(term, model))


@each
def test_model_and_minibatch_are_left_alone(make: Callable[..., Any]) -> None:
    model, x = nn.Sequential(mlp(4, 6, 5), nn.BatchNorm1d(5), nn.Dropout(0.5)).double(), rand(6, 4)
    model.eval()
    before, kept = picture(model), x.clone()
    make()(model, x)
    after = picture(model)
    after["generator"] = before["generator"]  # draws come from the global one
    assert changes(before, after) == []
    assert torch.equal(x, kept)
    assert not x.requires_grad


@each
def test_in_train_mode_the_term_sees_the_model_as_in_eval_mode(make: Callable[..., Any]) -> None:
    model, x = nn.Sequential(mlp(4, 6, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 3)).double(), rand(6, 4)
    other = copy.deepcopy(model)
    torch.manual_seed(3)
    other(x)  # the minibatch's own forward comes first
    expected = make()(other.eval(), x)
    torch.manual_seed(3)
    logits, term = make().joint(model, x)
    assert logits.shape == (6, 3)
    assert_all_close(model.buffers(), other.buffers(), rtol=0.0)
    assert all(layer.training for layer in model.modules())
    torch.testing.assert_close(term, expected, rtol=1e-9, atol=0)


@final
class Counting(nn.DataParallel[nn.Module]):
    """A wrapper that counts how often it is called itself."""

    calls = 0

    def forward(self, *inputs: Any, **others: Any) -> Any:
        self.calls += 1
        return super().forward(*inputs, **others)


@each
@pytest.mark.parametrize("kind", ["plain", "compiled", "apart"])
def test_a_wrapper_is_called_once_so_that_processes_exchange_gradients(
    make: Callable[..., Any], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cheaplip.penalties.jacobian.processes", lambda: (0, 2))
    net = nn.Sequential(mlp(4, 6, 3), nn.Dropout(0.5 if kind == "apart" else 0.0)).double()
    inner: Any = torch.compile(net, backend="eager") if kind == "compiled" else net
    wrapped = Counting(inner)
    logits, term = make().joint(wrapped, rand(6, 4))
    assert wrapped.calls == 1
    assert logits.shape == (6, 3)
    assert all(bool((g != 0).any()) for g in gradients(term, net)[:2])


@each
def test_same_seed_same_bits(make: Callable[..., Any]) -> None:
    model, x = mlp(4, 6, 3), rand(6, 4)
    terms = []
    for _ in range(2):
        torch.manual_seed(5)
        terms.append(make()(model, x))
    assert torch.equal(*terms)


@each
def test_fit_drives_its_weight_to_the_target_beside_other_penalties_and_resumes(
    make: Callable[..., Any], tmp_path: Any
) -> None:
    x = rand(48, 4).float()
    batches = [(part, (part[:, 0] > 0.5).long()) for part in torch.split(x, 16)]

    def run(epochs: int, **others: Any) -> tuple[list[Tensor], cl.History]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
        penalty, clip = make(), cl.LipschitzPenalty.from_data(x, weight=0.1, pairs=4)
        control = cl.Discrepancy(penalty, target=0.999, step=0.125)
        sgd = torch.optim.SGD(net.parameters(), lr=0.1)
        settings: dict[str, Any] = {"loss": F.cross_entropy, "optimizer": sgd, "progress": False}
        settings |= {"penalty": [clip, penalty, cl.WeightPenalty(weight=0.01)], "control": control}
        history = cl.fit(net, batches, epochs=epochs, **settings, **others)
        return [*net.state_dict().values()], history

    whole, history = run(3)
    assert history.column("weight_2") == pytest.approx([2 - 0.375 * epoch for epoch in (1, 2, 3)])
    assert all(value > 0 for value in history.column("value_2"))
    run(1, checkpoint=tmp_path)
    resumed, _ = run(3, checkpoint=tmp_path, resume=True)
    assert_all_close(whole, resumed, rtol=0.0)


@each
def test_penalty_moves_to_another_precision(make: Callable[..., Any]) -> None:
    penalty, x = make(), rand(6, 4)
    assert penalty(mlp(4, 6, 3), x).dtype == torch.float64
    assert penalty(mlp(4, 6, 3, dtype=torch.float32), x.float()).dtype == torch.float32


BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: TradesPenalty(0.0, weight=1.0), ValueError, "eps must be a finite number above 0; got 0.0"),
    (lambda: TradesPenalty(1.0, weight=-1.0), ValueError, "weight"),
    (lambda: TradesPenalty(1.0, weight=1.0, steps=0), ValueError, "steps must be a whole number"),
    (lambda: TradesPenalty(1.0, weight=1.0, step=-1.0), ValueError, "step must be"),
    (lambda: TradesPenalty(1.0, weight=1.0, norm=3), ValueError, "norm must be 1, 2"),
    (lambda: TradesPenalty(1.0, weight=1.0, box=(1.0, 0.0)), ValueError, "low < high"),
    (lambda: TradesPenalty(1.0, weight=1.0)(mlp(4, 3), 2 + rand(5, 4)), ValueError, "images must lie in the box"),
    (lambda: TradesPenalty(1.0, weight=1.0)(mlp(4, 1), rand(5, 4)), ValueError, "must return logits"),
    (lambda: JacobianPenalty(weight=math.nan), ValueError, "weight"),
    (lambda: JacobianPenalty(weight=1.0, projections=0), ValueError, "projections must be a whole number"),
    (lambda: JacobianPenalty(weight=1.0)(lambda x: x.detach(), rand(5, 4)), ValueError, "does not depend"),
    (lambda: AdversarialLipschitzPenalty(weight=1.0, distance=0.0), ValueError, "distance must be"),
    (lambda: AdversarialLipschitzPenalty(weight=1.0, distance=1.0, power=3), ValueError, "power must be 1 or 2"),
    (lambda: AdversarialLipschitzPenalty(weight=1.0, distance=1.0, constant=-1), ValueError, "constant must be"),
    (lambda: MAKERS["ALP"]()(lambda x: x.detach(), rand(5, 4)), ValueError, "does not depend on its input"),
    (lambda: MAKERS["ALP"]()(mlp(4, 3), rand(5, 3)), ValueError, "the model failed on inputs of shape"),
    (lambda: MAKERS["Jacobian"]()(mlp(4, 3), torch.ones(5, 4).long()), TypeError, "floating tensor"),
    (lambda: MAKERS["TRADES"]()(mlp(4, 3), rand(0, 4)), ValueError, "batch >= 1"),
    (lambda: MAKERS["TRADES"]()(mlp(4, 3), "x"), TypeError, "floating tensor"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input_is_answered_by_one_sentence(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
