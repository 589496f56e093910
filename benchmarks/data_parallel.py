"""What does Lipschitz training cost on several processes, beside plain data-parallel training?

    python benchmarks/data_parallel.py [--networks mlp:784-200-80-10,cnn] [--processes 1,2] [--seconds 60]

Blocks of plain steps and of steps with the penalty take turns, by the clock on the wall, since processes wait for each
other. "same minibatch": batch and pairs are divided among the processes; "same share": each has its own of full size.
"""

from __future__ import annotations

import argparse
import os
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from tables import Table
from timing import machine, summarise
from torch import multiprocessing as mp
from torch import nn

import cheaplip as cl
from cheaplip.models import build
from cheaplip.runs.processes import dissolve
from cheaplip.training.ranks import Ranks
from cheaplip.training.step import Step

BATCH, PAIRS, BLOCK = 128, 16, 20


def steps_of(network: str, fabric: Fabric, batch: int, pairs: int, block: int = BLOCK) -> dict[str, Callable[[], None]]:
    """Return blocks of plain steps and of steps with the penalty, as ``fit`` makes them, on a process's own data."""
    generator = torch.Generator().manual_seed(fabric.global_rank)
    x = torch.rand(8, batch, 1, 28, 28, generator=generator)
    y = torch.randint(10, (8, batch), generator=generator)
    ranks = Ranks(fabric)

    def step_with(penalties: list[Any]) -> Callable[[], None]:
        model = build(network, shape=(1, 28, 28), classes=10, seed=0)
        ranks.share([], penalties)
        controls = [cl.Discrepancy(penalty, target=0.5, step=1e-4) for penalty in penalties]
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
        step = Step(model, optimizer, nn.CrossEntropyLoss(), penalties, controls, None, ranks)
        turn = 0

        def steps() -> None:
            nonlocal turn
            for _ in range(block):
                turn = (turn + 1) % len(x)
                step(x[turn], y[turn])

        return steps

    penalty = cl.LipschitzPenalty.from_data(torch.rand(1000, 1, 28, 28), weight=0.01, pairs=pairs, box=(0.0, 1.0))
    return {"plain": step_with([]), "clip": step_with([penalty])}


def free_port() -> int:
    """Return a port of this machine that nobody listens at."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def joined(rank: int, count: int, port: int) -> Fabric:
    """Return a launched Fabric of one of several processes, of one thread each."""
    torch.set_num_threads(1)
    if count > 1:
        os.environ |= {"LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1"}
        os.environ |= {"MASTER_PORT": str(port), "NODE_RANK": "0", "GLOO_SOCKET_IFNAME": "lo"}
    fabric = Fabric(accelerator="cpu", devices=count, strategy="ddp" if count > 1 else "auto")
    fabric.launch()
    return fabric


def part() -> None:
    """Leave the others, once all have said what they had to say."""
    if dist.is_initialized():
        dist.barrier()
    dissolve()


def from_processes(work: Callable[..., None], count: int, *arguments: Any) -> Any:
    """Return what the first of several processes saved, where its last argument says."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "found.pt"
        mp.spawn(work, (count, free_port(), *arguments, file), nprocs=count)  # type: ignore[attr-defined, no-untyped-call]
        return torch.load(file, weights_only=True)


def measure(rank: int, count: int, port: int, network: str, divided: bool, seconds: float, file: Path) -> None:
    """Time both steps in one of several processes; the first writes what it found."""
    fabric = joined(rank, count, port)
    parts = count if divided else 1
    blocks = steps_of(network, fabric, BATCH // parts, PAIRS * count // parts)
    taken: dict[str, list[float]] = {name: [] for name in blocks}
    begun = time.perf_counter()
    going = torch.ones(1)
    while going:
        for name, block in blocks.items():
            fabric.barrier()
            started = time.perf_counter()
            block()
            taken[name].append((time.perf_counter() - started) / BLOCK)
        going.fill_(float(time.perf_counter() - begun < seconds or len(taken["plain"]) < 6))
        if count > 1:
            dist.broadcast(going, 0)
    if rank == 0:
        torch.save({name: values[1:] for name, values in taken.items()}, file)
    part()


def row_of(network: str, count: int, divided: bool, seconds: float) -> tuple[str, ...]:
    """Return a row of the table, from processes of their own."""
    taken = from_processes(measure, count, network, divided, seconds)
    ratios = [clip / plain for plain, clip in zip(taken["plain"], taken["clip"], strict=True)]
    ratio, plain, clip = summarise(ratios), summarise(taken["plain"]), summarise(taken["clip"])
    each = f"{BATCH // count if divided else BATCH}, {PAIRS // count if divided else PAIRS}"
    spread = f"{ratio.p25:.2f} to {ratio.p75:.2f}"
    times = (f"{1e3 * plain.median:.2f}", f"{1e3 * clip.median:.2f}")
    return network, str(count), each, *times, f"{ratio.median:.2f}", spread, str(ratio.count)


def main() -> None:
    """Measure all and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="mlp:784-200-80-10,cnn", help="names, joined by commas")
    parser.add_argument("--processes", default="1,2", help="how many, joined by commas")
    parser.add_argument("--seconds", type=float, default=60.0, help="of measuring per row (default: 60)")
    arguments = parser.parse_args()
    counts = [int(count) for count in arguments.processes.split(",")]
    cases = [
        (network, count, divided)
        for network in arguments.networks.split(",")
        for count in counts
        for divided in ((True, False) if count > 1 else (True,))
    ]
    rows = tuple(row_of(*case, arguments.seconds) for case in cases)
    heads = ("network", "processes", "batch, P of each", "plain ms", "CLIP ms", "CLIP / plain", "quartiles", "rounds")
    Table(f"A step of fit, one thread each, {machine()['cpu']}", heads, rows).show()


if __name__ == "__main__":
    main()
