"""How accurate is f: on clean, noisy and attacked images, with intervals, and without trusting the attack."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from cheaplip.attacks import Threat, doubts
from cheaplip.modes import Model, evaluating, modules_of, unwrap

Batch: TypeAlias = "tuple[Tensor, Tensor]"
AnyAttack: TypeAlias = Callable[[Model, Tensor, Tensor], Tensor]

_Z95 = 1.959963984540054  # the 97.5 % point of the normal distribution


def wilson(correct: int, images: int) -> tuple[float, float]:
    """Return the 95 % interval of a fraction, by Wilson's score.

    Args:
        correct: how many were right, from 0 to ``images``.
        images: how many there were, at least 1.

    Raises:
        ValueError: for counts out of range.

    Reference: Wilson 1927.

    Example:
        >>> [round(end, 3) for end in wilson(81, 100)]
        [0.722, 0.875]
    """
    if not 0 <= correct <= images or images < 1:
        raise ValueError(f"correct must lie in 0..images and images be at least 1; got {correct} of {images}")
    share, z2 = correct / images, _Z95**2 / images
    middle = (share + z2 / 2) / (1 + z2)
    half = math.sqrt(share * (1 - share) * z2 + z2**2 / 4) / (1 + z2)
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class Result:
    """How a model fared against one attack, or on clean images.

    ``robust`` holds for each image whether it was classified correctly, attacked or not: ``(images,)`` booleans on the
    CPU. ``seconds`` is the time of the attack. ``norm`` and ``eps`` are None where the attack has no such bound, ``steps``
    and ``restarts`` where it has no such thing; ``weak`` marks an attack that overstates robustness.
    """

    name: str
    label: str
    robust: Tensor = field(repr=False)
    norm: float | None = None
    eps: float | None = None
    sigma: float | None = None
    steps: int | None = None
    restarts: int | None = None
    weak: bool = False
    seconds: float = 0.0

    @property
    def images(self) -> int:
        """How many images."""
        return len(self.robust)

    @property
    def correct(self) -> int:
        """How many of them were right."""
        return int(self.robust.sum())

    @property
    def accuracy(self) -> float:
        """The fraction that was right."""
        return self.correct / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy."""
        return wilson(self.correct, self.images)

    def entry(self) -> dict[str, Any]:
        """Return what a result file says of it; what does not apply is absent."""
        made = {"attack": self.name, "norm": None if self.norm is None else f"{self.norm:g}", "eps": self.eps,
                "sigma": self.sigma, "steps": self.steps, "restarts": self.restarts, "weak": self.weak or None,
                "images": self.images, "accuracy": self.accuracy, "interval": list(self.interval)}  # fmt: skip
        return {key: value for key, value in made.items() if value is not None}


class Results(Mapping[str, Result]):
    """The results by name, ``clean`` first; ``str`` of it is a table.

    ``doubts`` holds reasons, if any, not to trust the attacks along the gradient on this model.
    """

    def __init__(self, results: Iterable[tuple[str, Result]], doubts: tuple[str, ...] = ()) -> None:
        self._results = dict(results)
        self.doubts = doubts

    def __getitem__(self, name: str) -> Result:
        if name not in self._results:
            raise KeyError(f"no result {name!r}: there are {', '.join(self._results)}")
        return self._results[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._results)

    def __len__(self) -> int:
        return len(self._results)

    def entries(self) -> list[dict[str, Any]]:
        """Return one dictionary per attack, as under ``robust`` in ``result.json``; ``clean`` is not among them."""
        return [result.entry() for name, result in self.items() if name != "clean"]

    def __str__(self) -> str:
        rows = [("", "accuracy", "95 % interval", "images", "seconds", "")]
        for name, r in self.items():
            low, high = r.interval
            rows.append((name, f"{100 * r.accuracy:.1f} %", f"{100 * low:.1f} to {100 * high:.1f}", str(r.images),
                         f"{r.seconds:.1f}", r.label))  # fmt: skip
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = []
        for first, *middle, last in rows:
            cells = [cell.rjust(width) for cell, width in zip(middle, widths[1:-1], strict=True)]
            lines.append("  ".join([first.ljust(widths[0]), *cells, last]).rstrip())
        return "\n".join([*lines, *(f"doubt: {doubt}" for doubt in self.doubts)])

    __repr__ = __str__


