"""Minibatches of tensors in memory, without Python per sample."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from typing import final

import numpy as np
import torch
from torch import Tensor


@final
class BatchLoader:
    """Minibatches of a data set in memory, in an order that depends on the seed and the epoch alone.

    Iterating gives epoch 0, iterating again epoch 1, and so on; :meth:`set_epoch` names the next one.

    Args:
        x: inputs, shape ``(n, *shape)``, on any device.
        y: labels, shape ``(n, ...)``.
        batch_size: samples in a minibatch, at least 1; the last one may be smaller.
        shuffle: draw a new order each epoch; otherwise keep the order of ``x``.
        seed: of the orders, 0 or more.
        drop_last: leave out a last minibatch that is smaller.

    Raises:
        TypeError: if ``x`` or ``y`` is no tensor.
        ValueError: if there is no sample, the lengths differ, or a number is out of range.

    Example:
        >>> loader = BatchLoader(torch.rand(10, 4), torch.arange(10), batch_size=4, seed=0)
        >>> [len(x) for x, y in loader]
        [4, 4, 2]
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        for name, value in (("x", x), ("y", y)):
            if not isinstance(value, Tensor):
                raise TypeError(f"{name} must be a tensor; got {type(value).__name__}")
        if x.dim() == 0 or y.dim() == 0 or len(x) != len(y) or not len(x):
            raise ValueError(
                f"x and y must hold the same number of samples, at least 1; got shapes {tuple(x.shape)} and "
                f"{tuple(y.shape)}"
            )
        _check_whole("batch_size", batch_size, 1)
        _check_whole("seed", seed, 0)
        if drop_last and batch_size > len(x):
            raise ValueError(
                f"drop_last with a batch_size of {batch_size} would drop all {len(x)} samples: lower batch_size"
            )
        self.batch_size = batch_size
        self._x, self._y = x, y
        self._shuffle, self._seed, self._drop_last = shuffle, seed, drop_last
        self._epoch = 0
        self._rank, self._ranks = 0, 1

    def share(self, rank: int, count: int) -> BatchLoader:
        """Return a loader of one process's share of each minibatch.

        Together the shares of all processes are the minibatches of this loader. A last one with fewer samples than
        processes is left out.

        Args:
            rank: the number of the process, from 0.
            count: how many processes there are.

        Raises:
            ValueError: if a minibatch has no sample for each process, or the loader is a share already.

        Example:
            >>> whole = BatchLoader(torch.arange(6)[:, None], torch.arange(6), batch_size=4, shuffle=False)
            >>> [y.tolist() for x, y in whole.share(0, 2)], [y.tolist() for x, y in whole.share(1, 2)]
            ([[0, 2], [4]], [[1, 3], [5]])
        """
        if self._ranks > 1:
            raise ValueError(f"the loader is one process's share already, of {self._ranks}: share the whole one")
        if min(self.batch_size, self.dataset_size) < count:
            raise ValueError(
                f"each of {count} processes needs a sample of every minibatch; got batch_size={self.batch_size}, "
                f"{self.dataset_size} samples"
            )
        part = copy(self)
        part._rank, part._ranks = rank, count
        return part

    @property
    def dataset_size(self) -> int:
        """How many samples the data set holds, dropped ones included."""
        return len(self._x)

    def __len__(self) -> int:
        whole, rest = divmod(self.dataset_size, self.batch_size)
        return whole + (rest >= self._ranks and not self._drop_last)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration gives.

        Args:
            epoch: counted from 0.

        Raises:
            ValueError: if it is negative or no whole number.

        Example:
            >>> loader = BatchLoader(torch.rand(10, 4), torch.arange(10), batch_size=10)
            >>> (_, first), = loader
            >>> loader.set_epoch(0)
            >>> (_, again), = loader
            >>> bool((first == again).all())
            True
        """
        _check_whole("epoch", epoch, 0)
        self._epoch = epoch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.iterate()

    def iterate(self, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Give the minibatches of one epoch from the ``start``-th on, the same ones that follow there in a whole epoch.

        Args:
            start: how many minibatches to leave out, from 0 to ``len(loader)``.

        Raises:
            ValueError: if ``start`` lies outside.

        Example:
            >>> loader = BatchLoader(torch.rand(10, 4), torch.arange(10), batch_size=4)
            >>> len(list(loader.iterate(start=1)))
            2
        """
        _check_whole("start", start, 0)
        if start > len(self):
            raise ValueError(f"start must be at most {len(self)}, the number of minibatches; got {start}")
        order = self._order(self._epoch)
        self._epoch += 1  # here and not at the end, so that a loop that breaks off goes on to the next epoch
        return self._batches(order, start)

    def _batches(self, order: Tensor, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        for k in range(start, len(self)):
            chosen = order[k * self.batch_size : (k + 1) * self.batch_size][self._rank :: self._ranks]
            yield self._x.index_select(0, chosen), self._y.index_select(0, self._to(chosen, self._y))

    def _order(self, epoch: int) -> Tensor:
        if not self._shuffle:
            return self._to(torch.arange(self.dataset_size), self._x)
        # Mixed and not added: seed 0 in epoch 1 and seed 1 in epoch 0 are to have nothing in common.
        mixed = np.random.SeedSequence((self._seed, epoch)).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(mixed))
        return self._to(torch.randperm(self.dataset_size, generator=generator), self._x)

    @staticmethod
    def _to(indices: Tensor, like: Tensor) -> Tensor:
        return indices if indices.device == like.device else indices.to(like.device)


def _check_whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}; got {value!r}")
