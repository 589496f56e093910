"""Run a model on clean and attacked images without trusting the attack, and leave no trace."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from cheaplip.attacks.protocol import checked_eps
from cheaplip.checks import several
from cheaplip.evaluation.attacking import (
    AnyAttack,
    Cache,
    Outcome,
    attacked,
    classified,
    is_minimal,
    threat_of,
)
from cheaplip.evaluation.batches import batches, count
from cheaplip.evaluation.certified import certified, radii_of
from cheaplip.evaluation.doubting import contradictions, probed, refuted
from cheaplip.evaluation.results import Result, Results
from cheaplip.evaluation.surroundings import bar, device_of, undisturbed
from cheaplip.modes import Model, modules_of, unwrap


def evaluate(
    model: Model,
    loader: Any,
    attacks: Mapping[str, AnyAttack] | None = None,
    *,
    radii: Sequence[float] | Mapping[str, Sequence[float]] = (),
    seed: int = 0,
    limit: int | None = None,
    certify: bool | Sequence[float] = False,
    batch_size: int = 1000,
    device: torch.device | str | None = None,
    progress: bool = False,
    modules: Iterable[nn.Module] | None = None,
    doubt: bool = True,
    cache: Cache | None = None,
) -> Results:
    """Measure the accuracy of a classifier on clean images and under attacks.

    The model runs in eval mode with frozen parameters, random states are set aside, and all is restored. What an attack
    returns is checked against its threat and classified anew. An image that is misclassified clean counts as not robust
    under an attack with a radius; under noise the noisy image alone counts. A closed-box attack gets a function that
    counts its questions instead of the model.

    Args:
        model: a module, or a callable, ``(n, *shape) -> (n, classes)`` logits.
        loader: any iterable of batches ``(x, y)``, a pair of tensors, a torch ``Dataset``, or an object with ``.x`` and
            ``.y``. Images are floating, labels whole numbers.
        attacks: attacks by name, see :mod:`cheaplip.attacks`; any function ``(model, x, y) -> x_adv`` is one. What
            follows an ``@`` in a name tells runs of one attack apart: ``pgd@1.5``.
        radii: where attacks that make the change small, such as DDN, are read off: each runs once, and has a result for
            every radius, named ``ddn@1``. With none it has one: images that it broke at no distance. For all such
            attacks, or by their names.
        seed: of all random draws; the same seed gives the same bits, whatever other attacks there are.
        limit: how many images are attacked, the first of the loader; None for all. Clean accuracy is over all images.
        certify: prove as well how many of the attacked images no change of a radius can alter, see
            :func:`cheaplip.lipschitz.certify`: the radii, or True for those of the attacks in the 2-norm. Results are
            named ``certified@1``; the truth lies between them and the attacks.
        batch_size: how many images at a time; halved for an attack that runs out of a GPU's memory.
        device: where the model is; None for where its parameters are.
        progress: show a bar on standard error.
        modules: the modules that a callable uses, if they cannot be read off what it refers to.
        doubt: try on the first images whether the attacks can be believed on this model; see ``Results.doubts``.
        cache: keeps what is found batch by batch.

    Returns:
        The results by name, ``clean`` always among them.

    Raises:
        ValueError: if an attack leaves its threat or returns NaN, if the model does, or for bad arguments; if an attack
            breaks what is proven, which would be a fault of cheaplip.
        TypeError: for values instead of labels: this is about classification; with ``certify``, naming a module that no
            proof covers.

    Example:
        >>> from cheaplip.attacks import PGD
        >>> x, y = torch.rand(50, 2), torch.zeros(50, dtype=torch.int64)
        >>> r = evaluate(torch.nn.Linear(2, 2), (x, y), {"pgd": PGD(eps=0.1)}, limit=20)
        >>> r["clean"].images, r["pgd"].images
        (50, 20)
    """
    attacks = _named(attacks)
    _check_arguments(attacks, seed, limit, batch_size, cache)
    reads = {name: _read_off(name, radii) for name, attack in attacks.items() if is_minimal(attack)}
    proofs = radii_of(certify, attacks, reads)
    used = modules_of(model, modules)
    place = device_of(used) if device is None else _device(device)
    total = count(loader)
    if total is not None:
        total += len(attacks) * min(total, total if limit is None else limit)
    tally = _Tally(unwrap(model), attacks, seed, keep=bool(proofs), doubt=doubt, cache=cache)
    with undisturbed(used, seed, place), bar(progress, total) as advance:
        for number, (x, y) in enumerate(batches(loader, batch_size, place)):
            rest = len(x) if limit is None else max(0, min(len(x), limit - number * batch_size))
            tally.batch(number, x, y, rest, advance)
        found = tally.results(reads)
        proven = certified(model, *tally.kept(), proofs) if proofs else {}
    refuted({**found, **proven})
    return Results({**found, **proven}, (*tally.doubts, *contradictions(found)) if doubt else ())


@final
class _Tally:
    """What was right so far, clean and under each attack."""

    def __init__(
        self,
        model: Model,
        attacks: dict[str, AnyAttack],
        seed: int,
        *,
        keep: bool,
        doubt: bool,
        cache: Cache | None,
    ) -> None:
        self.model, self.attacks, self.seed, self.keep, self.doubt = model, attacks, seed, keep, doubt
        self.cache = cache
        self.pairs: list[tuple[Tensor, Tensor]] = []
        self.clean: list[Tensor] = []
        self.seconds = 0.0
        self.found: dict[str, list[Outcome]] = {name: [] for name in attacks}
        self.doubts: tuple[str, ...] = ()

    def batch(self, number: int, x: Tensor, y: Tensor, limit: int, advance: Callable[[int], None]) -> None:
        """Classify a batch, attack the first ``limit`` of it, and classify what comes back."""
        started = time.perf_counter()
        clean = classified(self.model, x, y, "on the images")
        self.clean.append(clean.cpu())
        self.seconds += time.perf_counter() - started
        advance(len(x))
        if not limit:
            return
        x, y, clean = x[:limit], y[:limit], clean[:limit]
        if self.keep:
            self.pairs.append((x.cpu(), y.cpu()))
        if number == 0 and self.doubt:
            self.doubts = probed(self.model, x, y, self.attacks, self.seed)
        for name, attack in self.attacks.items():
            outcome = None if self.cache is None else self.cache.get(name, attack, number, limit)
            if outcome is None:
                # Each batch has a seed of its own, so that attacks do not change each other's draws.
                seed = self.seed * 1_000_003 + number
                outcome = attacked(name, attack, self.model, x, y, clean, seed)
                if self.cache is not None:
                    self.cache.put(name, attack, number, outcome)
            self.found[name].append(outcome)
            advance(limit)

    def kept(self) -> tuple[Tensor, Tensor]:
        """Return the images that were attacked, and their labels."""
        x, y = (torch.cat(part) for part in zip(*self.pairs, strict=True))
        return x, y

    def results(self, radii: Mapping[str, Sequence[float]]) -> dict[str, Result]:
        """Return all that was counted."""
        if not self.clean:
            raise ValueError("there is nothing to evaluate: the loader gave no images")
        found = {"clean": Result("clean", "clean", torch.cat(self.clean), seconds=self.seconds)}
        for key, attack in self.attacks.items():
            result = _joined(key.partition("@")[0], attack, self.found[key])
            if radii.get(key):
                found |= {f"{key}@{eps:g}": result.within(eps) for eps in radii[key]}
            else:
                found[key] = result
        return found


def _joined(name: str, attack: AnyAttack, outcomes: Sequence[Outcome]) -> Result:
    """Return the result of an attack on all batches."""
    threat = threat_of(attack)
    robust = torch.cat([outcome.robust for outcome in outcomes])
    distances = [outcome.distance for outcome in outcomes if outcome.distance is not None]
    queries = [outcome.queries for outcome in outcomes if outcome.queries is not None]
    return Result(
        name,
        getattr(attack, "label", name),
        robust,
        norm=threat.norm,
        eps=threat.eps,
        sigma=getattr(attack, "sigma", None),
        steps=getattr(attack, "steps", None),
        restarts=getattr(attack, "restarts", None),
        weak=getattr(attack, "weak", False),
        seconds=sum(outcome.seconds for outcome in outcomes),
        distance=torch.cat(distances) if distances else None,
        queries=sum(queries) / len(robust) if queries else None,
        closed=bool(queries),
    )


def _read_off(name: str, radii: Sequence[float] | Mapping[str, Sequence[float]]) -> list[float]:
    """Return the radii for one attack."""
    mine = radii.get(name, ()) if isinstance(radii, Mapping) else radii
    return [checked_eps(eps, "each of radii") for eps in several(mine, "radii", "numbers above 0")]


def _named(attacks: Mapping[str, AnyAttack] | None) -> dict[str, AnyAttack]:
    if attacks is not None and not isinstance(attacks, Mapping):
        raise TypeError(f"attacks must be attacks by name, a dictionary, or None; got {type(attacks).__name__}")
    return dict(attacks or {})


def _device(device: torch.device | str) -> torch.device:
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f'device must be one that torch knows, such as "cpu" or "cuda"; got {device!r}') from error


def _check_arguments(
    attacks: dict[str, AnyAttack], seed: int, limit: int | None, batch_size: int, cache: Cache | None
) -> None:
    if "clean" in attacks:
        raise ValueError('the name "clean" is taken by the accuracy without attack: rename that attack')
    for name, attack in attacks.items():
        if not callable(attack):
            raise TypeError(f"attack {name!r} must be callable as attack(model, x, y); got {type(attack).__name__}")
    if cache is not None and not (hasattr(cache, "get") and hasattr(cache, "put")):
        raise TypeError(f"cache must have get and put, or be None; got {type(cache).__name__}")
    for what, value, least in (("seed", seed, 0), ("limit", limit, 1), ("batch_size", batch_size, 1)):
        wanted = what != "limit" or value is not None
        if wanted and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise ValueError(f"{what} must be a whole number of at least {least}; got {value!r}")
