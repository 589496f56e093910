"""What an evaluation found: accuracies, their intervals, a table, the entries of a result file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, final

from torch import Tensor

from cheaplip.counting import wilson


@final
@dataclass(frozen=True, eq=False)
class Result:
    """How a model fared against one attack, or on clean images.

    Args:
        name: the attack's name: ``clean``, or the key of ``attacks`` up to an ``@``.
        label: the attack in words.
        robust: for each image whether it was classified correctly, booleans ``(images,)`` on the CPU.
        norm: 1, 2, inf, or None where the attack knows no norm.
        eps: the radius in units of the input, or None where there is none.
        sigma: the standard deviation of noise, or None.
        steps: gradient steps of a run, or None.
        restarts: runs per loss, or None.
        weak: whether the attack is known to overstate robustness.
        proven: whether it is a proof, below the truth, where an attack is above it.
        seconds: how long the attack took.
        distance: for each image a bound on the smallest change that breaks it, in the norm, ``(images,)``: an attack's
            that makes it small (0 where the clean image is misclassified, inf where none was found), from above; a
            proof's, from below. None where that was not looked for.
        queries: how often a closed-box attack asked, on average per image, or None.
        closed: whether the attack saw no more than answers.
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
    proven: bool = False
    seconds: float = 0.0
    distance: Tensor | None = field(default=None, repr=False)
    queries: float | None = None
    closed: bool = False

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

    @property
    def median(self) -> float | None:
        """The median of the distances of an attack; None where there are none, or it is infinite."""
        if self.distance is None or self.proven:
            return None
        middle = float(self.distance.double().quantile(0.5, interpolation="lower"))
        return middle if middle < math.inf else None

    def within(self, eps: float) -> Result:
        """Return what an attack that makes the change small found within a radius.

        Args:
            eps: in units of the input.

        Raises:
            ValueError: if there are no distances.
        """
        if self.distance is None:
            raise ValueError(f"{self.name} did not look for the smallest change: it has no distances")
        return replace(self, eps=eps, robust=self.distance > eps)

    def entry(self) -> dict[str, Any]:
        """Return what a result file says of it; what does not apply is absent."""
        said = {
            "attack": self.name,
            "norm": None if self.norm is None else f"{self.norm:g}",
            "eps": self.eps,
            "sigma": self.sigma,
            "steps": self.steps,
            "restarts": self.restarts,
            "weak": self.weak or None,
            "proven": self.proven or None,
            "queries": self.queries,
            "median": self.median,
            "images": self.images,
            "accuracy": self.accuracy,
            "interval": list(self.interval),
        }
        return {key: value for key, value in said.items() if value is not None}


@final
class Results(Mapping[str, Result]):
    """The results by the keys of ``attacks``, ``clean`` first; as text, a table.

    Args:
        results: the results by key.
        doubts: reasons, if any, not to trust attacks along the gradient on this model; the table ends with them.
    """

    def __init__(self, results: Mapping[str, Result], doubts: Iterable[str] = ()) -> None:
        self._results = dict(results)
        self.doubts = tuple(doubts)

    def __getitem__(self, name: str) -> Result:
        """Return the result of a key."""
        if name not in self._results:
            raise KeyError(f"no result {name!r}: there are {', '.join(self._results)}")
        return self._results[name]

    def __iter__(self) -> Iterator[str]:
        """Go through the keys."""
        return iter(self._results)

    def __len__(self) -> int:
        """Count the results."""
        return len(self._results)

    def entries(self) -> list[dict[str, Any]]:
        """Return one dictionary per attack, as under ``robust`` in ``result.json``; ``clean`` is not among them."""
        return [result.entry() for key, result in self.items() if key != "clean"]

    def __str__(self) -> str:
        """Return the table."""
        rows = [("", "accuracy", "95 % interval", "images", "seconds", "")]
        for key, r in self.items():
            low, high = (f"{100 * end:.1f}" for end in r.interval)
            rows.append(
                (key, f"{100 * r.accuracy:.1f} %", f"{low} to {high}", f"{r.images}", f"{r.seconds:.1f}", _words(r))
            )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = []
        for row in rows:
            numbers = [cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1], strict=True)]
            lines.append("  ".join([row[0].ljust(widths[0]), *numbers, row[-1]]).rstrip())
        return "\n".join([*lines, *(f"doubt: {doubt}" for doubt in self.doubts)])

    __repr__ = __str__


def _words(result: Result) -> str:
    """Return an attack in words, with its median distance and number of queries where it has them."""
    said = [result.label]
    if result.median is not None:
        said.append(f"median {result.median:.3g}")
    if result.queries is not None:
        said.append(f"{result.queries:.0f} queries an image")
    if result.weak:
        said.append("" if "weak" in result.label else "weak")
    return ", ".join(filter(None, said))
