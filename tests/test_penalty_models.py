"""LipschitzPenalty with models of every kind: nothing of theirs is changed, and their train mode plays no part."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from oracles import assert_all_close, changes, gradients, mlp, picture, quotients, rand, randn, seeded
from torch import Tensor, nn
from zoo import ZOO, Animal

from cheaplip.penalties import LipschitzPenalty
from cheaplip.runs.processes import dissolve


def each_animal() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("animal", ZOO.values(), ids=ZOO.keys())


def batch(animal: Animal, seed: int = 3) -> Tensor:
    return rand(6, *animal.shape, seed=seed, dtype=torch.float32)


def penalty_for(animal: Animal, **arguments: Any) -> LipschitzPenalty:
    return LipschitzPenalty(batch(animal, 1), batch(animal, 2), weight=0.5, **arguments)


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@each_animal()
def test_penalty_leaves_model_and_global_generator_untouched(animal: Animal, train: bool) -> None:
    net, penalty = animal.make(), penalty_for(animal, steps=2).train(train)
    before = picture(net)
    penalty(net)
    penalty(net)
    assert changes(before, picture(net)) == []


@each_animal()
def test_penalty_of_a_model_in_train_mode_is_that_of_its_eval_mode(animal: Animal) -> None:
    net, evaluated = animal.make(), animal.make().eval()
    first, second = penalty_for(animal), penalty_for(animal)
    for _ in range(3):
        trained, expected = first(net), second(evaluated)
        torch.testing.assert_close(trained, expected)
        assert_all_close(gradients(trained, net), gradients(expected, evaluated), rtol=1e-4)


@each_animal()
def test_joint_step_leaves_statistics_and_generator_as_a_plain_step_does(animal: Animal) -> None:
    net, plain, x = animal.make(), animal.make(), batch(animal)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        expected = plain(x).detach()
        after_plain = picture(plain)
        torch.manual_seed(7)
        logits, _ = penalty_for(animal, steps=2).joint(net, x)
        assert changes(after_plain, picture(net)) == []
    torch.testing.assert_close(logits.detach(), expected)


@each_animal()
def test_joint_equals_model_and_penalty_called_one_after_the_other(animal: Animal) -> None:
    first, second, x = animal.make(), animal.make(), batch(animal)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        logits, together = penalty_for(animal).joint(first, x)
        torch.manual_seed(7)
        expected = second(x)
        apart = penalty_for(animal)(second)
    torch.testing.assert_close(together, apart)
    joined, separate = logits.square().sum() + together, expected.square().sum() + apart
    assert_all_close(gradients(joined, first), gradients(separate, second), rtol=1e-4)


@pytest.mark.parametrize("joint", [False, True], ids=["forward", "joint"])
def test_gradient_is_right_whatever_batch_norm_sees_before_the_backward(joint: bool) -> None:
    animal = ZOO["batch norm"]
    net, alone, x = animal.make(), animal.make(), batch(animal)
    results = [penalty_for(animal).joint(n, x)[1] if joint else penalty_for(animal)(n) for n in (net, alone)]
    expected = gradients(results[1], alone)
    net(10 * x + 5)  # a second minibatch of an accumulated gradient, or the loss after the penalty
    assert_all_close(gradients(results[0], net), expected, rtol=1e-4)


def test_frozen_parameters_and_their_flags_stay_as_they_are() -> None:
    net, penalty = mlp(4, 6, 3), LipschitzPenalty(randn(5, 4), randn(5, 4, seed=1), weight=0.5)
    next(net.parameters()).requires_grad_(False)
    before = picture(net)
    result = penalty(net)
    assert changes(before, picture(net)) == []
    assert len(gradients(result, net)) == 3
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    assert not penalty(net).requires_grad


class Denoiser(nn.Module):
    """A model whose function is a method or a function around it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.net(x)
        return result

    def residual(self, x: Tensor) -> Tensor:
        result: Tensor = x - self(x)
        return result


def subtract(net: nn.Module, x: Tensor) -> Tensor:
    result: Tensor = x - net(x)
    return result


AROUND: dict[str, Callable[[Denoiser], tuple[Any, Any]]] = {
    "closure": lambda net: (lambda x: x - net(x), None),
    "bound method": lambda net: (net.residual, None),
    "partial": lambda net: (functools.partial(subtract, net), None),
    "partial of a method": lambda net: (functools.partial(net.residual), None),
    "modules as a tuple": lambda net: (lambda x, holder=[net]: x - holder[0](x), (net,)),
    "modules as an iterator": lambda net: (lambda x, holder=[net]: x - holder[0](x), net.modules()),
}


