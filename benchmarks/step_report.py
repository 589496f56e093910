"""The numbers of the step's cost as tables and as a page in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tables import Row, Table

NOTES = """\
How to read this. A step is zero_grad, forward, loss, backward and SGD with momentum, on one thread. Times are processor
time on the CPU, so that other processes' slices do not count, and wall time on a GPU.
`× plain` is the time of a step over that of the plain step timed right before it in the same round: the median over
the rounds, then the quartiles; `of totals` is all time of the one over all time of the other, with every
interruption. Of CLIP a round times as many steps as its work takes to repeat: some pairs are renewed at every fourth
move.
`floor` is the ratio of the multiply-adds: for P pairs 1 + 2/B + 4P / ((3 - φ) B), with B the batch and φ the first
layer's share of the forward; the term in P is halved where pairs move at every second step, and 2 / ((3 - φ) B) less
where `joint` lets the pairs that move share the minibatch's forward, as in all networks here. For an adversary of k
steps it is 1 + 2k / (3 - φ); for the 500 pairs, moved as in the code published with the paper (three forwards and a
backward for the parameters too), it is 1 + 2/B + 10P / ((3 - φ) B).
Time is not multiply-adds: many small operations make a step dearer than its floor, and so do batches too large for the
cache; batches larger than B that fit run more efficiently than a plain step, and can come out below it.
`peak MB` is the most that torch's allocator had handed out at a time over three steps: weights, gradients, momentum,
pairs and what passes through; the data and the scratch memory of matrix libraries are not in it (1 MB = 10^6 bytes).
"""


def tables(results: Mapping[str, Any]) -> list[Table]:
    """Return all tables of the results: one per network, then those of growth.

    Args:
        results: what ``step_cost.json`` holds.
    """
    return [_network(entry) for entry in results["networks"]] + [_growth(entry) for entry in results.get("growth", [])]


def markdown(results: Mapping[str, Any]) -> str:
    """Return the results as a page in Markdown.

    Args:
        results: what ``step_cost.json`` holds.
    """
    about = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in results["machine"].items())
    parts = ["# Cost of a training step", f"{results['date']}; {about}.", NOTES, "![ratio against P](step_cost.svg)\n"]
    return "\n\n".join(parts) + "\n" + "\n".join(table.markdown() for table in tables(results))


def _network(entry: Mapping[str, Any]) -> Table:
    plain = entry["plain"]
    times, held = plain["seconds"], plain.get("peak_bytes")
    heads: Row = ("step", "P", "ms", "× plain", "quartiles", "of totals", "floor", "× floor")
    rows: list[Row] = [("plain", "", _ms(times), "1", "", "", "1", "")]
    rows += [_version(row) for row in entry["rows"]]
    if held is not None:
        heads += ("peak MB",)
        memory = [held, *(row["peak_bytes"] for row in entry["rows"])]
        rows = [(*row, f"{taken / 1e6:.1f}") for row, taken in zip(rows, memory, strict=True)]
    title = (
        f"{entry['network']}, batch {entry['batch']}: φ = {entry['first_layer_share']:.3f}, {entry['rounds']} rounds, "
        f"plain step {_ms(times)} ms (quartiles {times['p25'] * 1e3:.3g} to {times['p75'] * 1e3:.3g})"
    )
    return Table(title, heads, tuple(rows))


def _version(row: Mapping[str, Any]) -> Row:
    ratio, floor = row["ratio"], row["floor"]
    return (
        row["name"],
        str(row.get("pairs", "")),
        _ms(row["seconds"]),
        f"{ratio['median']:.2f}",
        f"{ratio['p25']:.2f} to {ratio['p75']:.2f}",
        f"{row['ratio_of_totals']:.2f}",
        f"{floor:.2f}",
        f"{ratio['median'] / floor:.2f}",
    )


def _growth(grown: Mapping[str, Any]) -> Table:
    """Tabulate one line per value that grows, one column per version, and the floor of joint."""
    against, entries = grown["against"], grown["entries"]
    if against == "pairs":
        entries = [_with_rows(entries[0], count) for count in sorted({row["pairs"] for row in entries[0]["rows"]})]
    names = list(dict.fromkeys(row["name"] for row in entries[0]["rows"]))
    heads: Row = (against, "plain ms", *(f"{name}, × plain" for name in names), "floor of joint")
    rows = []
    for entry in entries:
        by_name = {row["name"]: row for row in entry["rows"]}
        ratios = [by_name[name]["ratio"] for name in names]
        cells = [f"{ratio['median']:.2f} ({ratio['p25']:.2f} to {ratio['p75']:.2f})" for ratio in ratios]
        rows.append((str(entry["value"]), _ms(entry["plain"]["seconds"]), *cells, f"{by_name['joint']['floor']:.2f}"))
    given = [f"batch {entries[0]['batch']}"] * (against != "batch")
    given += [f"P = {_pairs(entries)}"] * (against != "pairs")
    return Table(f"{grown['network']}: cost against {against}, {', '.join(given)}", heads, tuple(rows))


def _with_rows(entry: Mapping[str, Any], count: int) -> dict[str, Any]:
    return {**entry, "value": count, "rows": [row for row in entry["rows"] if row["pairs"] == count]}


def _pairs(entries: Sequence[Mapping[str, Any]]) -> int:
    return next(int(row["pairs"]) for row in entries[0]["rows"] if "pairs" in row)


def _ms(seconds: Mapping[str, float]) -> str:
    median = seconds["median"] * 1e3
    return f"{median:.0f}" if median >= 100 else f"{median:.3g}"
