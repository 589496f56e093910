"""Robustness: accuracy over the radius of attacks, of one run by attack, of several by run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, final

from cheaplip.report.charts import Axes, Chart, Line, Style, draw
from cheaplip.report.reading import Run
from cheaplip.report.words import NORMS, titled

_NOTE = "Bars are 95 % intervals; at radius 0 the accuracy is that of the whole test set."
_PROOF = " The truth lies between what is proven and what attacks leave."
_NORM_WORDS = {"1": "1-norm", "2": "2-norm", "inf": "maximum norm"}
_DASHED = 1


@final
class _Kind(NamedTuple):
    """Attacks that one curve is of."""

    norm: str
    attack: str
    weak: bool
    proven: bool

    @property
    def called(self) -> str:
        return titled(self._asdict())


def robustness(runs: Sequence[Run], key: str) -> list[Chart]:
    """Return a chart for each norm of one run's attacks, or for each attack of several runs; none without attacks.

    Args:
        runs: one or more.
        key: what ids begin with.
    """
    kinds = list(dict.fromkeys(_kind(entry) for run in runs for entry in _with_radius(run)))
    charts: list[Chart] = []
    for group in _groups(kinds, len(runs) > 1):
        norm, weak = group[0].norm, group[0].weak
        proven = any(kind.proven for kind in group)
        if len(runs) > 1:
            title = f"{group[0].called}, {_NORM_WORDS.get(norm, norm or 'norm not said')}"
            lines = [_line(run, group[0], run.name, Style(k, k, k, weak)) for k, run in enumerate(runs)]
        else:
            what = "Accuracy under attack and proven" if proven else "Accuracy under attack"
            title = f"{what}, {_NORM_WORDS.get(norm, norm or 'norm not said')}"
            lines = [_line(runs[0], kind, kind.called, _style_of(k, kind)) for k, kind in enumerate(group)]
        axes = Axes(f"radius ε, ‖δ‖{NORMS.get(norm, '')} ≤ ε", "accuracy on test images", share=True, whole=False)
        shown = [line for line in lines if line is not None]
        charts.append(draw(f"{key}-radius-{len(charts)}", title, shown, axes, note=_NOTE + _PROOF * proven))
    return charts


def _groups(kinds: Sequence[_Kind], several: bool) -> Iterator[list[_Kind]]:
    """Yield the kinds of attack that share a chart."""
    if several:
        yield from ([kind] for kind in kinds)
        return
    for norm in dict.fromkeys(kind.norm for kind in kinds):
        yield [kind for kind in kinds if kind.norm == norm]


def _with_radius(run: Run) -> list[dict[str, Any]]:
    return [entry for entry in run.result.get("robust", []) if "eps" in entry]


def _kind(entry: dict[str, Any]) -> _Kind:
    return _Kind(entry.get("norm", ""), entry["attack"], bool(entry.get("weak")), bool(entry.get("proven")))


def _style_of(place: int, kind: _Kind) -> Style:
    return Style(place, _DASHED if kind.weak else 0, place, kind.weak)


def _line(run: Run, kind: _Kind, label: str, style: Style) -> Line | None:
    found = sorted((e for e in _with_radius(run) if _kind(e) == kind), key=_radius)
    if not found:
        return None
    x, y = [e["eps"] for e in found], [e["accuracy"] for e in found]
    intervals: list[tuple[float, float] | None] = [tuple(e["interval"]) if "interval" in e else None for e in found]
    clean = run.result.get("accuracy", {}).get("clean")
    if clean is not None:
        x, y, intervals = [0.0, *x], [clean, *y], [None, *intervals]
    return Line(label, x, y, style, intervals)


def _radius(entry: dict[str, Any]) -> float:
    return float(entry["eps"])
