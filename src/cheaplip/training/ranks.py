"""The processes of a data-parallel run: who they are, what each has, what they tell each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, final

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader

from cheaplip.penalties import LipschitzPenalty
from cheaplip.penalties.minibatch import needs_batch
from cheaplip.penalties.ranks import Figures, check_gradient, exchange, spread

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@final
class Ranks:
    """The processes of a Fabric; with one process everything stays as it is.

    Args:
        fabric: launched, where it has several processes.
        gradient: how their pairs make one gradient, see :func:`cheaplip.agree`.

    Raises:
        ValueError: for another gradient, or a Fabric that is not launched.
    """

    def __init__(self, fabric: Fabric, gradient: str = "max") -> None:
        check_gradient(gradient)
        self.fabric, self.gradient = fabric, gradient
        self.rank, self.count = int(fabric.global_rank), int(fabric.world_size)
        if self.count > 1 and not (dist.is_available() and dist.is_initialized()):
            raise ValueError(f"a fabric of {self.count} processes must be launched first: call fabric.launch()")

    def share(self, loader: Any, penalties: Iterable[Any]) -> Any:
        """Leave this process its share of all pairs, and return its share of a loader.

        Raises:
            ValueError: if the processes have loaders of different lengths.
        """
        if self.count == 1:
            return loader
        for penalty in penalties:
            if isinstance(penalty, LipschitzPenalty) and penalty.pairs.shares == 1:
                spread(penalty, self.rank, self.count)
        if hasattr(loader, "share"):
            loader = loader.share(self.rank, self.count)
        elif isinstance(loader, DataLoader):
            loader = self.fabric.setup_dataloaders(loader, move_to_device=False)
        length = len(loader) if hasattr(loader, "__len__") else -1
        if len(lengths := sorted(set(self.numbers(length)))) > 1:
            raise ValueError(f"every process needs as many minibatches as the others; got {lengths}: see to the loader")
        return loader

    def agree(self, penalties: Sequence[Any], terms: Sequence[Tensor], mine: Figures) -> tuple[list[Tensor], Figures]:
        """Return the terms, each times this process's share, and the figures of all processes."""
        pairs = [p for p in penalties if isinstance(p, LipschitzPenalty)]
        others = [p for p in penalties if needs_batch(p) and _is_number(getattr(p, "value", None))]
        factors, figures = exchange(pairs, mine, self.gradient, others)
        by_penalty = dict(zip(map(id, pairs), factors, strict=True))
        shared = zip(penalties, terms, strict=True)
        return [by_penalty[id(p)] * term if id(p) in by_penalty else term for p, term in shared], figures

    def numbers(self, value: float) -> list[float]:
        """Return a number of each process."""
        if self.count == 1:
            return [value]
        mine = torch.tensor([value], dtype=torch.float64, device=self.fabric.device)
        rows = [torch.empty_like(mine) for _ in range(self.count)]
        dist.all_gather(rows, mine)
        return [float(row) for row in rows]

    def first(self, value: float) -> float:
        """Return the first process's number, lest rounding on another machine decide otherwise there."""
        return self.numbers(value)[0]

    def gather(self, blob: bytes) -> list[bytes]:
        """Return the bytes of each process."""
        if self.count == 1:
            return [blob]
        sizes = [int(size) for size in self.numbers(len(blob))]
        padded = torch.zeros(max(sizes), dtype=torch.uint8)
        padded[: len(blob)] = torch.frombuffer(bytearray(blob), dtype=torch.uint8)
        padded = padded.to(self.fabric.device)
        rows = [torch.empty_like(padded) for _ in range(self.count)]
        dist.all_gather(rows, padded)
        return [bytes(row[:size].cpu().numpy()) for row, size in zip(rows, sizes, strict=True)]


def _is_number(value: object) -> bool:
    return isinstance(value, Tensor) and value.numel() == 1


def default_fabric(model: nn.Module) -> Fabric:
    """Return a Fabric on the device that the model is on."""
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise ImportError('fit needs Lightning Fabric: pip install "cheaplip[cli]"') from error
    device = next(iter(model.parameters())).device
    devices = [device.index or 0] if device.type == "cuda" else 1
    return Fabric(accelerator=device.type, devices=devices)
