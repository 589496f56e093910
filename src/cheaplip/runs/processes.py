"""Several processes for one run: by Fabric itself, by torchrun, or by SLURM."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from cheaplip.runs.parts import device_of
from cheaplip.settings import TrainSettings

if TYPE_CHECKING:
    from lightning_fabric import Fabric

# Processes on one machine without GPUs.
MOST = 64
# Groups of processes that have been dissolved.
_ENDED: list[Any] = []


def leading() -> bool:
    """Tell whether this process speaks for the run: the only one, or the first of several.

    Example:
        >>> leading()
        True
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank() == 0
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK"))


def first(fabric: Fabric | None) -> bool:
    """Tell whether this process writes the run: the only one, or the first of a Fabric's.

    Example:
        >>> first(None)
        True
    """
    return fabric is None or bool(fabric.global_rank == 0)


def launched(settings: TrainSettings) -> Fabric | None:
    """Return a launched Fabric for a run on several processes, all of which return from here; None for one alone.

    Args:
        settings: its ``devices``, ``nodes`` and ``device`` count.

    Raises:
        ValueError: for other processes than torchrun started, more GPUs than there are, or pairs or minibatches that
            cannot be shared.
        ImportError: without Lightning Fabric.
    """
    devices, nodes = _wanted(settings)
    if devices * nodes == 1:
        return None
    _check_shares(settings, devices * nodes)
    kind = device_of(settings.device).type
    if kind == "cuda" and devices > torch.cuda.device_count():
        raise ValueError(
            f"devices must be at most {torch.cuda.device_count()}, the number of GPUs here; got {devices}: "
            "lower devices, or use device cpu"
        )
    if kind == "cpu" and devices > MOST:
        raise ValueError(f"devices must be at most {MOST} on a CPU, where more processes are slower; got {devices}")
    from lightning_fabric import Fabric

    # A run's output is tables; who wants to know what Fabric does can ask logging.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    fabric = Fabric(accelerator=kind, devices=devices, num_nodes=nodes, strategy="ddp")
    fabric.launch()
    return fabric


def _wanted(settings: TrainSettings) -> tuple[int, int]:
    """Return how many processes there are on each machine, and how many machines."""
    if not (dist.is_available() and dist.is_torchelastic_launched()):
        return settings.devices or 1, settings.nodes
    here, all_of_them = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    if settings.devices not in (None, here) or settings.nodes not in (1, all_of_them // here):
        raise ValueError(
            f"torchrun started {here} processes on each of {all_of_them // here} machines; got devices "
            f"{settings.devices}, nodes {settings.nodes}: leave both out"
        )
    return here, all_of_them // here


def _check_shares(settings: TrainSettings, count: int) -> None:
    """Raise here, before there are several processes that would each say so."""
    pairs = settings.lipschitz.pairs
    if "lipschitz" in settings.penalties and pairs % count:
        raise ValueError(
            f"lipschitz.pairs must be a multiple of the number of processes, {count}; got {pairs}: take "
            f"{(pairs // count + 1) * count}"
        )
    if settings.batch_size < count:
        raise ValueError(f"batch_size must be at least the number of processes, {count}; got {settings.batch_size}")


def dissolve() -> None:
    """End what the processes of a run have in common.

    The group itself stays until this process ends: a wrapped model that has the last word on it would wait, with
    Python's lock in its hand, for the group's thread, which may be waiting for that lock.
    """
    if dist.is_available() and dist.is_initialized():
        _ENDED.append(dist.group.WORLD)
        dist.destroy_process_group()
