from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from cheaplip.models import ACTIVATIONS, build, check_fits, cnn, mlp

widths_of_any_net = st.lists(st.integers(1, 12), min_size=2, max_size=5)
activations = st.sampled_from(sorted(ACTIVATIONS))


# Factories, as a user writes them: named below as test_models:takes_both.


def takes_both(shape: tuple[int, ...], classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(shape).numel(), classes))


def takes_anything(**settings: Any) -> nn.Module:
    return takes_both(settings["shape"], settings["classes"])


def takes_classes(*, classes: int = 3) -> nn.Module:
    return takes_both((3, 4, 4), classes)


def takes_nothing() -> nn.Module:
    return takes_both((3, 4, 4), 10)


class Own(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(48, classes)

    @staticmethod
    def small() -> nn.Module:
        return Own(10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x.flatten(1))
        return out


def lazy(classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(classes))


def takes_more(shape: tuple[int, ...], depth: int) -> nn.Module:
    return takes_both(shape, depth)


def returns_text() -> str:
    return "a model"


an_instance = Own(10)


@given(widths_of_any_net, activations, st.none() | activations)
def test_mlp_is_the_composition_that_its_widths_and_activations_say(
    widths: list[int], activation: str, output: str | None
) -> None:
    net = mlp(widths, activation, output)
    x = torch.rand(3, 1, widths[0])
    expected = x.flatten(1)
    layers = [layer for layer in net if isinstance(layer, nn.Linear)]
    assert [layer.in_features for layer in layers] + [layers[-1].out_features] == widths
    for layer in layers[:-1]:
        expected = ACTIVATIONS[activation]()(expected @ layer.weight.T + layer.bias)
    expected = expected @ layers[-1].weight.T + layers[-1].bias
    if output is not None:
        expected = ACTIVATIONS[output]()(expected)
    torch.testing.assert_close(net(x), expected)


@given(widths_of_any_net, activations, st.none() | activations)
def test_text_builds_the_network_that_mlp_makes(widths: list[int], activation: str, output: str | None) -> None:
    spec = ":".join(["mlp", "-".join(map(str, widths)), activation, *([output] if output else [])])
    built = build(spec, shape=(widths[0],), classes=widths[-1])
    made = mlp(widths, activation, output)
    assert [type(layer) for layer in built.children()] == [type(layer) for layer in made]
    made.load_state_dict(built.state_dict())
    x = torch.rand(3, widths[0])
    assert torch.equal(built(x), made(x))


def test_mlp_has_sigmoids_and_logits_unless_told_otherwise() -> None:
    net = build("mlp:784-64-64-10", shape=(1, 28, 28), classes=10)
    kinds = [type(layer).__name__ for layer in net.children()]
    assert kinds == ["Flatten", "Linear", "Sigmoid", "Linear", "Sigmoid", "Linear"]
    with_output = build("mlp:784-64-64-10:sigmoid:sigmoid", shape=(1, 28, 28), classes=10)
    assert isinstance(list(with_output.children())[-1], nn.Sigmoid)


def test_regression_network_may_have_any_number_of_outputs() -> None:
    assert build("mlp:1-500-200-100-1", shape=(1,), classes=None)(torch.rand(5, 1)).shape == (5, 1)
    assert build("mlp:1-3-2", shape=(1,), classes=None)(torch.rand(5, 1)).shape == (5, 2)


def test_cnn_has_the_layers_and_the_parameters_of_madry() -> None:
    net = cnn()
    assert sum(p.numel() for p in net.parameters()) == 3_274_634  # of the published MNIST network
    kinds = "Conv2d ReLU MaxPool2d Conv2d ReLU MaxPool2d Flatten Linear ReLU Linear"
    assert " ".join(type(layer).__name__ for layer in net) == kinds


@given(st.integers(1, 4), st.integers(4, 33), st.integers(2, 12), activations)
def test_cnn_fits_images_of_any_size(channels: int, size: int, classes: int, activation: str) -> None:
    net = build(f"cnn:{activation}", shape=(channels, size, size), classes=classes)
    assert net(torch.rand(2, channels, size, size)).shape == (2, classes)
    assert sum(isinstance(layer, ACTIVATIONS[activation]) for layer in net.children()) == 3


@given(st.integers(0, 2**62), st.sampled_from(["mlp:48-5-10", "test_models:takes_both", "test_models:lazy"]))
def test_same_seed_same_weights_and_the_global_generator_is_untouched(seed: int, spec: str) -> None:
    torch.manual_seed(seed // 3)
    before = torch.get_rng_state()
    one = build(spec, shape=(3, 4, 4), classes=10, seed=seed)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    same, other = (build(spec, shape=(3, 4, 4), classes=10, seed=s) for s in (seed, seed + 1))
    states = [torch.cat([p.flatten() for p in net.parameters()]) for net in (one, same, other)]
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_module_that_draws_when_imported_changes_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "draws_at_import.py").write_text(
        "import torch\ntorch.rand(3)\ndef net():\n    return torch.nn.Linear(4, 3)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    generator = torch.get_rng_state()
    one, other = (build("draws_at_import:net", shape=(4,), classes=3, seed=1) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.equal(one.weight, other.weight)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["takes_both", "takes_anything", "takes_classes", "takes_nothing", "Own", "Own.small"])
def test_own_factory_is_called_with_what_its_signature_takes(name: str) -> None:
    net = build(f"test_models:{name}", shape=(3, 4, 4), classes=10)
    assert net(torch.rand(2, 3, 4, 4)).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("takes_more", r"must need no arguments but shape and classes; got \(shape: .*, depth: "),
        ("returns_text", "must return a torch.nn.Module; got str"),
        ("an_instance", "must be a function or class that makes the model; got Own"),
        ("ACTIVATIONS", "must be a function or class that makes the model; got dict"),
    ],
)
def test_own_factory_that_makes_no_module_is_refused(name: str, message: str) -> None:
    with pytest.raises(TypeError, match=f"^test_models:{name} {message}") as caught:
        build(f"test_models:{name}", shape=(3, 4, 4), classes=10)
    assert "\n" not in str(caught.value)


