"""Long runs: does memory grow, does a step slow down, do graphs, tensors or file handles pile up?

``python tests/soak/long_run.py --steps 100000``: a small net with ``LipschitzPenalty.joint``, ``Discrepancy``, looked
at a hundred times; ``--fit`` instead trains through ``cheaplip.fit`` with a checkpoint after each epoch. Status 1 where
something grows.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import nn

import cheaplip as cl

LOOKS = 100
# Memory is flat if its slope over the run, from a tenth on, makes less than this of it.
FLAT = 2e6  # bytes


@final
@dataclass(frozen=True)
class Look:
    """What was seen after some steps.

    Args:
        step: so many were done.
        seconds: of the processor a step took since the last look, which other processes slow less than the clock.
        memory: resident, in bytes.
        handles: open files.
        tensors: that Python can reach.
        objects: that the collector knows.
    """

    step: int
    seconds: float
    memory: int
    handles: int
    tensors: int
    objects: int


def look(step: int, seconds: float) -> Look:
    """Count what could pile up."""
    gc.collect()
    objects = gc.get_objects()
    tensors = sum(issubclass(type(thing), torch.Tensor) for thing in objects)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    handles = len(list(Path("/proc/self/fd").iterdir()))
    return Look(step, seconds, pages * 4096, handles, tensors, len(objects))


def joint(steps: int, looks: int) -> Iterator[Look]:
    """Train with the penalty in the minibatch's forward, and look on the way."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 4))
    x = torch.rand(512, 20)
    y = (x[:, :4]).argmax(1)
    penalty = cl.LipschitzPenalty.from_data(x, weight=0.1, pairs=16, box=(0.0, 1.0))
    control = cl.Discrepancy(penalty, target=0.9, step=1e-3)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    criterion = nn.CrossEntropyLoss()
    every, begun = max(1, steps // looks), time.process_time()
    for step in range(1, steps + 1):
        rows = torch.randint(len(x), (64,))
        logits, lip = penalty.joint(net, x[rows])
        optimizer.zero_grad()
        (criterion(logits, y[rows]) + lip).backward()
        optimizer.step()
        control.step((logits.argmax(1) == y[rows]).double().mean())
        if step % every == 0:
            taken = (time.process_time() - begun) / every
            del logits, lip
            yield look(step, taken)
            begun = time.process_time()


def fitted(epochs: int) -> Iterator[Look]:
    """Train by ``fit`` with a checkpoint after each epoch, and look after each."""
    torch.manual_seed(0)
    x = torch.rand(512, 20)
    batches = [(part, part[:, :4].argmax(1)) for part in torch.split(x, 64)]
    net = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 4))
    penalty = cl.LipschitzPenalty.from_data(x, weight=0.1, pairs=16, box=(0.0, 1.0))
    seen: list[Look] = []
    begun = [time.process_time()]

    def measure(model: nn.Module) -> float:
        seen.append(look(len(batches) * (len(seen) + 1), (time.process_time() - begun[0]) / len(batches)))
        begun[0] = time.process_time()
        return 0.0

    with tempfile.TemporaryDirectory() as folder:
        cl.fit(
            net,
            batches,
            loss=nn.CrossEntropyLoss(),
            optimizer=torch.optim.SGD(net.parameters(), lr=0.05),
            epochs=epochs,
            penalty=penalty,
            control=cl.Discrepancy(penalty, target=0.9, step=1e-3),
            lower=measure,
            checkpoint=folder,
            progress=False,
        )
    yield from seen


def growth(looks: list[Look], name: str) -> float:
    """Return by how much a count grew from a tenth of the run to its end, by the line of least squares."""
    late = looks[len(looks) // 10 :]
    line = statistics.linear_regression([each.step for each in late], [float(getattr(each, name)) for each in late])
    return line.slope * (late[-1].step - late[0].step)


def told(looks: list[Look]) -> bool:
    """Print what was seen; tell whether nothing grew."""
    tenth = max(1, len(looks) // 10)
    first, last = looks[:tenth], looks[-tenth:]
    print(f"{looks[-1].step} steps, {len(looks)} looks; means of the first and of the last tenth")
    for name, scale, unit in (("seconds", 1e-3, "ms a step"), ("memory", 1e6, "MB"), *COUNTS):
        means = [statistics.fmean(getattr(each, name) for each in part) / scale for part in (first, last)]
        print(f"{name:8} {means[0]:12.4g} {means[1]:12.4g} {unit}")
    print(f"memory grew by {growth(looks, 'memory') / 1e6:.3f} MB from a tenth of the run to its end, by its slope")
    late = looks[tenth:]
    constant = all(len({getattr(each, name) for each in late}) == 1 for name in ("handles", "tensors"))
    return constant and growth(looks, "memory") < FLAT


COUNTS = (("handles", 1, "open files"), ("tensors", 1, "tensors"), ("objects", 1, "objects"))


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000, help="how many (100000)")
    parser.add_argument("--fit", action="store_true", help="through cheaplip.fit, with checkpoints")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    flat = told(list(fitted(chosen.steps // 8) if chosen.fit else joint(chosen.steps, LOOKS)))
    print("flat" if flat else "IT GROWS")
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
