"""An enclosure as a picture: what each layer does, where the product of them loses, and what each proof is worth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from cheaplip.drawing import BLACK, BLUE, GREEN, GREY, ORANGE, SKY, styled
from cheaplip.lipschitz.layers import Layer
from cheaplip.runs.bounding.enclosure import Enclosure, outward

# From this ratio of the largest to the smallest number on, an axis is logarithmic.
WIDE = 8.0
# With more layers than this only some are named, and their numbers are left out.
NAMED = 45
# What the product and the proof look like.
LOOSE, TIGHT = (ORANGE, "s"), (BLUE, "o")


def draw(found: Enclosure) -> Figure:
    """Draw the interval; below it each layer's constant, and their product from the input on beside what is proven.

    Args:
        found: an enclosure with an upper bound.
    """
    rows = found.telling
    both = any(layer.proven is not None for layer in rows)
    above, below = 1.15 + 0.33 * (len(found.proofs) + 1), 0.9 + 0.27 * min(len(rows), NAMED)
    with styled():
        figure = Figure(figsize=(9.0, above + below + 0.9))
        ratio = "" if found.ratio is None else f": upper / lower = {found.ratio:.3g}"
        figure.suptitle(f"{found.name}\nLipschitz constant in the {found.where}{ratio}", fontsize=11)
        halves: Any = figure.subfigures(2, 1, height_ratios=(above, below))
        _interval(halves[0].subplots(), found)
        panels = halves[1].subplots(1, 1 + both, squeeze=False)[0]
        _constants(panels[0], rows)
        if both:
            _beginnings(panels[1], rows)
            marks = [Line2D([], [], color=colour, marker=marker, linestyle="") for colour, marker in (LOOSE, TIGHT)]
            words = ["product of the constants up to here", "proven up to here"]
            figure.legend(marks, words, loc="outside lower right", ncols=2, fontsize=8, handletextpad=0.1)
    return figure


def _interval(axes: Axes, found: Enclosure) -> None:
    """Draw how far each proof is from the pair that was found."""
    lower, best = found.lower.value, found.proofs[-1].bound.value
    uppers = [proof.bound for proof in found.proofs]
    drawn = [bound.value for bound in uppers if bound.value < math.inf]
    log = _scale(axes, [*drawn, lower, *([] if found.claim is None else [found.claim])])
    if best < math.inf:
        axes.axvspan(lower, best, color=GREEN, alpha=0.15, linewidth=0)
    for place, bound in enumerate(uppers):
        if bound.value < math.inf:
            colour = BLUE if bound.value == best else ORANGE
            axes.plot([lower, bound.value], [place] * 2, color=colour, linewidth=3, alpha=0.35, solid_capstyle="butt")
            axes.plot([bound.value], [place], "<", color=colour, markersize=8)
            _say(axes, bound.value, place, f"≤ {outward(bound.value, up=True, digits=4)}", 1)
    axes.plot([lower], [len(uppers)], ">", color=GREEN, markersize=8)
    _say(axes, lower, len(uppers), f"≥ {outward(lower, up=False, digits=4)}", 1)
    names = [*(f"upper: {bound.method}" for bound in uppers), f"lower: {found.lower.method}"]
    axes.set_yticks(range(len(names)), names)
    axes.margins(x=0.14)
    _downward(axes, len(names))
    axes.set_xlabel(f"Lip of the network{log}")
    if found.claim is not None:
        axes.axvline(found.claim, color=BLACK, linestyle=":", linewidth=1.4, zorder=0.9)
        words = f"claimed {found.claim:g}: {found.verdict}"
        side = "right" if found.claim > best else "left"
        axes.annotate(words, (found.claim, 1), (0, 3), ("data", "axes fraction"), "offset points", fontsize=8, ha=side)


def _constants(axes: Axes, rows: Sequence[Layer]) -> None:
    """Draw a bar for each layer."""
    places, values = range(len(rows)), [layer.constant for layer in rows]
    log, most = _scale(axes, values), max(values)
    left = min(values) / 2 if log else 0.0
    axes.barh(places, [value - left for value in values], left=left, color=SKY, height=0.6)
    axes.set_xlim(left, most * (most / left) ** 0.2 if log else 1.2 * most or 1.0)
    for place, value in zip(places, values, strict=True):
        _say(axes, value, place, f"{value:.3g}", len(rows))
    axes.set_title("each layer alone")
    axes.set_xlabel(f"its constant{log}")
    step = math.ceil(len(rows) / NAMED)
    axes.set_yticks(range(0, len(rows), step), [_called(layer) for layer in rows[::step]], fontsize=8)
    _downward(axes, len(rows))


def _called(layer: Layer) -> str:
    kind = "" if layer.kind == layer.name else f"  {layer.kind}"
    return f"{layer.name}{kind}  {'×'.join(map(str, layer.shape))}"


def _beginnings(axes: Axes, rows: Sequence[Layer]) -> None:
    """Draw how far the product is from what is proven, from the input on."""
    ends = [(place, layer.product, layer.proven) for place, layer in enumerate(rows)]
    pairs = [(place, product, proven) for place, product, proven in ends if product and proven and product < math.inf]
    log = _scale(axes, [value for _, *both in pairs for value in both])
    for place, product, proven in pairs:
        axes.plot([proven, product], [place] * 2, color=GREY, linewidth=3, alpha=0.5, solid_capstyle="butt")
        if product / proven >= 1.005:
            _say(axes, product, place, f"× {product / proven:.3g}", len(rows))
    for k, (colour, marker) in ((1, LOOSE), (2, TIGHT)):
        axes.plot([pair[k] for pair in pairs], [pair[0] for pair in pairs], marker, color=colour, markersize=6)
    axes.set_title("from the input to this layer")
    axes.set_xlabel(f"upper bound{log}")
    axes.set_yticks([])
    axes.margins(x=0.2)
    _downward(axes, len(rows))


def _scale(axes: Axes, values: Sequence[float]) -> str:
    """Make an axis logarithmic where its numbers ask for it, and say so."""
    inner = [value for value in values if 0 < value < math.inf]
    if len(inner) < len(values) or not inner or max(inner) / min(inner) <= WIDE:
        return ""
    axes.set_xscale("log")
    few = max(inner) / min(inner) < 300
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,)))
    if few:
        axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    return " (log scale)"


def _say(axes: Axes, value: float, place: int, words: str, rows: int) -> None:
    """Write a number beside its mark, unless there are too many."""
    if rows <= NAMED and value < math.inf:
        behind = {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.8}  # lines pass under the number
        axes.annotate(words, (value, place), (6, 0), "data", "offset points", va="center", fontsize=8, bbox=behind)


def _downward(axes: Axes, rows: int) -> None:
    axes.set_ylim(rows - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
