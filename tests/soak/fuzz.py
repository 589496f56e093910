"""Bad input in bulk: thousands of spoiled files and command lines, and a table of what became of them.

``python tests/soak/fuzz.py --cases 2000 --seed 0``; one case alone: ``--only "checkpoint 17" --seed 0``. Status 1 where
a case failed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from fuzz_kinds import KINDS, SLOW, prepare
from fuzzing import Case, run_case

ENDS = ("worked", "refused", "failed")


def plan(cases: int) -> list[tuple[str, int]]:
    """Return kinds and numbers of cases; of slow kinds there are a quarter as many as of the others."""
    share = cases / sum(0.25 if kind in SLOW else 1.0 for kind in KINDS)
    counts = {kind: max(1, round(share * (0.25 if kind in SLOW else 1.0))) for kind in KINDS}
    counts["words"] += max(0, cases - sum(counts.values()))
    return [(kind, number) for kind, count in counts.items() for number in range(count)]


def run(planned: list[tuple[str, int]], seed: int, verbose: bool) -> list[Case]:
    """Run cases and tell of those that fail."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        base = prepare(Path(folder) / "fuzz")
        for kind, number in planned:
            begun = time.perf_counter()
            case = run_case(base, kind, seed, number)
            found.append(case)
            if case.end == "failed" or verbose:
                print(f"{case.end} ({time.perf_counter() - begun:.1f} s): {case.name}: {case.words}", flush=True)
    return found


def main() -> int:
    """Run the cases of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=2000, help="how many (2000)")
    parser.add_argument("--seed", type=int, default=0, help="of all draws (0)")
    parser.add_argument("--only", help="one case, as 'checkpoint 17', or all of one kind")
    parser.add_argument("--verbose", action="store_true", help="tell of every case")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    planned = plan(chosen.cases)
    if chosen.only:
        kind, _, number = chosen.only.rpartition(" ")
        single = number.isdigit()
        planned = [(kind, int(number))] if single else [case for case in planned if case[0] == chosen.only]
    begun = time.perf_counter()
    found = run(planned, chosen.seed, chosen.verbose or bool(chosen.only))
    table = Counter((kind, case.end) for (kind, _), case in zip(planned, found, strict=True))
    print(f"{'kind':14}{'cases':>8}" + "".join(f"{end:>9}" for end in ENDS))
    for kind in KINDS:
        counts = [table[kind, end] for end in ENDS]
        print(f"{kind:14}{sum(counts):8}" + "".join(f"{count:9}" for count in counts))
    totals = [sum(table[kind, end] for kind in KINDS) for end in ENDS]
    print(f"{'all':14}{sum(totals):8}" + "".join(f"{count:9}" for count in totals))
    print(f"seed {chosen.seed}, {time.perf_counter() - begun:.0f} s")
    return 1 if totals[2] else 0


if __name__ == "__main__":
    sys.exit(main())
