"""The training steps whose cost is compared, each with the least that its arithmetic can cost."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from arithmetic import adversarial_floor, authors_cost, clip_floor, multiply_adds
from authors import authors_penalty
from timing import Step
from torch import Tensor, nn

import cheaplip as cl
from cheaplip import models
from cheaplip.modes import frozen
from cheaplip.pairs.chains import chain_of
from cheaplip.pairs.motion import GROUPS
from cheaplip.penalties.lipschitz import LIFETIME

Objective = Callable[[nn.Module, Tensor, Tensor], Tensor]

SHAPE, CLASSES = (1, 28, 28), 10
WEIGHT = 0.05  # λ
EPS = 2.0  # of the adversaries, in the 2-norm
AUTHORS_PAIRS = 500
# Some pairs are renewed once in so many moves, which are timed together: else a round would meet all renewals or none.
RENEWAL = LIFETIME // GROUPS


@dataclass(frozen=True)
class Workload:
    """A network, and the minibatches that every version of the step sees.

    Args:
        network: as in ``cheaplip train --model``.
        model: the network; versions train copies of it.
        batches: minibatches ``(x, y)``, images in [0, 1].
        operations: multiply-adds of a forward of one sample, layer by layer.
    """

    network: str
    model: nn.Module
    batches: tuple[tuple[Tensor, Tensor], ...]
    operations: tuple[int, ...]

    @classmethod
    def make(cls, network: str, batch: int, device: torch.device | str = "cpu", count: int = 8) -> Workload:
        """Build a network and learnable random data: ten patterns, blurred by noise."""
        generator = torch.Generator().manual_seed(0)
        model = models.build(network, shape=SHAPE, classes=CLASSES)
        operations = multiply_adds(model, torch.zeros(1, *SHAPE))
        patterns = torch.rand(CLASSES, *SHAPE, generator=generator)
        batches = []
        for _ in range(count):
            y = torch.randint(CLASSES, (batch,), generator=generator)
            x = (patterns[y] + torch.rand(batch, *SHAPE, generator=generator)) / 2
            batches.append((x.to(device), y.to(device)))
        return cls(network, model.to(device), tuple(batches), tuple(operations))

    @property
    def batch(self) -> int:
        """B."""
        return len(self.batches[0][0])

    @property
    def share(self) -> float:
        """φ, the first layer's share of the multiply-adds of a forward."""
        return self.operations[0] / sum(self.operations)

    def floor(self, pairs: int, every: int = 1, *, shared: bool = True) -> float:
        """Return the least cost of a step with the penalty, in plain steps, see :func:`clip_floor`."""
        shared = shared and chain_of(self.model) is not None
        return clip_floor(self.batch, pairs, self.share, every, shared=shared)

    def pairs(self, count: int) -> tuple[Tensor, Tensor]:
        """Return X_Lip: images and their noisy copies, on the network's device."""
        generator = torch.Generator().manual_seed(1)
        u = torch.rand(count, *SHAPE, generator=generator)
        v = (u + 0.1 * torch.randn(u.shape, generator=generator)).clamp(0, 1)
        device = self.batches[0][0].device
        return u.to(device), v.to(device)

    def step(self, objective: Objective) -> Step:
        """Return a training step by SGD with momentum on a copy of the network."""
        model = copy.deepcopy(self.model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        batches = itertools.cycle(self.batches)

        def step() -> None:
            x, y = next(batches)
            optimizer.zero_grad()
            torch.autograd.backward(objective(model, x, y))
            optimizer.step()

        return step


@dataclass(frozen=True)
class Variant:
    """A version of the training step.

    Args:
        name: what tables call it.
        pairs: P; None where there are none.
        floor: its least cost in plain steps, if only multiply-adds took time.
        build: makes the step.
        period: after how many steps its work repeats.
    """

    name: str
    pairs: int | None
    floor: float
    build: Callable[[], Step]
    period: int = 1

    @property
    def key(self) -> str:
        """A name that no other version has."""
        return self.name if self.pairs is None else f"{self.name}, P = {self.pairs}"


CLIP = ("penalty", "joint", "joint, every=2")


def plain(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the loss of a plain step."""
    return F.cross_entropy(model(x), y)


def clip_variants(work: Workload, counts: Iterable[int], names: Iterable[str] = CLIP) -> list[Variant]:
    """Return CLIP by ``penalty(model)``, by ``penalty.joint`` and by that with ``every=2``, once per number of pairs.

    Args:
        work: network and data.
        counts: numbers of pairs, each at least 1.
        names: which of ``"penalty"``, ``"joint"`` and ``"joint, every=2"``.
    """

    def make(name: str, count: int) -> Variant:
        every = 2 if name.endswith("every=2") else 1

        def build() -> Step:
            u, v = work.pairs(count)
            penalty = cl.LipschitzPenalty(u, v, weight=WEIGHT, box=(0.0, 1.0), every=every)

            def separate(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
                term: Tensor = penalty(model)
                return plain(model, x, y) + term

            def joint(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
                logits, term = penalty.joint(model, x)
                return F.cross_entropy(logits, y) + term

            return work.step(separate if name == "penalty" else joint)

        floor = work.floor(count, every, shared=name != "penalty")
        return Variant(name, count, floor, build, every * RENEWAL)

    return [make(name, count) for count in counts for name in names]


def adversarial_variant(work: Workload, steps: int) -> Variant:
    """Return adversarial training with an adversary of so many steps."""
    attack = cl.attacks.PGD(EPS, 2, steps=steps, loss="cross-entropy", early_stop=False)
    if steps == 1:
        attack = cl.attacks.one_step(EPS)

    def objective(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return plain(model, attack(model, x, y), y)

    name = "one-step adversary" if steps == 1 else f"PGD-{steps} adversary"
    return Variant(name, None, adversarial_floor(steps, work.share), lambda: work.step(objective))


def both_variants(work: Workload, counts: Iterable[int]) -> list[Variant]:
    """Return CLIP with the one-step adversary: one after the other, and the pairs riding with it.

    The multiply-adds are the same; what riding saves is a forward and a backward of a few samples, with all that they
    cost beside arithmetic.

    Args:
        work: network and data.
        counts: numbers of pairs, each at least 1.
    """
    attack = cl.attacks.one_step(EPS)

    def make(count: int, riding: bool) -> Variant:
        def build() -> Step:
            penalty = cl.LipschitzPenalty(*work.pairs(count), weight=WEIGHT, box=(0.0, 1.0))

            def apart(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
                with frozen([model]):  # as in a training loop that knows nothing of the model
                    x = attack(model, x, y)
                logits, term = penalty.joint(model, x)
                return F.cross_entropy(logits, y) + term

            def together(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
                logits, term = penalty.joint(model, x, y, adversary=attack)
                return F.cross_entropy(logits, y) + term

            return work.step(together if riding else apart)

        floor = work.floor(count) + adversarial_floor(1, work.share) - 1
        return Variant(f"one-step adversary, joint{'' if riding else ' after it'}", count, floor, build, RENEWAL)

    return [make(count, riding) for count in counts for riding in (False, True)]


def authors_variant(work: Workload, pairs: int = AUTHORS_PAIRS) -> Variant:
    """Return CLIP with the operations of the paper's own code."""

    def objective(penalty: Callable[[nn.Module], Tensor]) -> Objective:
        return lambda model, x, y: plain(model, x, y) + WEIGHT * penalty(model)

    return Variant(
        f"{pairs} pairs, no input-only backward",
        pairs,
        authors_cost(work.batch, pairs, work.share),
        lambda: work.step(objective(authors_penalty(*work.pairs(pairs)))),
    )