@pytest.mark.parametrize("joint", [False, True], ids=["forward", "joint"])
@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND.keys())
def test_callable_around_a_network_is_penalised_and_leaves_it_untouched(
    around: Callable[[Denoiser], tuple[Any, Any]], joint: bool
) -> None:
    net: Any = seeded(Denoiser())
    plain: Any = seeded(Denoiser())
    x = randn(6, 4, dtype=torch.float32)
    penalty = LipschitzPenalty(x, x + 1, weight=0.5)
    expected = 0.5 * quotients(plain.eval().residual, x, x + 1).max()
    function, modules = around(net)
    before = picture(net)
    if joint:
        with torch.random.fork_rng():
            result = penalty.joint(function, x, modules=modules)[1]
        assert net.net[1].num_batches_tracked == 1
        plain.train()(x)
        assert torch.equal(net.net[1].running_mean, plain.net[1].running_mean)
        expected = 0.5 * quotients(plain.eval().residual, x, x + 1).max()
    else:
        result = penalty(function, modules=modules)
        assert changes(before, picture(net)) == []
    torch.testing.assert_close(result, expected)


CHANGED_IN_PLACE: dict[str, Callable[[], nn.Module]] = {
    "a chain": lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)),
    "a chain that ends in a unit": lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh()),
    "another model": lambda: nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 3)),
}


@pytest.mark.parametrize("name", CHANGED_IN_PLACE)
@pytest.mark.parametrize("p_out", [1, 2])
def test_outputs_may_be_changed_in_place_as_the_models_own(name: str, p_out: int) -> None:
    x = randn(6, 4, dtype=torch.float32)
    net: Any = seeded(CHANGED_IN_PLACE[name]())
    found = []
    for clamp in (torch.clamp, torch.clamp_):
        output, term = LipschitzPenalty(x, x + 1, weight=0.5, p_out=p_out).joint(net, x)
        net.zero_grad()
        torch.autograd.backward(clamp(output, -0.1, 0.1).sum() + term)
        found.append([parameter.grad.clone() for parameter in net.parameters()])
    assert all(map(torch.equal, *found))


SUMS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda x: x.sum(1, keepdim=True),
    "mean": lambda x: x.mean(1, keepdim=True),
    "sum of all": lambda x: x.sum((1, 2)).unsqueeze(1).expand(-1, 3),
}


@pytest.mark.parametrize("name", SUMS)
@pytest.mark.parametrize("search", ["ascent", "paper", "power"])
def test_gradients_that_are_one_number_seen_many_times_move_pairs(name: str, search: Any) -> None:
    linear, x = seeded(nn.Linear(3, 2)), rand(9, 2, 3, dtype=torch.float32)
    penalty = LipschitzPenalty.from_data(x, weight=0.5, pairs=4, search=search, renew=None)
    for _ in range(30):
        term = penalty(lambda x: linear(SUMS[name](x)), modules=(linear,))
    jacobian = torch.func.jacrev(lambda x: linear(SUMS[name](x[None])).flatten())(x[0])
    true = 0.5 * torch.linalg.matrix_norm(jacobian.flatten(1), 2)
    assert 0.5 * float(true.detach()) < float(term.detach()) < float(true.detach()) * (1 + 1e-5)


def test_autocast_is_off_for_pairs_and_on_for_the_batch() -> None:
    net, u, x = mlp(4, 6, 3, dtype=torch.float32), randn(5, 4, dtype=torch.float32), randn(7, 4, dtype=torch.float32)
    v = u + 1e-3  # close enough that bfloat16 would see another quotient
    expected = LipschitzPenalty(u, v, weight=0.5, min_distance=0)(net)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain = net(x)
        logits, joint = LipschitzPenalty(u, v, weight=0.5, min_distance=0).joint(net, x)
        alone = LipschitzPenalty(u, v, weight=0.5, min_distance=0)(net)
        assert torch.is_autocast_enabled("cpu")
    for result in (joint, alone):
        assert result.dtype == torch.float32
        # So close, the last place of an output is the fourth of the quotient.
        torch.testing.assert_close(result, expected, rtol=1e-3, atol=0)
        assert_all_close(gradients(result, net), gradients(expected, net), rtol=1e-3)
    assert logits.dtype == plain.dtype == torch.bfloat16
    assert torch.equal(logits, plain)


