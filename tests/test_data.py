from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cheaplip.data import Data, Split, class_names, class_words, digits, load, regression, sources
from cheaplip.data.splits import split_indices

SPLITS = ("train", "lipschitz", "selection", "test")
MNIST_SIZES = (("train", 53_000), ("lipschitz", 6_000), ("selection", 1_000), ("test", 10_000))


def rows(x: Tensor) -> list[bytes]:
    """Each sample as bytes, sorted: equal lists are equal collections."""
    return sorted(sample.numpy().tobytes() for sample in x)


def all_equal(one: Data, other: Data, names: tuple[str, ...] = SPLITS) -> bool:
    pairs = [(getattr(one, name), getattr(other, name)) for name in names]
    return all(torch.equal(a.x, b.x) and torch.equal(a.y, b.y) for a, b in pairs)


@given(st.integers(3, 400), st.integers(0, 2**40), st.data())
def test_splits_share_no_sample_and_lose_none(samples: int, seed: int, data: st.DataObject) -> None:
    lipschitz = data.draw(st.none() | st.integers(0, samples // 3))
    selection = data.draw(st.none() | st.integers(0, samples // 3))
    parts = split_indices(samples, seed=seed, lipschitz=lipschitz, selection=selection)
    assert torch.cat(parts).sort().values.tolist() == list(range(samples))
    for part, wanted in zip(parts[1:], (lipschitz, selection), strict=True):
        assert len(part) == (round(samples / 10) if wanted is None else wanted)
    again = split_indices(samples, seed=seed, lipschitz=lipschitz, selection=selection)
    assert all(torch.equal(one, other) for one, other in zip(parts, again, strict=True))


def test_digits_are_all_there_in_four_disjoint_splits_scaled_to_one() -> None:
    from sklearn.datasets import load_digits

    data, original = load("digits"), load_digits()
    splits = [getattr(data, name) for name in SPLITS]
    assert [len(split) for split in splits] == [1150, 144, 144, 359]
    together = torch.cat([split.x for split in splits])
    assert rows(together) == rows(torch.from_numpy(original.images).float().unsqueeze(1) / 16)
    assert torch.cat([split.y for split in splits]).bincount().tolist() == np.bincount(original.target).tolist()
    assert (data.classes, data.shape, data.box) == (10, (1, 8, 8), (0.0, 1.0))
    assert together.max() == 1


def test_digits_are_asked_of_scikit_learn_where_its_file_is_not_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = digits.read_digits()
    for table in (("datasets", "data", "moved.csv.gz"), ("__init__.py",), ("datasets", "data", "iris.csv")):
        monkeypatch.setattr(digits, "TABLE", table)
        asked = digits.read_digits()
        assert np.array_equal(asked[0], images)
        assert np.array_equal(asked[1], labels)


def test_same_seed_same_splits_and_one_test_set_for_all_seeds() -> None:
    one, again, other = load("digits", seed=3), load("digits", seed=3), load("digits", seed=4)
    assert all_equal(one, again)
    assert all_equal(one, other, ("test",))
    assert not torch.equal(one.train.x, other.train.x)


def test_mnist_is_all_there_with_its_test_set_in_order(mnist_dir: Path) -> None:
    data = load("mnist", data_dir=mnist_dir, seed=1)
    splits = [getattr(data, name) for name in SPLITS]
    assert tuple((name, len(getattr(data, name))) for name in SPLITS) == MNIST_SIZES
    counts = torch.cat([split.y for split in splits[:3]]).bincount().tolist()
    assert counts == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]  # of the published training set
    assert data.test.y[:5].tolist() == [7, 2, 1, 0, 4]
    assert (data.shape, data.classes, data.box) == ((1, 28, 28), 10, (0.0, 1.0))
    assert data.test.x.mean() * 255 == pytest.approx(33.79, abs=0.01)
    assert [(split.x.min(), split.x.max()) for split in splits] == [(0.0, 1.0)] * 4


def test_classes_are_called_by_their_names_and_outputs_beyond_them_by_their_numbers() -> None:
    assert class_names("fashion-mnist", 10)[::9] == ("T-shirt", "ankle boot")
    assert class_names("fashion-mnist", 12)[9:] == ("ankle boot", "10", "11")
    assert class_names("mine:factory", 3) == ("0", "1", "2")
    assert [class_words("fashion-mnist", k) for k in (9, 10)] == ["ankle boot", "class 10"]


def test_sources_tell_the_sizes_that_load_gives() -> None:
    listed = {source.name: source for source in sources("no/such/folder")}
    for name in ("digits", "regression"):
        assert listed[name].sizes == tuple((split, len(getattr(load(name), split))) for split in SPLITS)
        assert not listed[name].needs_files
    assert listed["mnist"].sizes == listed["fashion-mnist"].sizes == MNIST_SIZES
    assert listed["mnist"].needs_files
    assert listed["mnist"].found is None


def test_sources_tell_where_the_files_were_found(mnist_dir: Path) -> None:
    assert {source.name: source.found for source in sources(mnist_dir)}["mnist"] == mnist_dir


def test_sizes_of_splits_are_those_asked_for() -> None:
    data = load("digits", lipschitz=0, selection=38)
    assert [len(getattr(data, name)) for name in SPLITS] == [1400, 0, 38, 359]
    toy = load("regression", lipschitz=7, selection=0)
    assert [len(getattr(toy, name)) for name in SPLITS] == [100, 7, 0, 400]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lipschitz": 1000, "selection": 438}, "leave a sample of the 1438"),
        ({"lipschitz": -1}, "lipschitz must be a whole number of at least 0; got -1"),
        ({"selection": 2.5}, "selection must be a whole number"),
        ({"seed": -1}, "seed must be a whole number of at least 0; got -1"),
        ({"seed": True}, "seed must be a whole number"),
        ({"seed": 2**63}, r"seed must be below 2\*\*63"),
    ],
)
def test_sizes_and_seeds_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load("digits", **settings)


def test_regression_is_the_function_of_the_paper_on_its_intervals() -> None:
    data = regression(noise=0.0, seed=2)
    for split in (data.train, data.lipschitz, data.selection, data.test):
        assert torch.equal(split.y, 0.5 * torch.relu(split.x.abs() - 3))
    size = data.train.x.abs()
    assert bool(((size <= 0.3) | (size >= 3) & (size <= 4)).all())
    parts = [int(part.sum()) for part in (data.train.x < -2, size <= 0.3, data.train.x > 2)]
    assert min(parts) >= 10  # 38, 23 and 38 are expected
    assert data.lipschitz.x.abs().max() <= 4
    assert data.lipschitz.x.histc(8, -4, 4).min() >= 30  # 62 are expected
    assert torch.equal(data.test.x.flatten(), torch.linspace(-4, 4, 400))
    assert (data.classes, data.shape, data.box) == (None, (1,), None)


@given(st.floats(0.01, 10.0), st.integers(0, 2**40))
def test_noise_of_the_regression_has_the_stated_deviation(noise: float, seed: int) -> None:
    noisy, exact = regression(noise=noise, seed=seed), regression(noise=0.0, seed=seed)
    assert torch.equal(noisy.train.x, exact.train.x)
    assert float((noisy.train.y - exact.train.y).std()) == pytest.approx(noise, rel=0.4)  # 5.6 sigma of 100 samples
    assert all_equal(noisy, exact, ("lipschitz", "test"))


@pytest.mark.parametrize("noise", [-0.1, float("nan"), float("inf")])
def test_noise_that_is_no_deviation_is_refused(noise: float) -> None:
    with pytest.raises(ValueError, match="noise must be a standard deviation of at least 0; got"):
        regression(noise=noise)


@pytest.mark.parametrize("name", ["digits", "regression", "test_data_user:drawn_from_the_global_generator"])
def test_loading_leaves_the_global_generator_alone_and_does_not_depend_on_it(name: str) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = load(name, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert all_equal(one, load(name, seed=5))


@pytest.mark.parametrize("name", ["mnits", "", "no_such_package.at_all:f", "json:nothing", ":", "a b:c", "json:"])
def test_unknown_data_is_refused_with_what_was_expected(name: str) -> None:
    with pytest.raises(ValueError, match=r"pkg\.mod:factory.*; got "):
        load(name)
    with pytest.raises(TypeError, match="must be text; got NoneType"):
        load(None)  # type: ignore[arg-type]


def some(samples: int) -> Split:
    return Split(2 * torch.rand(samples, 3, 8, 8) - 1, torch.arange(samples) % 4)


VALID = Data("mine", some(40), some(4), some(4), some(12), classes=7, shape=(3, 8, 8), box=(-1.0, 1.0))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"classes": 1}, ValueError, "classes must be at least 2"),
        ({"classes": 3}, ValueError, r"labels of train must lie in 0..2; got 0 to 3"),
        ({"classes": None}, TypeError, "y of train must be a float32 tensor for regression; got int64"),
        ({"box": (0.0, 1.0)}, ValueError, r"x of train must keep to the box \(0.0, 1.0\); got values from -"),
        ({"box": (1.0, 1.0)}, ValueError, "box must be .* low < high, or None; got"),
        ({"box": 1.0}, ValueError, "box must be"),
        ({"shape": (8, 8)}, ValueError, "x of train must have the shape"),
        ({"train": Split(torch.full((4, 3, 8, 8), torch.inf), torch.arange(4))}, ValueError, "must be finite; got NaN"),
        ({"test": None}, TypeError, "test must be a Split; got NoneType"),
        ({"test": Split(torch.zeros(0, 3, 8, 8), torch.zeros(0).long())}, ValueError, "test must hold at least one"),
        ({"selection": Split(torch.zeros(1, 3, 8, 8).double(), torch.zeros(1).long())}, TypeError, "got float64"),
        (
            {"selection": Split(torch.zeros(1, 3, 8, 8), torch.zeros(2).long())},
            ValueError,
            r"shape \(1,\) for its 1 samples",
        ),
        ({"selection": Split(torch.zeros(1, 3, 8, 8), torch.zeros(1, 8, 8).long())}, ValueError, "one class for each"),
    ],
)
def test_data_that_contradicts_itself_cannot_be_made(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        dataclasses.replace(VALID, **change)


def test_data_and_models_import_no_more_than_torch_and_numpy_and_name_the_extra() -> None:
    code = """
import json, sys, torch, numpy
before = set(sys.modules)
import cheaplip.data, cheaplip.models
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
sys.modules.update(dict.fromkeys(["sklearn.datasets", "sklearn", "pooch"]))
said = []
for task in (lambda: cheaplip.data.load("digits"), lambda: cheaplip.data.load("mnist")):
    try:
        task()
    except ImportError as error:
        said.append(str(error))
print(json.dumps([sorted(loaded - sys.stdlib_module_names), said]))
"""
    environment = {"PYTHONPATH": ":".join(sys.path), "CHEAPLIP_DATA": "", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, cwd="/"
    )
    loaded, said = json.loads(done.stdout)
    assert {name for name in loaded if not name.startswith("_")} <= {"cheaplip", "torch", "numpy"}
    assert len(said) == 2
    assert all('pip install "cheaplip[cli]"' in sentence for sentence in said)
