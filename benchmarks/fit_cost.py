"""What ``cheaplip.fit`` adds to the same loop written by hand: an epoch of each, in turn, on one thread."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
from tables import Table, progress
from timing import interleave, machine, summarise
from torch import nn

import cheaplip as cl
from cheaplip.data import BatchLoader
from cheaplip.models import build

NETWORKS = ("mlp:784-64-64-10", "mlp:784-200-80-10")
BATCHES = 100


def epochs(network: str) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return an epoch by hand and one by ``fit``, each with a model, pairs and control of its own."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(128 * BATCHES, 1, 28, 28, generator=generator)
    loader = BatchLoader(x, torch.randint(10, (len(x),), generator=generator), 128)
    criterion = nn.CrossEntropyLoss()

    def parts() -> tuple[nn.Module, torch.optim.SGD, cl.LipschitzPenalty, cl.Discrepancy]:
        model = build(network, shape=(1, 28, 28), classes=10)
        penalty = cl.LipschitzPenalty.from_data(x[:1000], weight=0.05, pairs=16, box=(0.0, 1.0))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        return model, optimizer, penalty, cl.Discrepancy(penalty, target=0.5, step=1e-4)

    model, optimizer, penalty, control = parts()

    def by_hand() -> None:
        model.train()
        for images, labels in loader:
            logits, reg = penalty.joint(model, images)
            optimizer.zero_grad()
            torch.autograd.backward(criterion(logits, labels) + reg)
            optimizer.step()
            control.step((logits.argmax(1) == labels).sum() / len(labels))

    own_model, own_optimizer, own_penalty, own_control = parts()

    def by_fit() -> None:
        cl.fit(
            own_model,
            loader,
            loss=criterion,
            optimizer=own_optimizer,
            epochs=1,
            penalty=own_penalty,
            control=own_control,
            progress=False,
        )

    return by_hand, by_fit


def main() -> None:
    """Measure each network and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=40.0, help="of measuring per network (default: 40)")
    seconds = parser.parse_args().seconds
    torch.set_num_threads(1)
    rows = []
    with progress() as show:
        for network in NETWORKS:
            by_hand, by_fit = epochs(network)
            timed = interleave(by_hand, {"fit": (by_fit, 1)}, seconds=seconds, warmup=1, tick=partial(show, network))[
                "fit"
            ]
            ratio, step = summarise(timed.ratios()), summarise(timed.base)
            spread = f"{ratio.p25:.3f} to {ratio.p75:.3f}"
            rows.append(
                (network, f"{1e3 * step.median / BATCHES:.2f}", f"{ratio.median:.3f}", spread, str(ratio.count))
            )
    heads = ("network", "ms per step by hand", "fit / by hand", "quartiles", "rounds")
    Table(f"fit against the joint loop, batch 128, P = 16, {machine()['cpu']}", heads, tuple(rows)).show()


if __name__ == "__main__":
    main()
