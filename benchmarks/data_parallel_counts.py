"""Does a data-parallel step with the penalty compute and send what the model of its cost says?

    python benchmarks/data_parallel_counts.py

Nothing is timed. Multiply-adds are counted as PyTorch does them, in a process of its own per row; bytes are those that
passed the loopback interface (Linux), headers and acknowledgements included, so nothing else should talk there.
"""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path
from typing import Any

import torch
from arithmetic import multiply_adds
from data_parallel import from_processes, joined, part, steps_of
from tables import Table
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from cheaplip.models import build

STEPS = {"cnn": 4}  # where 50 would take long
NETWORKS = ("mlp:784-200-80-10", "mlp:784-800-320-10", "cnn")
SIZES = ((128, 16), (128, 32), (256, 16))  # batch and pairs of all processes together


class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts multiply-adds. PyTorch's FlopCounterMode hangs hooks into modules, which stop gradients by inputs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.multiply_adds = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function and count it."""
        found = func(*args, **(kwargs or {}))
        if func.overloadpacket in flop_registry:
            flops = flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=found)
            self.multiply_adds += flops // 2
        return found


def sent() -> int:
    """Return how many bytes have passed the loopback interface."""
    for line in Path("/proc/net/dev").read_text("ascii").splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == "lo":
            return int(numbers.split()[0])
    raise RuntimeError("/proc/net/dev has no loopback interface: this benchmark needs Linux")


def count(rank: int, processes: int, port: int, network: str, batch: int, pairs: int, file: Path) -> None:
    """Count what a step of each kind takes; the first process writes the multiply-adds and bytes of one step."""
    fabric, block = joined(rank, processes, port), STEPS.get(network, 50)
    found = {}
    for name, steps in steps_of(network, fabric, batch // processes, pairs, block=block).items():
        steps()  # the first ones make what later ones have
        with Counter() as counter:
            steps()
        fabric.barrier()
        before = sent()
        fabric.barrier()
        steps()
        fabric.barrier()
        found[name] = (counter.multiply_adds / block, (sent() - before) / block)
    if rank == 0:
        torch.save(found, file)
    part()


def row_of(network: str, processes: int, batch: int, pairs: int) -> tuple[str, ...]:
    """Return a row of the table: what the model says, and what was counted."""
    found = from_processes(count, processes, network, batch, pairs)
    net = build(network, shape=(1, 28, 28), classes=10, seed=0)
    layers = multiply_adds(net, torch.zeros(1, 1, 28, 28))
    forward, first = sum(layers), layers[0]
    weights = sum(math.prod(p.shape) for p in net.parameters())
    (plain, plain_bytes), (clip, clip_bytes) = found["plain"], found["clip"]
    step = (3 * forward - first) * batch / processes
    extra = 4 * forward * pairs / processes + 2 * (3 * forward - first)
    reduced = 8 * weights * (processes - 1)  # of all processes together
    return (
        network,
        f"{processes}, {batch}, {pairs}",
        f"{step / 1e6:.2f}, {plain / 1e6:.2f}",
        f"{extra / 1e6:.2f}, {(clip - plain) / 1e6:.2f}",
        f"{extra / step:.3f}, {clip / plain - 1:.3f}",
        f"{reduced / 1e6:.3f}, {plain_bytes / 1e6:.3f}" if processes > 1 else "",
        f"{48 * processes}, {clip_bytes - plain_bytes:.0f}" if processes > 1 else "",
    )


def main() -> None:
    """Count all and print the table."""
    cases = [(network, n, *size) for network, n, size in product(NETWORKS, (1, 2), SIZES)]
    heads = (
        "network",
        "N, B, P",
        "plain, 10⁶ multiply-adds",
        "extra",
        "extra / plain",
        "all-reduce, MB",
        "extra, bytes",
    )
    title = "A step: what the model says, what was counted; multiply-adds of one process, bytes of all"
    table = Table(title, heads, tuple(row_of(*case) for case in cases))
    table.show()
    print(table.markdown())


if __name__ == "__main__":
    main()
