"""The plot of the step's cost against the number of pairs, beside its floor."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Colours that colour-blind people tell apart (Okabe and Ito); markers and dashes say the same again.
STYLES = {
    "penalty": ("#D55E00", "s"),
    "joint": ("#0072B2", "o"),
    "joint, every=2": ("#009E73", "^"),
}
HORIZONTAL = "#CC79A7"


def draw(networks: Sequence[dict[str, Any]]) -> Figure:
    """Return a figure with a panel per network: median ratios, their quartiles, the floor.

    Args:
        networks: the entries under ``networks`` in ``step_cost.json``, one or more.
    """
    figure = Figure(figsize=(4.6 * len(networks), 4.8), layout="constrained")
    panels = figure.subplots(1, len(networks), squeeze=False)[0]
    for panel, entry in zip(panels, networks, strict=True):
        _fill(panel, entry)
    panels[0].set_ylabel("cost of a training step, in plain steps\n(median; bars: quartiles)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(5, 2 * len(networks)), frameon=False)
    return figure


def _fill(panel: Axes, entry: dict[str, Any]) -> None:
    rows = entry["rows"]
    counts = sorted({row["pairs"] for row in rows if row["name"] in STYLES})
    for name, (colour, marker) in STYLES.items():
        mine = sorted((row for row in rows if row["name"] == name), key=lambda row: int(row["pairs"]))
        ratios = [row["ratio"] for row in mine]
        panel.errorbar(
            [row["pairs"] for row in mine],
            [ratio["median"] for ratio in ratios],
            yerr=[[r["median"] - r["p25"] for r in ratios], [r["p75"] - r["median"] for r in ratios]],
            color=colour,
            marker=marker,
            capsize=3,
            label=name,
        )
        if name == "joint":
            floors = [row["floor"] for row in mine]
            panel.plot([row["pairs"] for row in mine], floors, "k--", label="floor of joint")
    beyond = []
    for row in rows:
        median = row["ratio"]["median"]
        if row["name"] == "one-step adversary":
            panel.axhline(median, color=HORIZONTAL, linestyle=":", label=row["name"])
        elif row["name"] not in STYLES and not row["name"].startswith("one-step adversary, "):
            beyond.append(f"{row['name']}: {median:.1f} ×")
    panel.set_title("\n".join([f"{entry['network']}, batch {entry['batch']}", *beyond]), fontsize=10)
    panel.set_xscale("log", base=2)
    panel.set_xticks(counts, [str(count) for count in counts])
    panel.set_xlabel("pairs P")
    panel.set_ylim(bottom=min(1.0, panel.get_ylim()[0]))
    panel.grid(alpha=0.3)


def render(figure: Figure, kind: str) -> bytes:
    """Return a figure as the bytes of a file, the same for the same figure.

    Args:
        figure: what to draw.
        kind: ``"svg"`` or ``"png"``.
    """
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "cheaplip"}):
        figure.savefig(buffer, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()
