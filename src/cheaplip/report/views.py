"""What the templates are filled with: the parts of a page, all numbers in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, final

from cheaplip.report import curves, words
from cheaplip.report.adversarial import Examples
from cheaplip.report.charts import Chart
from cheaplip.report.radii import robustness
from cheaplip.report.reading import Run
from cheaplip.report.steepest import Film
from cheaplip.report.words import number, percent
from cheaplip.settings import TrainSettings, settings_of

# Where a run lies, and how it is called, is no part of what it is.
_NOT_OF_THE_RUN = ("out", "resume")


@final
class Card(NamedTuple):
    """A key figure.

    Attributes:
        name: what it is.
        value: the figure.
        note: a smaller line.
    """

    name: str
    value: str
    note: str


@final
@dataclass(frozen=True)
class Pictures:
    """What is shown of a network's inputs; sentences stand where there is nothing to show.

    Args:
        films: of the steepest pairs.
        no_films: why there are none.
        examples: adversarial examples.
        no_examples: why there are none.
        box: where pairs stay, in words.
        eps: the radius of the examples' attack, in words.
        starts: where pairs start, in words.
        coloured: whether the images have colours.
    """

    films: Sequence[Film] = ()
    no_films: str = ""
    examples: Examples | None = None
    no_examples: str = ""
    box: str = ""
    eps: str = ""
    starts: str = ""
    coloured: bool = False


@final
@dataclass(frozen=True)
class View:
    """All that a page says of one run.

    Args:
        name: what it is called.
        key: what its ids begin with.
        about: what it is, name by name.
        cards: the key figures.
        doubts: reasons not to trust its attacks.
        training: curves over epochs.
        missing: sentences on curves that there are not.
        robustness: curves over the radius.
        attacks: the rows of the table of attacks.
        no_attacks: why there are none.
        pictures: pairs and examples.
        settings: rows of name, value and meaning.
        versions: what it was made with.
        seconds: what it took.
    """

    name: str
    key: str
    about: Sequence[tuple[str, str]]
    cards: Sequence[Card]
    doubts: Sequence[str]
    training: Sequence[Chart]
    missing: Sequence[str]
    robustness: Sequence[Chart]
    attacks: Sequence[Sequence[str]]
    no_attacks: str
    pictures: Pictures
    settings: Sequence[tuple[str, str, str]]
    versions: Sequence[tuple[str, str]]
    seconds: Sequence[tuple[str, str]] = field(default=())


def view_of(run: Run, pictures: Pictures) -> View:
    """Return what a page says of a run, its curves drawn."""
    training, missing = curves.training([run], run.key)
    robust = run.result.get("robust", [])
    why = "" if robust else "No attack has been run on this network yet: `cheaplip evaluate` adds what it finds."
    if run.config.classes is None:
        why = "This is a regression: attacks are for data with classes."
    return View(
        name=run.name,
        key=run.key,
        about=_about(run),
        cards=_cards(run),
        doubts=run.result.get("doubts", []),
        training=training,
        missing=missing,
        robustness=robustness([run], run.key),
        attacks=[_attack_row(entry) for entry in robust],
        no_attacks=why,
        pictures=pictures,
        settings=_settings(run),
        versions=[(str(name), str(version)) for name, version in run.config.versions.items()],
        seconds=[(name, words.seconds(value)) for name, value in run.result.get("seconds", {}).items()],
    )


def _about(run: Run) -> list[tuple[str, str]]:
    settings, epochs = run.settings, len(run.history)
    kept = run.result.get("kept", epochs)
    said = [("data", settings.data), ("model", str(settings.model)), ("penalty", settings.penalty)]
    if settings.adversary != "none":
        said.append(("adversary", settings.adversary))
    if "target" in run.result:
        said.append(("target", target_of(run)))
    said += [("seed", str(settings.seed)), ("epochs", str(epochs))]
    return said + ([] if kept == epochs else [("kept epoch", f"{kept:g}")])


def target_of(run: Run) -> str:
    """Return the target of a run in words, empty if there is none."""
    if "target" not in run.result:
        return ""
    target, held = run.result["target"], run.held
    if held == "accuracy":
        return percent(target)
    return f"{'penalty’s value' if held == 'value' else held} {number(target)}"


def _cards(run: Run) -> list[Card]:
    result, cards = run.result, []
    for key, shown in (("accuracy", percent), ("loss", number)):
        target = f"target {target_of(run)}" if "target" in result and run.held == key else ""
        figures = result.get(key, {})
        if "clean" in figures:
            cards.append(Card(f"Clean {key}", shown(figures["clean"]), "on the whole test set"))
        if "train" in figures:
            cards.append(Card(f"Training {key}", shown(figures["train"]), target))
    if (worst := words.strongest(result.get("robust", []))) is not None:
        note = f"strongest attack: {words.attack(worst)}; {worst['images']} images"
        interval = words.between(worst)
        note += f"; 95{words.SPACE}% interval {interval}" if interval else ""
        cards.append(Card("Robust accuracy", percent(worst["accuracy"]), note))
    return cards + _bounds(result.get("lipschitz", {})) + _weights(result)


def _bounds(lipschitz: dict[str, Any]) -> list[Card]:
    where = {"all": "over all space", "box": "within the box"}.get(str(lipschitz.get("domain")), "")
    cards = []
    if "lower" in lipschitz:
        note = ", ".join(filter(None, (words.norms(lipschitz), _said(lipschitz, "method"), where)))
        cards.append(Card("Lip, lower bound", f"≥ {number(lipschitz['lower'])}", note))
    if "upper" in lipschitz:
        cards.append(Card("Lip, upper bound", f"≤ {number(lipschitz['upper'])}", _said(lipschitz, "upper_method")))
    return cards


def _said(values: dict[str, Any], name: str) -> str:
    """Return a text if it is one."""
    return values[name] if isinstance(values.get(name), str) else ""


def _weights(result: dict[str, Any]) -> list[Card]:
    if several := result.get("weights"):
        return [Card(f"λ of the {name} penalty", number(value), "in the kept epoch") for name, value in several.items()]
    return [Card("λ", number(result["weight"]), "of the penalty, in the kept epoch")] if "weight" in result else []


def _attack_row(entry: dict[str, Any]) -> list[str]:
    steps = f"{entry['steps']:g}" if "steps" in entry else ""
    name = words.titled(entry)
    return [name, words.reach(entry), steps, f"{entry['images']:g}", percent(entry["accuracy"]), words.between(entry)]


def _settings(run: Run) -> list[tuple[str, str, str]]:
    rows = []
    for setting in settings_of(TrainSettings):
        if setting.name not in _NOT_OF_THE_RUN:
            value: Any = run.settings
            for part in setting.name.split("."):
                value = getattr(value, part)
            rows.append((setting.name, "null" if value is None else str(value), setting.about.text))
    shape = " × ".join(map(str, run.config.shape))
    rows.append(("input.shape", shape, "of one input"))
    return [*rows, ("input.classes", str(run.config.classes or "none"), "how many classes the data has")]
