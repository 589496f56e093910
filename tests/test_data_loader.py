from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cheaplip.data import BatchLoader

sizes = st.integers(1, 60)
seeds = st.integers(0, 2**62)


def numbered(samples: int) -> tuple[Tensor, Tensor]:
    """Samples that show their number: x is the number three times, y is ten times the number."""
    y = torch.arange(samples)
    return y.float().unsqueeze(1).repeat(1, 3), 10 * y


def order(loader: BatchLoader, epoch: int) -> list[int]:
    loader.set_epoch(epoch)
    return [int(label) // 10 for _, y in loader for label in y]


@given(sizes, st.integers(1, 70), seeds, st.booleans(), st.integers(0, 1000))
def test_every_sample_comes_exactly_once_an_epoch_with_its_own_label(
    samples: int, batch_size: int, seed: int, shuffle: bool, epoch: int
) -> None:
    loader = BatchLoader(*numbered(samples), batch_size, shuffle=shuffle, seed=seed)
    loader.set_epoch(epoch)
    batches = list(loader)
    assert len(batches) == len(loader)
    assert all(len(x) == batch_size for x, _ in batches[:-1])
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert y.sort().values.tolist() == list(range(0, 10 * samples, 10))
    assert torch.equal(x, (y // 10).float().unsqueeze(1).repeat(1, 3))
    if not shuffle:
        assert torch.equal(y, y.sort().values)


@given(sizes, st.integers(1, 60), seeds)
def test_dropping_the_last_leaves_full_minibatches_alone(samples: int, batch_size: int, seed: int) -> None:
    if batch_size > samples:
        with pytest.raises(ValueError, match=f"would drop all {samples} samples: lower batch_size"):
            BatchLoader(*numbered(samples), batch_size, drop_last=True)
        return
    loader = BatchLoader(*numbered(samples), batch_size, seed=seed, drop_last=True)
    batches = list(loader)
    assert len(batches) == len(loader) == samples // batch_size
    assert all(len(x) == batch_size for x, _ in batches)
    assert len({int(label) for _, y in batches for label in y}) == len(batches) * batch_size


@given(sizes, st.integers(1, 20), seeds, st.integers(0, 50), st.data())
def test_resuming_inside_an_epoch_gives_the_same_bits(
    samples: int, batch_size: int, seed: int, epoch: int, data: st.DataObject
) -> None:
    whole, resumed = (BatchLoader(*numbered(samples), batch_size, seed=seed) for _ in range(2))
    start = data.draw(st.integers(0, len(whole)))
    whole.set_epoch(epoch)
    resumed.set_epoch(epoch)
    expected, got = list(whole)[start:], list(resumed.iterate(start=start))
    assert len(got) == len(expected)
    assert all(torch.equal(a, b) and torch.equal(c, d) for (a, c), (b, d) in zip(expected, got, strict=True))


def test_order_depends_on_seed_and_epoch_alone() -> None:
    loader = BatchLoader(*numbered(50), 7, seed=3)
    torch.manual_seed(0)
    first, second = order(loader, 0), order(loader, 1)
    state = torch.get_rng_state()
    torch.manual_seed(9)
    other_batches = BatchLoader(*numbered(50), 11, seed=3)
    assert order(other_batches, 1) == second
    assert order(loader, 0) == first
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state)


def test_orders_of_different_epochs_and_seeds_all_differ() -> None:
    orders = [order(BatchLoader(*numbered(50), 50, seed=seed), epoch) for seed in range(6) for epoch in range(6)]
    assert len({tuple(one) for one in orders}) == 36


def test_each_iteration_goes_on_to_the_next_epoch_even_after_a_break() -> None:
    loader = BatchLoader(*numbered(30), 4, seed=1)
    expected = [order(loader, epoch) for epoch in range(4)]
    loader.set_epoch(0)
    next(iter(loader))
    assert [[int(label) // 10 for _, y in loader for label in y] for _ in range(3)] == expected[1:]
    loader.set_epoch(0)
    two = [[int(label) // 10 for _, y in epoch for label in y] for epoch in (iter(loader), iter(loader))]
    assert two == expected[:2]


def test_each_place_is_taken_by_each_sample_about_equally_often() -> None:
    loader = BatchLoader(*numbered(5), 5, seed=0)
    counts = torch.zeros(5, 5)
    for epoch in range(2000):
        counts[torch.arange(5), torch.tensor(order(loader, epoch))] += 1
    assert (counts - 400).abs().max() < 100  # 5.6 sigma


@pytest.mark.parametrize("shuffle", [True, False])
def test_changing_a_minibatch_in_place_leaves_the_data_alone(shuffle: bool) -> None:
    x, y = numbered(10)
    for batch, labels in BatchLoader(x, y, 4, shuffle=shuffle):
        batch.zero_()
        labels.zero_()
    assert torch.equal(x, numbered(10)[0])
    assert torch.equal(y, numbered(10)[1])


def test_sizes_are_told() -> None:
    loader = BatchLoader(*numbered(10), 4, drop_last=True)
    assert (loader.batch_size, loader.dataset_size, len(loader)) == (4, 10, 2)


@pytest.mark.parametrize(
    ("x", "y", "settings", "error", "message"),
    [
        (torch.rand(0, 3), torch.rand(0), {}, ValueError, r"at least 1; got shapes \(0, 3\) and \(0,\)"),
        (torch.rand(4, 3), torch.rand(5), {}, ValueError, r"same number of samples.*\(4, 3\) and \(5,\)"),
        (torch.rand(()), torch.rand(()), {}, ValueError, r"got shapes \(\) and \(\)"),
        ([1.0], torch.rand(1), {}, TypeError, "x must be a tensor; got list"),
        (torch.rand(4, 3), None, {}, TypeError, "y must be a tensor; got NoneType"),
        (torch.rand(4, 3), torch.rand(4), {"batch_size": 0}, ValueError, "batch_size .* at least 1; got 0"),
        (torch.rand(4, 3), torch.rand(4), {"batch_size": 2.0}, ValueError, "batch_size .*; got 2.0"),
        (torch.rand(4, 3), torch.rand(4), {"seed": -1}, ValueError, "seed .* at least 0; got -1"),
    ],
)
def test_loader_refuses_what_gives_no_minibatches(
    x: Any, y: Any, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        BatchLoader(x, y, **{"batch_size": 2, **settings})


def test_loader_refuses_an_epoch_or_a_start_that_does_not_exist() -> None:
    loader = BatchLoader(*numbered(10), 4)
    with pytest.raises(ValueError, match="epoch must be a whole number of at least 0; got -1"):
        loader.set_epoch(-1)
    with pytest.raises(ValueError, match="start must be a whole number of at least 0; got -1"):
        loader.iterate(start=-1)
    with pytest.raises(ValueError, match="start must be at most 3, the number of minibatches; got 4"):
        loader.iterate(start=4)
