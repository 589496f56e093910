"""What two processes compute together; run by the tests of data-parallel training, one process at a time."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any, final

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import cheaplip as cl
from cheaplip.data import BatchLoader
from cheaplip.penalties.ranks import spread
from cheaplip.runs.processes import dissolve
from cheaplip.training.sharded import states_of

CASES: dict[str, dict[str, Any]] = {
    "max": {},
    "mean of pairs": {"reduce": "mean"},
    "soft maximum": {"reduce": ("softmax", 0.3)},
    "squared": {"power": 2, "reduce": ("softmax", 0.3)},
    "capped": {"cap": 0.2, "power": 2, "reduce": "mean"},
    "other norms": {"p_in": "inf", "p_out": 1},
    "moved at times": {"every": 3, "reduce": "mean"},
}
CLASSES, FEATURES, PAIRS, BATCH = 3, 5, 8, 10


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4 * BATCH, FEATURES, generator=generator, dtype=torch.float64)
    return x, torch.randint(CLASSES, (len(x),), generator=generator)


def network(normalised: bool = False) -> nn.Module:
    torch.manual_seed(1)
    middle = [nn.BatchNorm1d(16)] if normalised else []
    return nn.Sequential(nn.Linear(FEATURES, 16), *middle, nn.Tanh(), nn.Linear(16, CLASSES)).double()


def penalty_for(**arguments: Any) -> cl.LipschitzPenalty:
    generator = torch.Generator().manual_seed(2)
    u, v = (torch.randn(PAIRS, FEATURES, generator=generator, dtype=torch.float64) for _ in range(2))
    return cl.LipschitzPenalty(u, v, weight=0.5, **{"renew": None, **arguments})


def steps(model: nn.Module, penalty: Any, batches: list[tuple[Tensor, Tensor]], joint: bool = True) -> dict[str, Any]:
    """Make training steps by hand; return every gradient, λ and value."""
    control = cl.Discrepancy(penalty, target=0.5, step=0.01)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found: dict[str, Any] = {"gradients": [], "weight": [], "value": []}
    for x, y in batches:
        if joint:
            output, term = penalty.joint(model, x)
        else:
            output, term = model(x), penalty(model)
        term, accuracy = cl.agree(penalty, term, output, y)
        optimizer.zero_grad()
        loss: Any = nn.functional.cross_entropy(output, y) + term
        loss.backward()
        optimizer.step()
        control.step(accuracy)
        found["gradients"].append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        found["weight"].append(penalty.weight.clone())
        found["value"].append(penalty.value.clone())
    return found


def halves(rank: int, count: int) -> list[tuple[Tensor, Tensor]]:
    x, y = data()
    return [(x[k : k + BATCH][rank::count], y[k : k + BATCH][rank::count]) for k in range(0, len(x), BATCH)]


def by_hand(rank: int, count: int) -> dict[str, Any]:
    """Run every case in a loop of the user's own, with DistributedDataParallel."""
    found = {}
    for name, arguments in CASES.items():
        for kind, normalised, joint in (("plain", False, True), ("apart", False, False), ("frozen norm", True, True)):
            model, penalty = network(normalised), penalty_for(**arguments)
            model.train(not normalised)
            spread(penalty, rank, count)
            parallel = nn.parallel.DistributedDataParallel(model) if count > 1 else model
            found[f"{name}, {kind}"] = steps(parallel, penalty, halves(rank, count), joint)
    return found


def fitted(fabric: Fabric, folder: Path | None = None, epochs: int = 3, **arguments: Any) -> dict[str, Any]:
    """Train with fit(), on a last minibatch that is smaller; return weights, λ and history."""
    x, y = data()
    model, penalty = network(), penalty_for(renew=arguments.pop("renew", None))
    if arguments.pop("shard", False):
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (fabric.world_size,))
        for layer in model.children():
            if isinstance(layer, nn.Linear):
                fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
    beside = arguments.pop("beside", None)
    control = cl.Discrepancy(beside or penalty, target=0.6, step=0.01)
    loader = arguments.pop("loader", None) or BatchLoader(x[:27], y[:27], BATCH, seed=3)
    history = cl.fit(
        model,
        loader,
        loss=arguments.pop("loss", nn.functional.cross_entropy),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        epochs=epochs,
        penalty=[penalty, beside] if beside else penalty,
        control=control,
        checkpoint=folder,
        fabric=fabric,
        **arguments,
    )
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in history]
    whole = states_of(model, torch.optim.SGD(model.parameters()))["model"].state_dict()
    state = {"weights": list(whole.values()), "weight": (beside or penalty).weight, "rows": rows}
    return state | {"points": penalty.pairs.points, "kept": history.kept}


