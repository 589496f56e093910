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


def show_bounds(found: Any) -> None:
    """Print an interval, the layers, what became of a claim, and where the files lie."""
    from cheaplip.runs.bounding import outward

    low = found.lower
    rows: list[Row] = [
        ("lower", outward(low.value, up=False), low.method, _yes(low.proven), f"{found.lower_seconds:.1f}")
    ]
    for proof in reversed(found.proofs):
        above, best = proof.bound, proof is found.proofs[-1]
        name = "upper" if best else "  looser"
        rows.append((name, outward(above.value, up=True), above.method, _yes(above.proven), f"{proof.seconds:.1f}"))
    if found.ratio is not None:
        rows.append(("upper / lower", f"{found.ratio:.4g}", "tightness; 1 is exact", "", ""))
    _show(f"{found.name}: Lip in the {found.where}", ("bound", "value", "method", "proven", "seconds"), rows)
    if found.why:
        print(f"there is no upper bound: {found.why}")
    if found.layers:
        few = len(found.telling) < len(found.layers)
        left_out = ", those that hand their input on left out" if few else ""
        _show_layers(f"layers, from the input{left_out}", found.telling)
    if found.verdict is not None:
        print(_judged(found.verdict, found.claim, low.value, found.upper))
        if found.verdict == "open" and low.value > found.claim:
            print("the pair lies above the claim, but was not measured in float64, which is no proof")
    for remark in found.remarks:
        print(remark)
    for file in found.files:
        print(file)


def _yes(proven: bool) -> str:
    return "yes" if proven else "no"


def _show_layers(title: str, layers: Sequence[Any]) -> None:
    """Print each layer's constant, and how the product up to it compares with what is proven."""
    from cheaplip.runs.bounding import outward

    tight = any(layer.proven is not None for layer in layers)
    heads = (
        "layer",
        "type",
        "shape",
        "constant",
        "product to here",
        *(("proven", "product / proven") if tight else ()),
    )
    rows: list[Row] = []
    for layer in layers:
        shape = " × ".join(map(str, layer.shape))
        bounds = (layer.constant, layer.product, *((layer.proven,) if tight else ()))
        cells = ["" if bound is None else outward(bound, up=True, digits=4) for bound in bounds]
        lost = ["" if layer.lost is None else f"{layer.lost:.3g}"] if tight else []
        rows.append((layer.name, layer.kind, shape, *cells, *lost))
    _show(title, heads, rows)


def _judged(verdict: str, claim: float, lower: float, upper: Any) -> str:
    """Say what became of a claim."""
    from cheaplip.runs.bounding import outward

    low = outward(lower, up=False, digits=10)
    if verdict == "refuted":
        return f"refuted: a pair of inputs has the quotient {low}, above the claimed {claim:.10g}"
    if upper is not None and verdict == "proven":
        return f"proven: Lip <= {outward(upper.value, up=True, digits=10)}, at most the claimed {claim:.10g}"
    high = "without a proof above" if upper is None else f"and {outward(upper.value, up=True, digits=10)}"
    return f"open: Lip lies between {low} {high}, which does not decide the claimed {claim:.10g}"


def show_verified(found: Any, file: str) -> None:
    """Print what a certificate proves."""
    from cheaplip.runs.bounding import outward

    value = outward(found.bound.value, up=True, digits=10)
    print(f"{file} holds for {found.name}, verified from scratch in {found.seconds:.1f} s")
    print(f"proven: Lip <= {value} in the {found.where}, by {found.bound.method}")
    if found.verdict is not None:
        decided = found.verdict == "proven"
        words = "this is at most" if decided else "a certificate refutes nothing, and this is above"
        print(f"{found.verdict}: {words} the claimed {found.claim:.10g}")


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


def show_comparison(found: Any) -> None:
    """Print runs side by side, how each differs from the first, and what is best by more than chance."""
    names = [run.name for run in found.runs]
    heads = ("", *names, *(f"{name} − {names[0]}" for name in names[1:]), "images")
    rows: list[Row] = []
    for row in found.rows:
        texts = ["" if accuracy is None else f"{100 * accuracy:.1f}" for accuracy in row.accuracy]
        cells = [text + " *" if row.best == k else text for k, text in enumerate(texts)]
        rows.append((row.name, *cells, *map(_differs, row.against), str(row.images)))
    for place, name in enumerate(("Lip, lower bound", "Lip, upper bound")):
        if any(bounds[place] is not None for bounds in found.lipschitz):
            cells = ["" if bounds[place] is None else f"{bounds[place]:.4g}" for bounds in found.lipschitz]
            rows.append((name, *cells, *("" for _ in names[1:]), ""))
    _show("accuracy in %, on the images that all runs were tried on", heads, rows)
    print("* better than every other run by more than chance (McNemar's exact test, 5 %, Bonferroni)")
    for remark in found.remarks:
        print(remark)


def _differs(difference: Any) -> str:
    if difference is None:
        return ""
    low, high = (100 * end for end in difference.interval)
    chance = "p < 0.001" if difference.chance < 0.001 else f"p = {difference.chance:.2g}"
    return f"{100 * difference.accuracy:+.1f} ({low:+.1f} to {high:+.1f}), {chance}"
