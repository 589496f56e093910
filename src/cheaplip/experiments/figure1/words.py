"""What was found, as JSON, and as a table with remarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cheaplip.data import class_names
from cheaplip.experiments.figure1.search import IMAGES, PAIRS, SURE, UNSURE, UPDATES, Climb
from cheaplip.experiments.outcome import Outcome
from cheaplip.runs import read_config, read_result

SEARCHES = {"ascent": "steps of given length along the gradient", "paper": "the paper's steps τ L ∇L"}


def percent(share: float) -> str:
    """Return a share for a caption; nothing is called certain or impossible.

    Example:
        >>> percent(0.577), percent(0.99996)
        ('57.7 %', '> 99.9 %')
    """
    if share > 0.999:
        return "> 99.9 %"
    return "< 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"


def described(climbs: Sequence[Climb], run: Path, weights: str) -> dict[str, Any]:
    """Return all that ``figure1.json`` says.

    Args:
        climbs: what was found; the first one is shown.
        run: the folder of the network.
        weights: the SHA-256 of its weights.
    """
    shown, config, result = climbs[0], read_config(run), read_result(run)
    names = class_names(config.settings.data, config.classes or 0)
    moments = [_moment(shown, update, names) for update in range(len(shown.quotients))]
    after = moments[-1]
    exchanged = after["classes"] == [names[label] for label in reversed(shown.labels)]
    unsure = all(confidence < UNSURE for confidence in after["confidences"])
    network = {"run": str(run), "weights": weights, "penalty": config.settings.penalty}
    network |= {key: result[key] for key in ("data", "model", "target", "seed", "epochs", "accuracy") if key in result}
    network |= {"weight": result["weight"]} if "weight" in result else {}
    return {
        "network": network,
        "search": searched(),
        "rule": _rule(shown),
        "pair": {"test_images": shown.images, "classes": [names[label] for label in shown.labels]},
        "way": _way(shown),
        "before": moments[0],
        "after": after,
        "as_in_paper": {
            "before": shown.bar >= SURE,
            "exchanged": exchanged,
            "below_30_percent": unsure,
            "all": shown.bar >= SURE and exchanged and unsure,
        },
        "ways": [_summary(climb, names) for climb in climbs],
        "updates": moments,
    }


def _rule(climb: Climb) -> str:
    sure = f" with over {climb.bar:.0%}" if climb.bar else ""
    closest = "the closest" if climb.pairs == PAIRS else "all"
    return (
        f"of the first {IMAGES} test images, those that the network is right about{sure}; of these, {closest} "
        f"{climb.pairs} pairs of different classes make {UPDATES} updates; shown is the one with the largest quotient "
        "at the end"
    )


def searched() -> dict[str, Any]:
    """Return the settings of the search; with others, everything is found anew."""
    return {"split": "test", "images": IMAGES, "pairs": PAIRS, "updates": UPDATES, "confidence": SURE}


def _way(climb: Climb) -> dict[str, Any]:
    return {"search": climb.way.search, "box": list(climb.box) if climb.way.boxed and climb.box else None}


def _moment(climb: Climb, update: int, names: Sequence[str]) -> dict[str, Any]:
    return {
        "update": update,
        "quotient": climb.quotients[update],
        "distance": climb.distances[update],
        "classes": [names[k] for k in climb.classes[update]],
        "confidences": climb.confidences[update],
    }


def _summary(climb: Climb, names: Sequence[str]) -> dict[str, Any]:
    return _way(climb) | {
        "test_images": climb.images,
        "smallest_distance": climb.smallest,
        "largest_quotient": climb.quotients[-1],
        "after": _moment(climb, len(climb.quotients) - 1, names),
        "values": [float(climb.points[-1].min()), float(climb.points[-1].max())],
        "pairs": climb.pairs,
        "exchanged_at_end": climb.exchanged,
        "exchanged_ever": climb.ever,
        "exchanged_below_30_percent": climb.unsure,
    }


def outcome(found: dict[str, Any], files: Sequence[Path]) -> Outcome:
    """Return what people are told.

    Args:
        found: what ``figure1.json`` says.
        files: what was written.
    """
    before, after = found["before"], found["after"]
    rows = [
        (
            f"image {found['pair']['test_images'][k]}, a {found['pair']['classes'][k]}",
            *(_taken(m, k) for m in (before, after)),
        )
        for k in (0, 1)
    ]
    rows.append(("distance", f"{before['distance']:.3g}", f"{after['distance']:.3g}"))
    rows.append(("quotient", f"{before['quotient']:.2f}", f"{after['quotient']:.2f}"))
    title = f"Figure 1: a pair of {found['network']['data']} test images under {after['update']} updates by Algorithm 1"
    remarks = [f"The rule: {found['rule']}.", *_compared(found), _network(found["network"])]
    return Outcome(title, ("", "before", "after"), rows, remarks, files)


def _taken(moment: dict[str, Any], k: int) -> str:
    return f"{moment['classes'][k]}, {percent(moment['confidences'][k])}"


def _compared(found: dict[str, Any]) -> list[str]:
    """Say whether it came out as in the paper, for the pair that is shown and for all, by each way to climb."""
    same, shown = found["as_in_paper"], found["way"]
    right = "as in the paper, both are right with over 90 %"
    if not same["before"]:
        right = (
            "not as in the paper: no images of two classes are right with over 90 %, so that less sure ones are shown"
        )
    each = "each takes the other's class with under 30 %"
    taken = " and ".join(_taken(found["after"], k) for k in (0, 1))
    end = f"as in the paper, {each}" if same["all"] else f"not as in the paper, where {each}: here they are {taken}"
    told = [f"Before: {right}. After: {end}."]
    for way in found["ways"]:
        is_shown = "; shown" if {key: way[key] for key in shown} == shown else ""
        where = "in the box" if way["box"] else "without a box"
        low, high = way["values"]
        told.append(
            f"By {SEARCHES[way['search']]}, {where}{is_shown}: largest quotient {way['largest_quotient']:.2f}, pixels "
            f"from {low:.3g} to {high:.3g}; of {way['pairs']} pairs {way['exchanged_ever']} take each other's class at "
            f"some update, {way['exchanged_below_30_percent']} of them with under 30 %."
        )
    return told


def _network(network: dict[str, Any]) -> str:
    weight = network.get("weight")
    text = f"The network: {network['model']} of {network['run']}, penalty {network['penalty']}"
    text += f" at a target of {percent(network['target'])}" if "target" in network else ""
    right = network["accuracy"]
    text += f", {percent(right['train'])} right in training and {percent(right['clean'])} in the test"
    if weight == 0 and "target" in network:
        text += "; λ was 0 in the kept epoch, since the target was not reached: plain training"
    elif weight is not None:
        text += f"; λ = {weight:.3g} in the kept epoch"
    return f"{text}."
