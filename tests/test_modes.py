"""Models are seen through their wrappers, run as in eval mode, and left as they were."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from oracles import changes, picture, rand
from torch import Tensor, nn
from zoo import ZOO, Animal

from cheaplip.modes import differs_in_training, evaluating, frozen, modules_of, runs_in_low_precision, unwrap
from cheaplip.runs.processes import dissolve

LINEAR = nn.Linear(2, 2)


@pytest.fixture
def process_group() -> Iterator[None]:
    """A group of one process, without a port."""
    dist.init_process_group("gloo", store=torch._C._distributed_c10d.HashStore(), rank=0, world_size=1)
    yield
    dissolve()


def each_animal() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("animal", ZOO.values(), ids=ZOO.keys())


def batch(animal: Animal) -> Tensor:
    return rand(6, *animal.shape, seed=3, dtype=torch.float32)


@each_animal()
def test_frozen_model_gives_its_eval_outputs_and_is_left_untouched(animal: Animal) -> None:
    net, x = animal.make(), batch(animal).requires_grad_()
    expected = animal.make().eval()(x).detach()
    before = picture(net)
    with frozen([net]):
        result = net(x)
        torch.autograd.grad(result.sum(), x)
    torch.testing.assert_close(result.detach(), expected)
    assert changes(before, picture(net)) == []


def really_differs(animal: Animal) -> bool:
    """Compare train and eval mode by running both."""
    x, trained, evaluated = batch(animal), animal.make(), animal.make().eval()
    with torch.no_grad(), torch.random.fork_rng():
        same_output = torch.allclose(trained(x), evaluated(x), rtol=1e-5, atol=1e-6)
    buffers = zip(trained.buffers(), animal.make().buffers(), strict=True)
    return not same_output or any(not torch.equal(a, b) for a, b in buffers)


@each_animal()
def test_difference_between_train_and_eval_mode_is_found_and_nothing_else(animal: Animal) -> None:
    # BatchNorm without statistics looks at its batch in both modes, and so must not share it with pairs.
    assert really_differs(animal) == animal.differs or animal is ZOO["batch norm without statistics"]
    assert differs_in_training([animal.make()]) == animal.differs
    assert not differs_in_training([animal.make().eval()])


def test_frozen_restores_each_layers_own_flag_after_an_error() -> None:
    net: Any = nn.Sequential(
        nn.BatchNorm1d(2), nn.LSTM(2, 2, num_layers=2, dropout=0.3), nn.Sequential(nn.Dropout(0.5))
    )
    net[0].eval()
    before = picture(net)

    def fail() -> None:
        with frozen([net, net[2]]):
            assert not net[2][0].training
            assert net[1].dropout == 0
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    assert changes(before, picture(net)) == []


def test_frozen_keeps_recurrent_layers_in_train_mode() -> None:
    net = nn.LSTM(2, 2)  # cuDNN has no backward in eval mode
    with frozen([net]):
        assert net.training


def test_frozen_turns_autocast_off_and_on_again() -> None:
    x = torch.ones(1, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with frozen([LINEAR]):
            assert LINEAR(x).dtype == torch.float32
        assert LINEAR(x).dtype == torch.bfloat16


def test_evaluating_puts_flags_and_gradients_off_and_restores_them_after_an_error() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.LSTM(2, 2))
    net[0].bias.requires_grad_(False)
    net[1].eval()
    before = picture(net)

    def fail() -> None:
        with evaluating(net, net[0]):
            assert not any(layer.training for layer in net.modules())
            assert not any(p.requires_grad for p in net.parameters())
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    assert changes(before, picture(net)) == []


def test_unwrap_sees_through_one_wrapper_after_the_other(process_group: None) -> None:
    net = nn.Linear(2, 2)
    parallel = nn.parallel.DistributedDataParallel(net)
    assert unwrap(parallel) is net
    assert unwrap(nn.DataParallel(parallel)) is net
    fabric = Fabric(accelerator="cpu", devices=1)
    assert unwrap(fabric.setup(net)) is net


def test_unwrap_leaves_everything_else_as_it_is() -> None:
    compiled = torch.compile(LINEAR, backend="eager")
    for model in (LINEAR, compiled, torch.sin, lambda x: x):
        assert unwrap(model) is model


class Owner(nn.Module):
    """A module with a second method that is a model."""

    def features(self, x: Tensor) -> Tensor:
        return x


OWNER = Owner()


def through_global(x: Tensor) -> Tensor:
    result: Tensor = x - LINEAR(x)
    return result


def through_argument(net: nn.Module, x: Tensor) -> Tensor:
    result: Tensor = net(x)
    return result


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (LINEAR, {LINEAR}),
        (nn.DataParallel(LINEAR), {LINEAR}),
        (through_global, {LINEAR}),
        ((lambda net: lambda x: x - net(x))(OWNER), {OWNER}),
        ((lambda net: lambda x: x - net(x))(nn.DataParallel(OWNER)), {OWNER}),
        (functools.partial(through_argument, OWNER), {OWNER}),
        (functools.partial(lambda x, net: net(x), net=OWNER), {OWNER}),
        (functools.partial((lambda net: lambda x: net(x))(OWNER)), {OWNER}),
        (functools.partial(OWNER.features), {OWNER}),
        (OWNER.features, {OWNER}),
        (LINEAR.forward, {LINEAR}),
        (torch.sin, set()),
    ],
)
def test_modules_inside_a_callable_are_found(model: Any, expected: set[nn.Module]) -> None:
    assert set(modules_of(model)) == expected


def test_named_modules_replace_what_would_be_found() -> None:
    assert modules_of(through_global, [OWNER, nn.DataParallel(LINEAR)]) == (OWNER, LINEAR)
    assert modules_of(LINEAR, []) == ()


@pytest.mark.parametrize(
    ("model", "modules", "message"),
    [
        (3, None, "must be a torch.nn.Module or a callable; got int"),
        (None, None, "got NoneType"),
        (LINEAR, [3], "modules must hold torch.nn.Module objects; got int"),
        (LINEAR, 3, "modules must"),
    ],
)
def test_what_is_no_model_is_refused(model: Any, modules: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        modules_of(model, modules)


@pytest.mark.parametrize(
    ("precision", "low"), [("32-true", False), ("64-true", False), ("bf16-mixed", True), ("bf16-true", True)]
)
def test_low_precision_is_seen_through_fabric(precision: Any, low: bool) -> None:
    net = Fabric(accelerator="cpu", devices=1, precision=precision).setup(copy.deepcopy(LINEAR))
    assert runs_in_low_precision(net) == low


def test_low_precision_is_seen_under_autocast_alone() -> None:
    assert not runs_in_low_precision(LINEAR)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert runs_in_low_precision(LINEAR)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=False):
        assert not runs_in_low_precision(LINEAR)


class Holder:
    """A callable object that holds a network."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def __call__(self, x: Tensor) -> Tensor:
        result: Tensor = self.net(x)
        return result


