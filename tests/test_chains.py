"""Chains of plain layers, whose way back is written out, against autograd; and what is no such chain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from cheaplip.pairs import Pairs
from cheaplip.pairs.chains import chain_of

UNITS: tuple[Callable[[], nn.Module], ...] = (nn.ReLU, nn.Sigmoid, nn.Tanh)


@st.composite
def chains(draw: st.DrawFn) -> nn.Sequential:
    """Flatten, then linear layers with and without bias, and units, in any order."""
    torch.manual_seed(draw(st.integers(0, 10**6)))
    layers: list[nn.Module] = [nn.Flatten()]
    width = 12
    for _ in range(draw(st.integers(0, 5))):
        unit = draw(st.sampled_from([None, *UNITS]))
        if unit is not None:
            layers.append(unit())
            continue
        after = draw(st.integers(1, 9))
        layers.append(nn.Linear(width, after, bias=draw(st.booleans())))
        width = after
    return nn.Sequential(*layers)


@st.composite
def convolutions(draw: st.DrawFn) -> nn.Sequential:
    """Convolutions as they come, units and pools, on images of two channels; then a linear layer."""
    torch.manual_seed(draw(st.integers(0, 10**6)))
    layers: list[nn.Module] = []
    channels, size = 2, 8
    for _ in range(draw(st.integers(1, 3))):
        groups = draw(st.sampled_from([1, 2]))
        after = 2 * draw(st.integers(1, 2))
        settings: dict[str, Any] = {"stride": draw(st.integers(1, 2)), "padding": draw(st.integers(0, 2))}
        layers.append(nn.Conv2d(channels, after, 3, **settings, groups=groups, bias=draw(st.booleans())))
        unit = draw(st.sampled_from([None, *UNITS]))
        layers += [] if unit is None else [unit()]
        channels, size = after, (size + 2 * settings["padding"] - 3) // settings["stride"] + 1
        if size >= 2 and draw(st.booleans()):
            layers.append(nn.MaxPool2d(2, stride=draw(st.sampled_from([None, 1])), ceil_mode=draw(st.booleans())))
        with torch.no_grad():
            size = nn.Sequential(*layers)(torch.zeros(1, 2, 8, 8)).shape[-1]
        if size < 3:
            break
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * size * size, 3))


@given(convolutions(), st.integers(1, 4))
def test_convolutions_and_pools_go_both_ways_as_autograd_does(net: nn.Sequential, count: int) -> None:
    points = torch.randn(count, 2, 8, 8, dtype=torch.float64)
    chain = chain_of(net.double())
    assert chain is not None
    leaf = points.clone().requires_grad_()
    expected = net(leaf)
    cotangent = torch.randn_like(expected)
    (gradient,) = torch.autograd.grad(expected, leaf, cotangent)
    with torch.no_grad():
        assert torch.equal(chain(points), expected)
        assert torch.equal(chain.pull_back(cotangent), gradient)


@given(chains(), st.integers(1, 7), st.booleans())
def test_outputs_and_input_gradient_are_autograds_own(net: nn.Sequential, count: int, wide: bool) -> None:
    net = net.double() if wide else net
    points = torch.randn(count, 3, 4, dtype=torch.float64 if wide else torch.float32)
    chain = chain_of(net)
    assert chain is not None
    leaf = points.clone().requires_grad_()
    expected = net(leaf)
    cotangent = torch.randn(expected.shape, dtype=points.dtype)
    (gradient,) = torch.autograd.grad(expected, leaf, cotangent)
    with torch.no_grad():
        output = chain(points)
        pulled = chain.pull_back(cotangent)
    assert torch.equal(output, expected)
    assert torch.equal(pulled, gradient)
    assert not output.requires_grad


def test_pairs_climb_a_chain_as_they_climb_the_same_function() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 4))
    u, v = torch.randn(2, 5, 3, 4)
    by_chain, by_autograd = Pairs(u, v, renew=4), Pairs(u, v, renew=4)
    for _ in range(20):
        by_chain.move(by_chain.measure(net, climb=True))
        by_autograd.move(by_autograd.measure(lambda x: net(x), climb=True))
    assert torch.equal(by_chain.points, by_autograd.points)
    assert not torch.equal(by_chain.points, torch.cat([u, v]))
    assert all(parameter.grad is None for parameter in net.parameters())


def test_samples_without_a_flatten_keep_their_shape() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(18, 2))
    u, v = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    pairs = Pairs(u, v)
    by_chain = pairs.measure(net.double(), climb=True)
    by_autograd = pairs.measure(lambda x: net(x), climb=True)
    assert by_chain.ascent is not None
    assert by_autograd.ascent is not None
    torch.testing.assert_close(by_chain.ascent.direction, by_autograd.ascent.direction)
    assert by_chain.ascent.direction.shape == (10, 3, 4)


def test_under_autocast_the_direction_has_the_dtype_of_the_points() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    pairs = Pairs(torch.randn(5, 4), torch.randn(5, 4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        measured = pairs.measure(net, climb=True)
    assert measured.ascent is not None
    assert measured.ascent.direction.dtype is torch.float32


def test_a_wrong_device_is_said_as_for_any_model() -> None:
    pairs = Pairs(torch.randn(2, 3), torch.randn(2, 3))
    with pytest.raises(ValueError, match="points and model must be on one device; got cpu and meta"):
        pairs.measure(nn.Sequential(nn.Linear(3, 2, device="meta")), climb=True)


def test_a_wrong_width_is_said_as_for_any_model() -> None:
    pairs = Pairs(torch.randn(2, 3), torch.randn(2, 3))
    with pytest.raises(ValueError, match=r"the model failed on inputs of shape \(4, 3\)"):
        pairs.measure(nn.Sequential(nn.Linear(5, 2)), climb=True)


@contextmanager
def global_hook() -> Iterator[None]:
    handle = register_module_forward_hook(lambda module, inputs, output: None)
    try:
        yield
    finally:
        handle.remove()


class Doubled(nn.Linear):
    """A layer of a user's own: its forward may do anything."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Own(nn.Sequential):
    """A container of a user's own."""


