"""What does a training step cost with Lipschitz training, in plain steps?

    python benchmarks/step_cost.py [--seconds 120] [--networks mlp:784-200-80-10,cnn] [--pairs 8,16,32,64] [--growth]

Each version of the step is timed in turn with the plain step, and the ratio is taken from the two neighbours; beside
it stands the floor: the ratio of the multiply-adds. Tables, all numbers and a plot are written to ``--out``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from step_variants import (
    Variant,
    Workload,
    adversarial_variant,
    authors_variant,
    both_variants,
    clip_variants,
    plain,
)
from timing import interleave, machine, peak_bytes, summarise

try:
    import step_plot
    import step_report
    from tables import check_writable, progress, write_whole
except ImportError as error:
    raise ImportError(
        f'benchmarks print with rich and plot with matplotlib: pip install "cheaplip[cli]" ({error})'
    ) from error

NETWORKS = "mlp:784-64-64-10,mlp:784-200-80-10,cnn"
GROWTH_PAIRS = (4, 8, 16, 32, 64, 128, 256)
GROWTH_BATCHES = (32, 64, 128, 256, 512)
GROWTH_WIDTHS = (32, 64, 128, 256, 512, 1024)
FIXED_PAIRS = 16

Tell = Callable[[str, float], None]


def measure(work: Workload, variants: Sequence[Variant], seconds: float, memory: bool, tell: Tell) -> dict[str, Any]:
    """Time versions of a step on one network; return all numbers.

    Args:
        work: network and data.
        variants: what to time, each next to the plain step.
        seconds: of timing.
        memory: measure the peak memory too.
        tell: is told the progress.
    """
    device = work.batches[0][0].device
    name = f"{work.network}, batch {work.batch}"
    steps = {variant.key: (variant.build(), variant.period) for variant in variants}
    timings = interleave(
        work.step(plain), steps, seconds=seconds, device=device, tick=lambda share: tell(f"{name}: time", share)
    )
    base = [taken for timing in timings.values() for taken in timing.base]
    entry: dict[str, Any] = {
        "network": work.network,
        "batch": work.batch,
        "multiply_adds": list(work.operations),
        "first_layer_share": work.share,
        "rounds": len(next(iter(timings.values())).base),
        "plain": {"seconds": summarise(base).to_json()},
        "rows": [],
    }
    if memory:
        entry["plain"]["peak_bytes"] = peak_bytes(lambda: work.step(plain), device)
    for done, variant in enumerate(variants):
        timing = timings[variant.key]
        row: dict[str, Any] = {"name": variant.name} | ({} if variant.pairs is None else {"pairs": variant.pairs})
        row["ratio"] = summarise(timing.ratios()).to_json()
        row["ratio_of_totals"] = timing.ratio_of_totals()
        row["floor"] = variant.floor
        row["seconds"] = summarise(timing.own).to_json()
        if memory:
            tell(f"{name}: memory", done / len(variants))
            row["peak_bytes"] = peak_bytes(variant.build, device)
        entry["rows"].append(row)
    return entry


def growth(
    networks: Sequence[str], device: torch.device, batch: int, seconds: float, tell: Tell
) -> list[dict[str, Any]]:
    """Measure how the cost grows with P, with the batch and with the width of an MLP; one entry per table."""
    tables = []

    def table(network: str, against: str, points: Sequence[tuple[int, Workload, Sequence[int]]]) -> None:
        entries = []
        for value, work, counts in points:
            variants = clip_variants(work, counts, ("penalty", "joint"))
            if against != "pairs":
                variants.append(adversarial_variant(work, 1))
            entries.append({"value": value} | measure(work, variants, seconds / len(points), False, tell))
        tables.append({"network": network, "against": against, "entries": entries})

    for network in networks:
        # All P in one run, so that they share the plain step.
        table(network, "pairs", [(batch, Workload.make(network, batch, device), GROWTH_PAIRS)])
        works = [Workload.make(network, size, device) for size in GROWTH_BATCHES]
        table(network, "batch", [(work.batch, work, [FIXED_PAIRS]) for work in works])
    wide = [(width, Workload.make(f"mlp:784-{width}-{width}-10", batch, device)) for width in GROWTH_WIDTHS]
    table("mlp:784-w-w-10", "width", [(width, work, [FIXED_PAIRS]) for width, work in wide])
    return tables


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure all that was asked for; return what ``step_cost.json`` holds."""
    device = _device(arguments.device)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    results: dict[str, Any] = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": {"device": device.type} | machine(device),
        "settings": {"seconds": arguments.seconds, "batch": arguments.batch, "pairs": arguments.pairs},
        "networks": [],
    }
    works = [Workload.make(network, arguments.batch, device) for network in arguments.networks]
    with progress() as tell:
        for work in works:
            variants = clip_variants(work, arguments.pairs)
            variants += both_variants(work, arguments.pairs)
            variants += [adversarial_variant(work, 1), adversarial_variant(work, 7), authors_variant(work)]
            results["networks"].append(measure(work, variants, arguments.seconds, True, tell))
        if arguments.growth:
            batch, seconds = arguments.batch, arguments.seconds
            results["growth"] = growth(arguments.networks, device, batch, seconds, tell)
    return results


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda needs an NVIDIA GPU and a PyTorch built for it; none is here: use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="what a training step costs with Lipschitz training, in plain steps",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--networks", type=_names, default=NETWORKS, help="separated by commas; 1x28x28 in, 10 out")
    parser.add_argument("--pairs", type=_counts, default="8,16,32,64", help="numbers of pairs, separated by commas")
    parser.add_argument("--batch", type=_count, default=128, help="samples of a minibatch")
    parser.add_argument(
        "--seconds", type=_seconds, default=120.0, help="of timing per network and table; 5 rounds at least"
    )
    parser.add_argument("--growth", action="store_true", help="also how the cost grows with P, batch and width")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to train")
    out = Path(__file__).parent / "results"
    parser.add_argument("--out", type=Path, default=out, help="folder for step_cost.json, .md, .svg and .png")
    return parser.parse_args(arguments)


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"expected different names separated by commas; got {text!r}")
    return names


def _count(text: str) -> int:
    if not (text.strip().isdecimal() and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1; got {text!r}")
    return int(text)


def _counts(text: str) -> list[int]:
    return sorted({_count(part) for part in text.split(",")})


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of seconds of at least 0; got {text!r}")
    return seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; return the exit status."""
    parsed = parse(arguments)
    try:
        check_writable(parsed.out)
        results = run(parsed)
        write_whole(parsed.out / "step_cost.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
        write_whole(parsed.out / "step_cost.md", step_report.markdown(results))
        figure = step_plot.draw(results["networks"])
        for kind in ("svg", "png"):
            write_whole(parsed.out / f"step_cost.{kind}", step_plot.render(figure, kind))
    except (ValueError, TypeError) as error:
        print(f"step_cost: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("step_cost: stopped; nothing was written", file=sys.stderr)
        return 130
    for table in step_report.tables(results):
        table.show()
    print(f"written to {parsed.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
