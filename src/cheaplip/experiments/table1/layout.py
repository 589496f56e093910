"""The table as text: Markdown, LaTeX and CSV; ours, and the paper's value beside it."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from cheaplip.experiments.table1.cells import interval
from cheaplip.experiments.table1.plan import NAMES, RADII, Row, columns_of
from cheaplip.experiments.table1.published import COLUMNS

NOTE = (
    "Accuracies in percent; in brackets what the paper's Table 1 says. Noise: Gaussian, σ = 1, not clamped, all test "
    "images. PGD (13): the paper's attack, ε = 2 (digits 0.5), α = 0.25, 100 sign steps, no box, weak. PGD: L2, 100 "
    "steps, cosine step, worst of cross-entropy and margin loss, 1 restart, in the box. Lip: a lower bound (search) "
    "and, where there is one, a proven upper bound (layer product), both over all space. Intervals, where they are "
    "spoken of, are of 95 % over images, not over seeds. Standard keeps its last epoch, all others the one most "
    "robust under strong PGD on held-out training images (with a target: among those within a point of it); μ and λ "
    "are those of the kept epoch."
)


def heads(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return what stands above the cells; data sets differ in radii.

    Example:
        >>> heads([{"data": "mnist"}, {"data": "digits"}])[6:9]
        ('PGD ε = 1 or 0.25', 'ε = 1.5 or 0.5', 'ε = 2 or 0.75')
    """
    radii = zip(*dict.fromkeys(RADII[row["data"]] for row in rows), strict=True)
    first, *others = (f"ε = {' or '.join(f'{eps:g}' for eps in choices)}" for choices in radii)
    return ("", "train", "test", "noise", "PGD (13)", "μ or λ", f"PGD {first}", *others, "Lip")


def texts(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the cells of a row as text, its title first; an empty one where there is no value."""
    cells = row["cells"]
    title = Row(row["data"], row["method"], row.get("target")).title
    if row.get("reached") is False:
        title += " (not reached)"
    shown = [_accuracy(cells.get(name)) for name in ("train", "clean", "noise", "pgd-paper")]
    shown.append(_number(cells.get("weight"), Row(row["data"], row["method"]).symbol))
    shown += [_accuracy(cells.get(f"pgd@{eps:g}")) for eps in RADII[row["data"]]]
    return (title, *shown, _lipschitz(cells))


def _accuracy(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return ""
    spread = f" ± {100 * cell['std']:.1f}" if "std" in cell else ""
    told = f" [{100 * cell['published']:.1f}]" if "published" in cell else ""
    return f"{100 * cell['mean']:.1f}{spread}{told}"


def _number(cell: Mapping[str, Any] | None, symbol: str) -> str:
    if cell is None or not symbol:
        return ""
    spread = f" ± {cell['std']:.1g}" if "std" in cell else ""
    told = f" [{cell['published']:g}]" if "published" in cell else ""
    return f"{symbol} {cell['mean']:.2g}{spread}{told}"


def _lipschitz(cells: Mapping[str, Any]) -> str:
    if "lower" not in cells:
        return ""
    low = f"{cells['lower']['mean']:.3g}"
    return f"≥ {low}" if "upper" not in cells else f"{low} to {cells['upper']['mean']:.3g}"


def caption(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say in one line what the rows of a data set are."""
    first = rows[0]
    seeds = sorted({len(row["seeds"]) for row in rows})
    images = sorted({count for row in rows for name, count in row["images"].items() if name != "noise"})
    return (
        f"{NAMES[first['data']]}, {first['model']}, {first['epochs']} epochs, "
        f"{' to '.join(map(str, seeds))} seed{'s' if seeds != [1] else ''}"
        + (", mean ± standard deviation" if seeds != [1] else "")
        + (f"; attacks on the first {' or '.join(map(str, images))} test images" if images else "")
    )


def by_data(rows: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Return the rows of each data set."""
    return [[row for row in rows if row["data"] == name] for name in dict.fromkeys(row["data"] for row in rows)]


def markdown(rows: Sequence[Mapping[str, Any]], remarks: Sequence[str]) -> str:
    """Return the tables of all data sets, and what has to be said about them."""
    parts = ["# Table 1", NOTE]
    for group in by_data(rows):
        lines = [heads(group), ("---",) * len(heads(group)), *map(texts, group)]
        parts += [f"**{caption(group)}**", "\n".join(f"| {' | '.join(line)} |" for line in lines)]
    parts += ["\n".join(f"- {remark}" for remark in remarks)] if remarks else []
    return "\n\n".join(parts) + "\n"


def latex(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the tables of all data sets as LaTeX, for the package booktabs."""
    parts = ["% needs \\usepackage{booktabs}"]
    for group in by_data(rows):
        body = [" & ".join(map(_escaped, line)) + r" \\" for line in map(texts, group)]
        parts.append(
            "\n".join(
                [
                    r"\begin{table}",
                    f"\\caption{{{_escaped(caption(group))}. {_escaped(NOTE)}}}",
                    r"\begin{tabular}{l" + "r" * (len(heads(group)) - 1) + "}",
                    r"\toprule",
                    " & ".join(map(_escaped, heads(group))) + r" \\",
                    r"\midrule",
                    *body,
                    r"\bottomrule",
                    r"\end{tabular}",
                    r"\end{table}",
                ]
            )
        )
    return "\n\n".join(parts) + "\n"


_LATEX = {
    **{letter: f"\\{letter}" for letter in "%&_#"},
    **{"±": r"$\pm$", "≥": r"$\geq$", "μ": r"$\mu$", "λ": r"$\lambda$"},
    **{"ε": r"$\varepsilon$", "σ": r"$\sigma$", "α": r"$\alpha$", "[": "{[}", "]": "{]}"},
}


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)


def comma_separated(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return one line a row, for a spreadsheet: means, standard deviations, intervals and the paper's values."""
    names = ["data", "method", "target", "reached", "model", "epochs", "seeds"]
    for name in dict.fromkeys(name for row in rows for name in columns_of(row["data"])):
        names += [name, f"{name} std", *((f"{name} low", f"{name} high") if _attacked(name) else ())]
        names += [f"{name} published"] if name in COLUMNS else []
    file = io.StringIO()
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        line = {name: row[name] for name in names if name in row} | {"seeds": len(row["seeds"])}
        for name, cell in row["cells"].items():
            line[name] = cell["mean"]
            line |= {f"{name} {key}": cell[key] for key in ("std", "published") if key in cell}
            if _attacked(name):
                line[f"{name} low"], line[f"{name} high"] = interval(row, name)
        writer.writerow(line)
    return file.getvalue()


def _attacked(column: str) -> bool:
    return column.startswith(("noise", "pgd"))
