from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from cheaplip.data import Data, Split, load

SPLITS = ("train", "lipschitz", "selection", "test")

# Factories, as a user writes them: named below as test_data_user:colour.


def images(samples: int, *shape: int) -> Tensor:
    return torch.rand(samples, *shape, generator=torch.Generator().manual_seed(samples))


def colour() -> Any:
    return (images(40, 3, 8, 8), torch.arange(40) % 4), (images(12, 3, 8, 8), torch.arange(12) % 4)


def as_datasets() -> Any:
    return tuple(TensorDataset(x, y) for x, y in colour())


def listed() -> Any:
    return tuple([(x.numpy(), int(y)) for x, y in zip(*part, strict=True)] for part in colour())


def beyond_the_unit_box() -> Any:
    (x, y), test = colour()
    return (2 * x - 1, y.to(torch.uint8)), test


def targets() -> Any:
    return (images(20, 5).double(), torch.linspace(0, 1, 20)), (images(5, 5), torch.ones(5))


def ready(box: tuple[float, float] | None = (-1.0, 1.0)) -> Data:
    (x, y), (x_test, y_test) = colour()
    train, test = Split(2 * x - 1, y), Split(x_test, y_test)
    return Data("mine", train, train, train, test, classes=7, shape=(3, 8, 8), box=box)


def drawn_from_the_global_generator(seed: int) -> Any:
    return (torch.rand(20, 2), torch.arange(20) % 2), (torch.full((4, 2), seed / 100), torch.zeros(4).long())


def needs_more(size: int) -> Any:
    return size


def array_pair() -> Any:
    return (np.zeros((4, 2)), np.zeros(4)), (np.zeros((4, 2)), np.zeros(4))


def returning(train: Any) -> Callable[[], Any]:
    return lambda: (train, (torch.rand(4, 2), torch.tensor([0, 1, 0, 1])))


two_labels = torch.arange(20) % 2
not_finite = returning((torch.tensor([[0.5, torch.nan]]).repeat(20, 1), two_labels))
bytes_for_floats = returning((torch.zeros(20, 2, dtype=torch.uint8), two_labels))
from_one = returning((torch.rand(20, 2), two_labels + 1))
shorter_labels = returning((torch.rand(20, 2), two_labels[:-1]))
one_dimensional = returning((torch.rand(20), two_labels))
other_shape = returning((torch.rand(20, 3), two_labels))
float_labels = returning((torch.rand(20, 2), two_labels.float()))
uneven = returning([(torch.rand(2 + k // 19), 0) for k in range(20)])
no_samples = returning([])
no_pairs = returning([torch.rand(3) for _ in range(20)])
bare_tensor = returning(torch.rand(20, 2))
three_parts: Callable[[], Any] = lambda: (1, 2, 3)  # noqa: E731


def raising() -> Any:
    raise RuntimeError("the disk\nis on fire")


class Faulty:
    """A data set whose samples cannot be read."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, k: int) -> Any:
        raise OSError("no such image")


unreadable = returning(Faulty())


@pytest.mark.parametrize("factory", ["colour", "as_datasets", "listed"])
def test_factory_gives_colour_images_as_tensors_or_as_a_data_set(factory: str) -> None:
    data = load(f"test_data_user:{factory}", lipschitz=5)
    assert [len(getattr(data, name)) for name in SPLITS] == [31, 5, 4, 12]
    (x, y), (x_test, y_test) = colour()
    found = []
    for name in SPLITS[:3]:
        split = getattr(data, name)
        where = [int((x == sample).flatten(1).all(1).nonzero()) for sample in split.x]
        assert torch.equal(split.y, y[where])
        found += where
    assert sorted(found) == list(range(40))
    assert torch.equal(data.test.x, x_test)
    assert torch.equal(data.test.y, y_test)
    assert (data.classes, data.shape, data.box) == (4, (3, 8, 8), (0.0, 1.0))


def test_factory_data_beyond_the_unit_box_has_no_box_unless_it_says_so() -> None:
    loose = load("test_data_user:beyond_the_unit_box")
    assert (loose.box, loose.train.y.dtype) == (None, torch.int64)
    assert load("test_data_user:ready").box == (-1.0, 1.0)


def test_factory_may_return_data_that_is_split_already() -> None:
    assert load("test_data_user:ready").classes == 7
    with pytest.raises(ValueError, match="split already: leave out lipschitz and selection"):
        load("test_data_user:ready", lipschitz=3)


def image_values() -> Any:
    clean = torch.rand(20, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    return (0.5 * clean, clean), (0.5 * clean[:5], clean[:5])


def test_values_may_be_images() -> None:
    data = load("test_data_user:image_values")
    assert data.classes is None
    assert data.train.y.shape == (16, 1, 6, 6)
    assert torch.equal(data.train.y, 2 * data.train.x)


def test_factory_with_float_targets_is_a_regression_with_a_column_of_targets() -> None:
    data = load("test_data_user:targets")
    assert (data.classes, data.train.y.shape, data.test.y.shape) == (None, (16, 1), (5, 1))
    assert data.train.x.dtype == torch.float32


def test_factory_gets_the_seed_if_it_takes_it() -> None:
    assert load("test_data_user:drawn_from_the_global_generator", seed=50).test.x.tolist() == [[0.5, 0.5]] * 4


def test_module_that_draws_when_imported_changes_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data_that_draws.py").write_text(
        "import torch\ntorch.rand(3)\ndef make():\n    part = torch.rand(9, 2), torch.arange(9) % 2\n"
        "    return part, part\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    generator = torch.get_rng_state()
    one, other = (load("data_that_draws:make", seed=1) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.equal(one.train.x, other.train.x)


@pytest.mark.parametrize(
    ("factory", "error", "message"),
    [
        ("raising", ValueError, "^test_data_user:raising raised RuntimeError: the disk is on fire$"),
        ("unreadable", ValueError, "sample 0 of the training set of .* raised OSError: no such image"),
        ("needs_more", TypeError, r"must need no arguments but seed and data_dir; got \(size"),
        ("SPLITS", TypeError, "must be a function; got tuple"),
        ("three_parts", TypeError, "must return a Data, or .*; test_data_user:three_parts returned tuple"),
        ("array_pair", TypeError, r"got ndarray and ndarray: convert arrays with torch.from_numpy"),
        ("bare_tensor", TypeError, "the training set of test_data_user:bare_tensor is a Tensor"),
        ("no_pairs", TypeError, r"must be \(x, y\)"),
        ("no_samples", ValueError, "is empty: expected at least one sample"),
        ("uneven", ValueError, r"must have the same shape; number 19 has \(3,\)"),
        ("not_finite", ValueError, "must be finite; got NaN"),
        ("bytes_for_floats", TypeError, r"floating dtype; got torch.uint8: .* x.float\(\) / 255"),
        ("from_one", ValueError, r"must be 0, 1, ..., K-1, all of them present; got 1, 2: number them so"),
        ("shorter_labels", ValueError, r"got \(20, 2\) and \(19,\)"),
        ("one_dimensional", ValueError, r"at least one input dimension; got \(20,\)"),
        ("other_shape", ValueError, r"x of test must have the shape .*; got \(4, 2\)"),
        ("float_labels", TypeError, "y of test must be a float32 tensor for regression; got int64"),
    ],
)
def test_unfit_data_of_a_factory_is_refused_in_one_sentence(factory: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        load(f"test_data_user:{factory}")
    assert "\n" not in str(caught.value)