# Penalties on the minibatch; of the first nothing is drawn, so that two processes can do what one does.
RIVALS: dict[str, Any] = {
    "Jacobian": lambda: cl.JacobianPenalty(weight=0.1, projections=None),
    "random Jacobian": lambda: cl.JacobianPenalty(weight=0.1),
    "ALP": lambda: cl.AdversarialLipschitzPenalty(weight=0.1, distance=0.5),
    "TRADES": lambda: cl.TradesPenalty(0.5, weight=1.0, steps=3, box=None),
}


def rivals(fabric: Fabric) -> dict[str, dict[str, Any]]:
    """Train with each penalty on the minibatch beside that on pairs; the last minibatch does not halve evenly."""
    return {name: fitted(fabric, beside=make()) for name, make in RIVALS.items()}


def score(model: nn.Module) -> float:
    """A score on which processes would not agree if each went by its own."""
    own = -1.0 if dist.is_initialized() and dist.get_rank() else 1.0
    weights = states_of(model, torch.optim.SGD(model.parameters()))["model"].state_dict()
    return own * float(next(iter(weights.values())).sum())


@final
class Halting:
    """A loss in which one process hears Ctrl-C, in the midst of an epoch."""

    def __init__(self, at: int, here: bool) -> None:
        self.calls, self.at, self.here = 0, at, here

    def __call__(self, output: Tensor, y: Tensor) -> Tensor:
        self.calls += 1
        if self.here and self.calls == self.at:
            signal.raise_signal(signal.SIGINT)
        return nn.functional.cross_entropy(output, y)


def tie(rank: int, count: int) -> list[float]:
    """Return the factors of two processes whose quotients are equal."""
    penalty = penalty_for()
    penalty.pairs.points.copy_(penalty.pairs.points[:1].expand_as(penalty.pairs.points).clone())
    penalty.pairs.points[PAIRS:] += 1.0
    spread(penalty, rank, count)
    model = network()
    output, term = penalty.joint(model, data()[0][:4])
    scaled, _ = cl.agree(penalty, term, output, data()[1][:4])
    return [float((scaled / term).detach())]


def main(out: Path) -> None:
    """Compute all, and save what this process found."""
    torch.set_num_threads(1)
    count = int(os.environ.get("WORLD_SIZE", "1"))
    fabric = Fabric(accelerator="cpu", devices=count, strategy="ddp" if count > 1 else "auto")
    fabric.launch()
    rank = fabric.global_rank
    found: dict[str, Any] = {"by hand": by_hand(rank, count), "fit": fitted(fabric), "tie": tie(rank, count)}
    found["in parts"] = fitted(fabric, accumulate=3)
    whole, stopped = out / f"whole-{count}", out / f"stopped-{count}"
    found["whole"] = fitted(fabric, whole, epochs=4, renew=3, select=score)
    fitted(fabric, stopped, epochs=2, renew=3, select=score)
    found["resumed"] = fitted(fabric, stopped, epochs=4, renew=3, select=score, resume=True)
    halted = out / f"halted-{count}"
    try:
        fitted(fabric, halted, epochs=4, renew=3, select=score, loss=Halting(4, rank == count - 1))
    except KeyboardInterrupt as stop:
        found["halted"] = str(stop)
    found["gone on"] = fitted(fabric, halted, epochs=4, renew=3, select=score, resume=True)
    if count > 1:
        found["sharded"] = fitted(fabric, shard=True)
        found["sharded in parts"] = fitted(fabric, shard=True, accumulate=3)
        found["sharded, whole"] = fitted(fabric, out / "shards", epochs=4, renew=3, select=score, shard=True)
        fitted(fabric, out / "stopped shards", epochs=2, renew=3, select=score, shard=True)
        again: dict[str, Any] = {"epochs": 4, "renew": 3, "select": score, "shard": True, "resume": True}
        found["sharded, resumed"] = fitted(fabric, out / "stopped shards", **again)
    found["mean of gradients"] = fitted(fabric, gradient="mean")
    found["rivals"] = rivals(fabric)
    x, y = data()
    several = DataLoader(TensorDataset(x, y), batch_size=BATCH // count)
    found["loader"] = fitted(fabric, loader=several)["rows"]
    torch.save(found, out / f"{count}-{rank}.pt")
    if dist.is_initialized():
        dist.barrier()
    dissolve()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