def test_value_of_a_float32_model_is_float32_and_of_a_float64_model_float64() -> None:
    for dtype in (torch.float32, torch.float64):
        penalty = LipschitzPenalty(randn(5, 4, dtype=dtype), randn(5, 4, seed=1, dtype=dtype), weight=0.5)
        assert penalty(mlp(4, 6, 3, dtype=dtype)).dtype == dtype
        assert penalty.value.dtype == dtype
        assert not penalty.value.requires_grad


@pytest.fixture
def process_group() -> Iterator[None]:
    """A group of one process, without a port."""
    dist.init_process_group("gloo", store=torch._C._distributed_c10d.HashStore(), rank=0, world_size=1)
    yield
    dissolve()


WRAPPERS: dict[str, Callable[[nn.Module], Any]] = {
    "distributed": nn.parallel.DistributedDataParallel,
    "data parallel": nn.DataParallel,
    "compiled, eager": lambda net: torch.compile(net, backend="eager"),
    "compiled, aot": lambda net: torch.compile(net, backend="aot_eager"),
    "fabric": lambda net: Fabric(accelerator="cpu", devices=1).setup(net),
}


@pytest.mark.parametrize("joint", [False, True], ids=["forward", "joint"])
@pytest.mark.parametrize("name", ["plain", "batch norm"])
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS.keys())
def test_wrapped_model_learns_as_the_plain_one_does(
    wrap: Callable[[nn.Module], Any], name: str, joint: bool, process_group: None
) -> None:
    plain, inner = ZOO[name].make(), ZOO[name].make()
    wrapped = wrap(inner)
    penalties = penalty_for(ZOO[name]), penalty_for(ZOO[name])
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.05) for net in (plain, inner)]
    for step in range(3):
        x, losses = batch(ZOO[name], step), []
        for net, penalty, optimizer in zip((plain, wrapped), penalties, optimizers, strict=True):
            logits, reg = penalty.joint(net, x) if joint else (net(x), penalty(net))
            losses.append(logits.square().mean() + reg)
            optimizer.zero_grad()
            torch.autograd.backward(losses[-1])
            optimizer.step()
        torch.testing.assert_close(losses[1], losses[0])
    assert_all_close(inner.parameters(), plain.parameters(), rtol=1e-5)
    assert_all_close([b.double() for b in inner.buffers()], [b.double() for b in plain.buffers()], rtol=1e-5)
    torch.testing.assert_close(penalties[1].pairs.points, penalties[0].pairs.points, rtol=1e-4, atol=1e-5)


def test_fabric_in_mixed_precision_measures_in_full_precision() -> None:
    net, u = mlp(4, 6, 3, dtype=torch.float32), randn(5, 4, dtype=torch.float32)
    arguments: dict[str, Any] = {"weight": 0.5, "min_distance": 0}
    expected = LipschitzPenalty(u, u + 1e-3, **arguments)(net).item()
    wrapped = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed").setup(net)
    x = randn(7, 4, dtype=torch.float32)
    logits, reg = LipschitzPenalty(u, u + 1e-3, **arguments).joint(wrapped, x)
    assert reg.item() == pytest.approx(expected, rel=1e-3)
    assert torch.equal(logits, wrapped(x))
    assert not torch.equal(logits, net(x))
    assert LipschitzPenalty(u, u + 1e-3, **arguments)(wrapped).item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("width", "tail"), [(1, nn.Flatten(0)), (6, nn.Unflatten(1, (2, 3)))], ids=["(n,)", "(n, 2, 3)"]
)
def test_outputs_of_any_shape_are_measured_as_one_vector(width: int, tail: nn.Module) -> None:
    net = seeded(nn.Sequential(nn.Linear(4, width), tail).double())
    u, v, x = randn(5, 4), randn(5, 4, seed=1), randn(3, 4)
    expected = 0.5 * quotients(net, u, v).max()
    torch.testing.assert_close(LipschitzPenalty(u, v, weight=0.5)(net), expected)
    logits, reg = LipschitzPenalty(u, v, weight=0.5).joint(net, x)
    torch.testing.assert_close(logits, net(x))
    torch.testing.assert_close(reg, expected)