def evaluate(
    model: Model,
    loader: Any,
    attacks: Mapping[str, AnyAttack] | None = None,
    *,
    seed: int = 0,
    limit: int | None = None,
    batch_size: int = 1000,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> Results:
    """Measure the accuracy of a classifier on clean images and under attacks.

    The model runs in eval mode with frozen parameters, torch's random state is set aside, and all is restored. What
    an attack returns is checked against its threat and classified anew. An image that is misclassified clean counts as
    not robust under an attack with a radius; under noise the noisy image alone counts.

    Args:
        model: a module, or a callable, ``(n, *shape) -> (n, classes)`` logits.
        loader: batches ``(x, y)``: any iterable of them, a pair of tensors, a torch ``Dataset``, or an object with
            ``.x`` and ``.y``. Images are floating, labels whole numbers.
        attacks: name to attack, see :mod:`cheaplip.attacks`, or to any function ``(model, x, y) -> x_adv``. What follows
            an ``@`` in a name tells runs of one attack apart: ``pgd@1.5``.
        seed: of all random draws; the same seed gives the same bits, whatever other attacks there are.
        limit: how many images are attacked, the first of the loader; None for all. Clean accuracy is over all of them.
        batch_size: how many images at a time.
        device: where to compute; None for where the model's parameters are.
        progress: show a bar.

    Returns:
        The results by name, with ``clean`` always among them.

    Raises:
        ValueError: if an attack leaves its threat or returns NaN, if the model does, or for bad arguments.
        TypeError: for values instead of labels: this is about classification.

    Example:
        >>> from cheaplip.attacks import PGD
        >>> x, y = torch.rand(50, 2), torch.zeros(50, dtype=torch.int64)
        >>> r = evaluate(torch.nn.Linear(2, 2), (x, y), {"pgd": PGD(eps=0.1)}, limit=20)
        >>> r["clean"].images, r["pgd"].images
        (50, 20)
    """
    attacks = dict(attacks or {})
    _check_arguments(attacks, limit, batch_size)
    model, modules = unwrap(model), modules_of(model)
    device = _device_of(modules) if device is None else torch.device(device)
    right: dict[str, list[Tensor]] = {"clean": [], **{name: [] for name in attacks}}
    seconds = dict.fromkeys(right, 0.0)
    blind: tuple[str, ...] = ()
    seen = 0
    with _undisturbed(modules, seed), _bar(progress, limit, 1 + len(attacks)) as advance:
        for number, (x, y) in enumerate(_rebatched(_batches(loader, batch_size), batch_size, device)):
            started = time.perf_counter()
            clean = _classified(model, x, y, "the images")
            right["clean"].append(clean.cpu())
            seconds["clean"] += time.perf_counter() - started
            rest = len(x) if limit is None else min(len(x), limit - seen)
            seen += len(x)
            advance(len(x))
            for name, attack in attacks.items() if rest > 0 else ():
                threat = threat_of(attack)
                if number == 0 and threat.eps is not None and not blind:
                    blind = doubts(model, x[:rest], y[:rest])
                # Each batch of each attack has a seed of its own, so that attacks do not change each other's draws.
                torch.manual_seed(seed * 1_000_003 + number)
                started = time.perf_counter()
                x_adv = _attacked(name, attack, threat, model, x[:rest], y[:rest])
                seconds[name] += time.perf_counter() - started
                kept = _classified(model, x_adv, y[:rest], f"what {name} returned")
                right[name].append((kept if threat.eps is None else kept & clean[:rest]).cpu())
                advance(rest)
    if not seen:
        raise ValueError("there is nothing to evaluate: the loader gave no images")
    return Results(
        ((name, _result(name, attacks.get(name), torch.cat(found), seconds[name])) for name, found in right.items()), blind
    )
