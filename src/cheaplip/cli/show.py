"""What the commands print: tables on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = tuple[str, ...]


def _show(title: str, heads: Row, rows: Sequence[Row]) -> None:
    """Print a table; on what is no terminal as lines of words, with two spaces between columns and nothing cut."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(markup=False, highlight=False)
    print(title)
    if console.is_terminal:
        table = Table()
        for head in heads:
            table.add_column(Text(head))
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table)
        return
    widths = [max(len(row[k]) for row in (heads, *rows)) for k in range(len(heads))]
    for row in (heads, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def show_result(result: Mapping[str, Any], folder: str | Path) -> None:
    """Print what ``result.json`` says, and where it lies."""
    heads = ("", "value", "95 % interval", "images")
    rows: list[Row] = [
        (f"accuracy, {name}", f"{value:.4f}", "", "") for name, value in result.get("accuracy", {}).items()
    ]
    rows += [(f"loss, {name}", f"{value:.5g}", "", "") for name, value in result.get("loss", {}).items()]
    rows += [_robust_row(entry) for entry in result.get("robust", [])]
    if "lipschitz" in result and "lower" in result["lipschitz"]:
        rows.append(("Lip, lower bound", f"{result['lipschitz']['lower']:.4g}", "", ""))
    if "upper" in result.get("lipschitz", {}):
        rows.append(("Lip, upper bound", f"{result['lipschitz']['upper']:.4g}", "", ""))
    if "weight" in result:
        rows.append(("λ", f"{result['weight']:.4g}", "", ""))
    rows += [(f"seconds, {name}", f"{value:.1f}", "", "") for name, value in result.get("seconds", {}).items()]
    title = f"{result.get('data')}, {result.get('model')}, penalty {result.get('penalty')}, seed {result.get('seed')}"
    _show(title, heads, rows)
    for doubt in result.get("doubts", []):
        print(f"doubt: {doubt}")
    print(f"the run lies in {folder}")


def show_outcome(outcome: Any) -> None:
    """Print what an experiment found, and where its files lie."""
    _show(outcome.title, outcome.heads, outcome.rows)
    for remark in outcome.remarks:
        print(f"- {remark}")
    for file in outcome.files:
        print(file)


def _robust_row(entry: Mapping[str, Any]) -> Row:
    radius = f", ε = {entry['eps']:.15g}" if "eps" in entry else ""
    weak = " (weak)" if entry.get("weak") else ""
    low, high = entry.get("interval", (None, None))
    interval = "" if low is None else f"{low:.4f} to {high:.4f}"
    return f"accuracy, {entry['attack']}{radius}{weak}", f"{entry['accuracy']:.4f}", interval, str(entry["images"])


def show_sources(sources: Sequence[Any]) -> None:
    """Print which data sets there are."""
    rows = []
    for source in sources:
        sizes = " / ".join(f"{count:,}" for _, count in source.sizes)
        where = str(source.found or "not here: cheaplip data fetch") if source.needs_files else "needs no files"
        rows.append((source.name, sizes, source.licence, where))
    _show("data sets", ("name", "train / lipschitz / selection / test", "licence", "where"), rows)


def show_files(checks: Mapping[str, Sequence[Any]]) -> None:
    """Print what was found of the files of data sets."""
    rows = [(name, check.status, str(check.file)) for name, found in checks.items() for check in found]
    _show("files", ("data", "status", "file"), rows)
