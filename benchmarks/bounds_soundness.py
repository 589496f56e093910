"""Upper bounds against what a search finds, over thousands of random networks: a bound below it is a violation.

Every network is bounded in the norms 1, 2 and inf over all space and in a box, a third of them by every method; the
search takes Jacobians at points near and far and climbs a little, in the same domain. Then a layer or a function that
no bound understands is planted in the network, and has to be named. docs/bounds_layers.md records the last run.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from architectures import FAMILIES, Drawn, Draws, draw_network
from pieces import Applied
from steepest import NORMS, Sides, random_box, steepest
from tables import Table
from torch import nn

import cheaplip as cl

# What Jacobians in float64 may be off by, relatively.
ROUNDING = 1e-9
# How many inputs a network may have for the slower methods.
SMALL = 48
UNKNOWN: tuple[nn.Module, ...] = (
    nn.Hardshrink(),
    nn.Threshold(0.1, 20.0),
    nn.GLU(dim=1),
    nn.LPPool1d(2.0, 1),
    nn.Bilinear(2, 2, 2),
    Applied("pow", lambda x: x.pow(2)),
    Applied("mul", lambda x: x * x.abs()),
    Applied("sin", torch.sin),
    Applied("round", torch.round),
    Applied("sort", lambda x: x.sort(1)[0]),
    Applied("norm", lambda x: x / x.norm()),
    Applied("mean", lambda x: x - x.mean(0)),
    Applied("cumsum", lambda x: x.cumsum(0)),
    Applied("gt", lambda x: torch.where(x > 0, x, 2 * x)),
    Applied("mul", lambda x: x * x.shape[0]),
)


@dataclass
class Found:
    """What was measured of the networks of one family."""

    networks: int = 0
    bounds: int = 0
    refused: int = 0
    planted: int = 0
    ratios: dict[str, list[float]] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)


def bounds_of(drawn: Drawn, box: Sides | None, slow: bool) -> Iterator[tuple[str, float, float]]:
    """Yield method, norm and value of every upper bound."""
    x = torch.zeros(1, *drawn.shape)
    where = {} if box is None else {"domain": "box", "box": box}
    for p in NORMS:
        yield "product", p, cl.lipschitz.upper(drawn.net, x, p=p, method="product", **where).value  # type: ignore[arg-type]
    for method in ("eclipse", "sdp") if slow else ():
        bound = cl.lipschitz.upper(drawn.net, x, method=method, seconds=5, **where)  # type: ignore[arg-type]
        if bound.certificate is not None:
            cl.lipschitz.check(bound.certificate, drawn.net)
        yield method, 2.0, bound.value


def measure(drawn: Drawn, found: Found) -> None:
    """Bound one network in every way, and search for something steeper."""
    found.networks += 1
    for box in (None, random_box(drawn)):
        lower = steepest(drawn, box)
        try:
            bounds = list(bounds_of(drawn, box, slow=math.prod(drawn.shape) <= SMALL and drawn.seed % 3 == 0))
        except (TypeError, ValueError) as error:
            found.refused += 1
            found.violations.append(f"{drawn.family} {drawn.seed}: refused: {error}")
            continue
        for method, p, upper in bounds:
            found.bounds += 1
            if not upper * (1 + ROUNDING) >= lower[p]:
                found.violations.append(
                    f"{drawn.family} {drawn.seed}: {method}, p = {p:g}, {box}: {upper} < {lower[p]}"
                )
            if 0 < lower[p] < math.inf and upper < math.inf:
                where = "all" if box is None else "box"
                name = where if method == "product" else method if where == "all" else f"{method}, box"
                found.ratios.setdefault(name, []).append(upper / lower[p])


def plant(drawn: Drawn, found: Found) -> None:
    """Put something unknown into the network: it has to be named."""
    draw = Draws(drawn.seed + 2)
    unknown = draw.pick(UNKNOWN)
    layers = list(drawn.net.children())
    layers.insert(draw.whole(0, len(layers)), unknown)
    name = unknown.name if isinstance(unknown, Applied) else type(unknown).__name__
    try:
        value = cl.lipschitz.upper(nn.Sequential(*layers).eval(), torch.zeros(1, *drawn.shape)).value
    except (TypeError, ValueError) as error:
        found.planted += 1
        if name not in str(error):
            found.violations.append(f"{drawn.family} {drawn.seed}: {name} is planted, but not named: {error}")
    else:
        found.violations.append(f"{drawn.family} {drawn.seed}: {name} is planted, but the bound is {value}")


def cell(values: Sequence[float]) -> str:
    """Return the smallest and the median ratio."""
    return f"{min(values):.9f} / {statistics.median(values):.3g}" if values else "-"


def table(results: dict[str, Found]) -> Table:
    """Return a row for each family."""
    kinds = ["all", "eclipse", "sdp", "box", "sdp, box"]
    heads = ("family", "networks", "bounds", "planted, named", "violations", *kinds)
    rows = []
    for name, found in results.items():
        numbers = (found.networks, found.bounds, found.planted, len(found.violations))
        rows.append((name, *map(str, numbers), *(cell(found.ratios.get(kind, [])) for kind in kinds)))
    return Table(
        "upper / best lower, smallest / median: the layer product, the slower methods, in a box", heads, tuple(rows)
    )


def main() -> None:
    """Run until the count or the seconds are reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--count", type=int, default=5000, help="networks, over all families")
    parser.add_argument("--seed", type=int, default=0, help="of the first network")
    parser.add_argument("--seconds", type=float, default=math.inf, help="stop after so many")
    parser.add_argument("--families", nargs="*", default=list(FAMILIES), choices=list(FAMILIES), help="which of them")
    options = parser.parse_args()
    torch.set_num_threads(1)
    start, results = time.monotonic(), {family: Found() for family in options.families}
    for k in range(options.count):
        family = options.families[k % len(options.families)]
        drawn = draw_network(family, options.seed + k // len(options.families))
        measure(drawn, results[family])
        plant(drawn, results[family])
        if time.monotonic() - start > options.seconds:
            break
    table(results).show()
    for found in results.values():
        print(*found.violations, sep="\n", end="\n" if found.violations else "")
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}"
    print(f"seeds from {options.seed}; {time.monotonic() - start:.0f} s on one thread of {machine}; ", end="")
    print(f"Python {platform.python_version()}, torch {torch.__version__}, cheaplip {cl.__version__}")


if __name__ == "__main__":
    main()
