"""Run a model on clean and attacked images without trusting the attack, and leave no trace."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias, final

import torch
from torch import Tensor, nn

from cheaplip.attacks import Threat, doubts
from cheaplip.attacks.losses import check_classes, check_output
from cheaplip.evaluation.batches import batches, count
from cheaplip.evaluation.certified import certified, radii_of
from cheaplip.evaluation.results import Result, Results
from cheaplip.modes import Model, evaluating, modules_of, unwrap
from cheaplip.norms import vector_norm

# An attack, or any function (model, x, y) -> x_adv.
AnyAttack: TypeAlias = Callable[[Model, Tensor, Tensor], Tensor]


def evaluate(
    model: Model,
    loader: Any,
    attacks: Mapping[str, AnyAttack] | None = None,
    *,
    seed: int = 0,
    limit: int | None = None,
    certify: bool | Sequence[float] = False,
    batch_size: int = 1000,
    device: torch.device | str | None = None,
    progress: bool = False,
    modules: Iterable[nn.Module] | None = None,
) -> Results:
    """Measure the accuracy of a classifier on clean images and under attacks.

    The model runs in eval mode with frozen parameters, torch's random state is set aside, and all is restored. What
    an attack returns is checked against its threat and classified anew. An image that is misclassified clean counts as
    not robust under an attack with a radius; under noise the noisy image alone counts.

    Args:
        model: a module, or a callable, ``(n, *shape) -> (n, classes)`` logits.
        loader: any iterable of batches ``(x, y)``, a pair of tensors, a torch ``Dataset``, or an object with ``.x`` and
            ``.y``. Images are floating, labels whole numbers.
        attacks: attacks by name, see :mod:`cheaplip.attacks`; any function ``(model, x, y) -> x_adv`` is one. What
            follows an ``@`` in a name tells runs of one attack apart: ``pgd@1.5``.
        seed: of all random draws; the same seed gives the same bits, whatever other attacks there are.
        limit: how many images are attacked, the first of the loader; None for all. Clean accuracy is over all images.
        certify: prove as well how many of the attacked images no change of a radius can alter, see
            :func:`cheaplip.lipschitz.certify`: the radii, or True for those of the attacks in the 2-norm. Results are
            named ``certified@1``; the truth lies between them and the attacks.
        batch_size: how many images at a time.
        device: where the model is; None for where its parameters are.
        progress: show a bar on standard error.
        modules: the modules that a callable uses, if they cannot be read off what it refers to.

    Returns:
        The results by name, ``clean`` always among them.

    Raises:
        ValueError: if an attack leaves its threat or returns NaN, if the model does, or for bad arguments.
        TypeError: for values instead of labels: this is about classification; with ``certify``, naming a module that no
            proof covers.

    Example:
        >>> from cheaplip.attacks import PGD
        >>> x, y = torch.rand(50, 2), torch.zeros(50, dtype=torch.int64)
        >>> r = evaluate(torch.nn.Linear(2, 2), (x, y), {"pgd": PGD(eps=0.1)}, limit=20)
        >>> r["clean"].images, r["pgd"].images
        (50, 20)
    """
    attacks = dict(attacks or {})
    _check_arguments(attacks, seed, limit, batch_size)
    radii = radii_of(certify, attacks)
    used = modules_of(model, modules)
    place = _device_of(used) if device is None else torch.device(device)
    total = count(loader)
    if total is not None:
        total += len(attacks) * min(total, total if limit is None else limit)
    tally = _Tally(unwrap(model), attacks, seed, keep=bool(radii))
    with _undisturbed(used, seed, place), _bar(progress, total) as advance:
        for number, (x, y) in enumerate(batches(loader, batch_size, place)):
            rest = len(x) if limit is None else max(0, min(len(x), limit - number * batch_size))
            tally.batch(number, x, y, rest, advance)
        found = tally.results()
        proven = certified(model, *tally.kept(), radii) if radii else {}
    return Results({**found, **proven}, found.doubts)


@final
class _Tally:
    """What was right so far, clean and under each attack."""

    def __init__(self, model: Model, attacks: dict[str, AnyAttack], seed: int, *, keep: bool) -> None:
        self.model, self.attacks, self.seed, self.keep = model, attacks, seed, keep
        self.pairs: list[tuple[Tensor, Tensor]] = []
        self.right: dict[str, list[Tensor]] = {"clean": [], **{name: [] for name in attacks}}
        self.seconds = dict.fromkeys(self.right, 0.0)
        self.doubts: tuple[str, ...] = ()

    def batch(self, number: int, x: Tensor, y: Tensor, limit: int, advance: Callable[[int], None]) -> None:
        """Classify a batch, attack the first ``limit`` of it, and classify what comes back."""
        started = time.perf_counter()
        clean = _classified(self.model, x, y, "on the images")
        self.right["clean"].append(clean.cpu())
        self.seconds["clean"] += time.perf_counter() - started
        advance(len(x))
        if not limit:
            return
        x, y, clean = x[:limit], y[:limit], clean[:limit]
        if self.keep:
            self.pairs.append((x.cpu(), y.cpu()))
        if number == 0 and any(_threat_of(attack).eps is not None for attack in self.attacks.values()):
            self.doubts = doubts(self.model, x, y)
        for name, attack in self.attacks.items():
            started = time.perf_counter()
            # Each batch has a seed of its own, so that attacks do not change each other's draws.
            with _seeded(self.seed * 1_000_003 + number, x.device):
                x_adv = _attacked(name, attack, self.model, x, y)
            right = _classified(self.model, x_adv, y, f"on what {name} returned")
            # The clean image is among those that a bounded attack may return.
            self.right[name].append((right if _threat_of(attack).eps is None else right & clean).cpu())
            self.seconds[name] += time.perf_counter() - started
            advance(limit)

    def kept(self) -> tuple[Tensor, Tensor]:
        """Return the images that were attacked, and their labels."""
        x, y = (torch.cat(part) for part in zip(*self.pairs, strict=True))
        return x, y

    def results(self) -> Results:
        """Return all that was counted."""
        if not self.right["clean"]:
            raise ValueError("there is nothing to evaluate: the loader gave no images")
        found = {"clean": Result("clean", "clean", torch.cat(self.right["clean"]), seconds=self.seconds["clean"])}
        for key, attack in self.attacks.items():
            threat, name = _threat_of(attack), key.partition("@")[0]
            found[key] = Result(
                name,
                getattr(attack, "label", name),
                torch.cat(self.right[key]),
                norm=threat.norm,
                eps=threat.eps,
                sigma=getattr(attack, "sigma", None),
                steps=getattr(attack, "steps", None),
                restarts=getattr(attack, "restarts", None),
                weak=getattr(attack, "weak", False),
                seconds=self.seconds[key],
            )
        return Results(found, self.doubts)


def _threat_of(attack: AnyAttack) -> Threat:
    threat = getattr(attack, "threat", None)
    return threat if isinstance(threat, Threat) else Threat()


def _classified(model: Model, x: Tensor, y: Tensor, where: str) -> Tensor:
    with torch.no_grad():
        z = model(x)
    check_output(z, y, regression=False)
    check_classes(z, y)
    if bool(z.isnan().any()):
        raise ValueError(f"the model's output {where} is NaN: check its weights and the data")
    return z.argmax(1) == y


def _attacked(name: str, attack: AnyAttack, model: Model, x: Tensor, y: Tensor) -> Tensor:
    """Return what an attack made of the images, or raise if it was not allowed to."""
    x_adv = attack(model, x.clone(), y.clone())  # copies: an attack may write to what it gets
    if not isinstance(x_adv, Tensor) or x_adv.shape != x.shape:
        got = tuple(x_adv.shape) if isinstance(x_adv, Tensor) else type(x_adv).__name__
        raise ValueError(f"attack {name!r} must return images of shape {tuple(x.shape)}; got {got}")
    x_adv = x_adv.detach().to(x)
    if not bool(torch.isfinite(x_adv).all()):
        raise ValueError(f"attack {name!r} returned images that are not finite: check the model's gradients")
    threat = _threat_of(attack)
    allowed = threat.admits(x, x_adv)
    if not bool(allowed.all()):
        change = "" if threat.norm is None else f"; largest change {float(vector_norm(x_adv - x, threat.norm).max()):g}"
        raise ValueError(
            f"attack {name!r} left its threat (norm {threat.norm}, eps {threat.eps}, box {threat.box}) at "
            f"{int((~allowed).sum())} of {len(x)} images{change}: what it reports would not be comparable"
        )
    return x_adv


def _check_arguments(attacks: dict[str, AnyAttack], seed: int, limit: int | None, batch_size: int) -> None:
    if "clean" in attacks:
        raise ValueError('the name "clean" is taken by the accuracy without attack: rename that attack')
    for name, attack in attacks.items():
        if not callable(attack):
            raise TypeError(f"attack {name!r} must be callable as attack(model, x, y); got {type(attack).__name__}")
    for what, value, least in (("seed", seed, 0), ("limit", limit, 1), ("batch_size", batch_size, 1)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise ValueError(f"{what} must be a whole number of at least {least}; got {value!r}")


def _device_of(modules: Sequence[nn.Module]) -> torch.device | None:
    return next((p.device for module in modules for p in (*module.parameters(), *module.buffers())), None)


@contextmanager
def _seeded(seed: int, device: torch.device | None) -> Iterator[None]:
    """Set torch's random state aside and seed it; on the CPU, and on the GPU if that is where we compute."""
    on_gpu = device is not None and device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        # Not torch.manual_seed, which reseeds every GPU of the machine.
        torch.default_generator.manual_seed(seed % 2**63)
        if on_gpu:
            torch.cuda.default_generators[torch.empty(0, device=device).device.index].manual_seed(seed % 2**63)
        yield


@contextmanager
def _undisturbed(modules: Sequence[nn.Module], seed: int, device: torch.device | None) -> Iterator[None]:
    """Freeze the modules and torch's random state, and restore both."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(evaluating(*modules))
        stack.enter_context(_seeded(seed, device))
        if any(isinstance(layer, nn.RNNBase) for module in modules for layer in module.modules()):
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))  # it has no backward in eval mode
        yield


@contextmanager
def _bar(shown: bool, total: int | None) -> Iterator[Callable[[int], None]]:
    if not shown:
        yield lambda images: None
        return
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        raise ImportError('the progress bar needs rich: pip install "cheaplip[cli]", or set progress=False') from None
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("evaluating", total=total)
        yield lambda images: bar.advance(task, images)