class Trainer:
    """An object around an object that holds a network."""

    __slots__ = ("holder",)

    def __init__(self, net: nn.Module) -> None:
        self.holder = Holder(net)

    def residual(self, x: Tensor) -> Tensor:
        return x - self.holder(x)

    def bare(self) -> Callable[[Tensor], Tensor]:
        return lambda x: x - self.holder.net(x)


def test_modules_behind_objects_containers_and_helpers_are_found() -> None:
    net = nn.BatchNorm1d(3)
    nets, nested, trainer = [net], {"deep": {"er": [net]}}, Trainer(net)

    def helper(x: Tensor) -> Tensor:
        result: Tensor = net(x)
        return result

    def by_keyword(x: Tensor, *, within: nn.Module = net) -> Tensor:
        result: Tensor = within(x)
        return result

    functions: list[Any] = [
        Holder(net),
        lambda x: nets[0](x),
        lambda x: nested["deep"]["er"][0](x),
        lambda x: 2 * helper(x),
        by_keyword,
        trainer.residual,
        trainer.bare(),
        functools.partial(trainer.residual),
        functools.partial(lambda f, x: f(x), helper),
    ]
    assert [modules_of(function) for function in functions] == [(net,)] * len(functions)


def test_plain_function_holds_no_module() -> None:
    assert modules_of(lambda x: 3 * x.relu()) == ()
    assert modules_of(torch.sin) == ()