def test_own_factory_or_module_that_raises_is_told_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model_that_raises.py").write_text("def net():\n    raise RuntimeError('out of\\nluck')\n")
    (tmp_path / "model_that_counts.py").write_text("def net(classes):\n    return range(classes)\n")
    (tmp_path / "module_that_raises.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match=r"^model_that_raises:net raised RuntimeError: out of luck$"):
        build("model_that_raises:net", shape=(4,), classes=3)
    with pytest.raises(
        ValueError, match=r"^model_that_counts:net raised TypeError: .*; it was called with classes=None$"
    ):
        build("model_that_counts:net", shape=(4,), classes=None)
    with pytest.raises(ValueError, match=r"importing module_that_raises raised ZeroDivisionError: division by zero$"):
        build("module_that_raises:net", shape=(4,), classes=3)


@pytest.mark.parametrize(
    "spec",
    ["resnet", "", ":", "mlpx", "MLP:4-3", "no.such:thing", "nosuch:thing", "json:nothing", "json:", "a.b", "../x:f"],
)
def test_unknown_model_is_refused_with_what_was_expected(spec: str) -> None:
    with pytest.raises(
        ValueError, match=r"the model must be mlp:784-64-64-10, .* or pkg\.mod:factory; got '"
    ) as caught:
        build(spec, shape=(4,), classes=3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "spec",
    ["mlp", "mlp:", "mlp:4", "mlp:4-", "mlp:4--3", "mlp:4-0-3", "mlp:4-x-3", "mlp:4,3", "mlp:4-3:relu:relu:relu"],
)
def test_mlp_text_without_widths_is_refused(spec: str) -> None:
    with pytest.raises(ValueError, match=r"^expected mlp:widths.* such as mlp:784-64-64-10:relu; got 'mlp"):
        build(spec, shape=(4,), classes=3)


@pytest.mark.parametrize(
    ("spec", "shape", "classes", "message"),
    [
        ("mlp:4-3:swoosh", (4,), 3, "activation must be one of sigmoid, relu, .*; got 'swoosh'"),
        ("mlp:4-3:relu:", (4,), 3, "activation must be one of .*; got ''"),
        ("mlp:784-10", (1, 8, 8), 10, r"takes 784 inputs, but shape \(1, 8, 8\) has 64: begin it mlp:64-"),
        ("mlp:64-9", (1, 8, 8), 10, "gives 9 outputs for 10 classes: let its last width be 10"),
        ("cnn:", (1, 8, 8), 10, "expected cnn or cnn:activation"),
        ("cnn:relu:relu", (1, 8, 8), 10, "expected cnn or cnn:activation"),
        ("cnn:swoosh", (1, 8, 8), 10, "got 'swoosh'"),
        ("cnn", (64,), 10, r"takes square images in classes.*; got shape \(64,\)"),
        ("cnn", (1, 8, 9), 10, r"takes square images in classes.*; got shape \(1, 8, 9\)"),
        ("cnn", (1, 8, 8), None, "and no classes: use an mlp or your own"),
        ("cnn", (1, 3, 3), 10, "size must be a whole number of at least 4; got 3"),
        ("test_models:takes_nothing", (1, 8, 8), 10, r"must take inputs of shape \(1, 8, 8\); on zeros .* raised"),
        ("test_models:takes_nothing", (3, 4, 4), 9, r"must give outputs of shape \(2, 9\) .*; got \(2, 10\)"),
    ],
)
def test_model_that_does_not_fit_is_refused_in_one_sentence(
    spec: str, shape: tuple[int, ...], classes: int | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        build(spec, shape=shape, classes=classes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("widths", [[4], [], [4, 0], [4, 2.0], [4, True]])
def test_widths_that_make_no_network_are_refused(widths: list[Any]) -> None:
    with pytest.raises(ValueError, match="widths must be two or more whole numbers of at least 1; got"):
        mlp(widths)


@pytest.mark.parametrize("seed", [-1, 0.5, True, 2**63])
def test_seed_out_of_range_is_refused(seed: Any) -> None:
    with pytest.raises(ValueError, match="seed must be a whole number from 0 to"):
        build("mlp:4-3", shape=(4,), classes=3, seed=seed)
    with pytest.raises(TypeError, match=r"the model must be text such as mlp:.*; got NoneType"):
        build(None, shape=(4,), classes=3)  # type: ignore[arg-type]


def test_checking_restores_modes_and_touches_neither_statistics_nor_gradients_nor_generator() -> None:
    net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(), nn.RReLU(), nn.Linear(6, 3)).double()
    net[2].eval()
    modes = [layer.training for layer in net.modules()]
    state = {name: value.clone() for name, value in net.state_dict().items()}
    generator = torch.get_rng_state()
    check_fits(net, (4,), 3)
    with pytest.raises(ValueError, match="must take inputs"):
        check_fits(net, (5,), 3)
    assert [layer.training for layer in net.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    assert torch.equal(torch.get_rng_state(), generator)


class Returning(nn.Module):
    def __init__(self, result: Any) -> None:
        super().__init__()
        self.result = result

    def forward(self, x: Tensor) -> Any:
        return self.result


@pytest.mark.parametrize(
    ("result", "got"),
    [
        (torch.zeros(3), r"\(3,\)"),
        (torch.zeros(1, 3), r"\(1, 3\)"),
        (torch.zeros(2, 3, 1), r"\(2, 3, 1\)"),
        ((torch.zeros(2, 3),), "tuple"),
        (None, "NoneType"),
    ],
)
@pytest.mark.parametrize("classes", [3, None])
def test_outputs_other_than_one_row_per_sample_are_refused(result: Any, got: str, classes: int | None) -> None:
    with pytest.raises(ValueError, match=rf"outputs of shape .* for inputs of shape \(2, 4\); got {got}: change"):
        check_fits(Returning(result), (4,), classes)