def hooked() -> nn.Sequential:
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    net[1].register_forward_hook(lambda module, inputs, output: 2 * output)
    return net


def hooked_outside() -> nn.Sequential:
    net = nn.Sequential(nn.Linear(3, 3))
    net.register_forward_pre_hook(lambda module, inputs: (2 * inputs[0],))
    return net


def with_own_forward() -> nn.Sequential:
    """A method put on the object, as some libraries do it."""
    net = nn.Sequential(nn.Linear(3, 3))
    net[0].forward = lambda x: 2 * x
    return net


class Marked(Tensor):
    """A kind of tensor with its own rules, as quantised and distributed weights have them."""


def with_special_weight() -> nn.Sequential:
    net = nn.Sequential(nn.Linear(3, 3))
    layer = net[0]
    assert isinstance(layer, nn.Linear)
    layer.weight = nn.Parameter(layer.weight.data.as_subclass(Marked))
    return net


def with_another_parameter() -> nn.Sequential:
    net = nn.Sequential(nn.Linear(3, 3))
    net[0].register_parameter("scale", nn.Parameter(torch.ones(3)))
    return net


def with_parameters_in_another_order() -> nn.Sequential:
    """As after taking the weight away and giving it back."""
    net = nn.Sequential(nn.Linear(3, 3))
    weight = net[0].weight
    del net[0].weight
    net[0].register_parameter("weight", weight)  # type: ignore[arg-type]
    return net


OTHERS: dict[str, Callable[[], object]] = {
    "a function": lambda: torch.square,
    "a subclass of Linear": lambda: nn.Sequential(Doubled(3, 3)),
    "a subclass of Sequential": lambda: Own(nn.Linear(3, 3)),
    "a hook inside": hooked,
    "a hook outside": hooked_outside,
    "another forward": with_own_forward,
    "a parametrised layer": lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))),
    "an unknown layer": lambda: nn.Sequential(nn.Linear(3, 3), nn.Dropout()),
    "another parameter": with_another_parameter,
    "parameters in another order": with_parameters_in_another_order,
    "a convolution with borders": lambda: nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect")),
    "a convolution padded by a word": lambda: nn.Sequential(nn.Conv2d(1, 1, 3, padding="same")),
    "a pool that returns indices": lambda: nn.Sequential(nn.MaxPool2d(2, return_indices=True)),
    "a part flattened": lambda: nn.Sequential(nn.Flatten(2), nn.Linear(3, 3)),
    "a chain in a chain": lambda: nn.Sequential(nn.Sequential(nn.Linear(3, 3))),
    "weights of a special kind": with_special_weight,
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_plain_chain_is_left_to_autograd(name: str) -> None:
    assert chain_of(OTHERS[name]()) is None  # type: ignore[arg-type]


def test_a_hook_on_all_modules_is_respected() -> None:
    net = nn.Sequential(nn.Linear(3, 3))
    with global_hook():
        assert chain_of(net) is None
    assert chain_of(net) is not None


@pytest.mark.parametrize("kind", [nn.Linear, nn.Sequential])
def test_a_class_that_was_patched_is_respected(kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    net, forward = nn.Sequential(nn.Linear(3, 3)), kind.forward
    with monkeypatch.context() as patch:
        patch.setattr(kind, "forward", lambda self, x: 2 * forward(self, x))
        assert chain_of(net) is None
    assert chain_of(net) is not None
