"""Kill commands by SIGKILL at random moments, go on, and compare with the run that nobody disturbed.

python tests/soak/kills.py --kills 60 --seed 0

Each command is a process of its own, forked from one that has loaded the libraries, so that kills fall into its work
and not into its start. Needs Linux or macOS. Exit status 1 if a killed command could not go on, or ended otherwise than
the undisturbed one.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np

SMALL = ("--model", "mlp:64-16-10:relu", "--lipschitz.pairs", "8", "--lower-every", "7")
TRAIN = ("train", "--data", "digits", "--epochs", "30", *SMALL)
ATTACKS = ("--attacks", "noise,pgd-paper,pgd", "--eps", "0.5", "--limit", "100")
TABLE = ("reproduce", "table1", "--data", "digits", "--epochs", "1", "--limit", "20", "--jobs", "2")
# What is the same but for the time that it took; and a picture that leaves out attacks that were slow.
NOT_COMPARED = ("checkpoint.pt", "attacked.png")
LOADED = (
    "cheaplip.cli.commands",
    "cheaplip.runs",
    "cheaplip.experiments.table1",
    "lightning_fabric",
    "torch._dynamo",
)
# At most so many kills of one run, and so many lines of what went wrong.
CHAIN, LINES = 6, 5


@dataclass(frozen=True)
class Situation:
    """A command, and what it needs before it starts."""

    name: str
    words: tuple[str, ...]
    place: tuple[str, ...]  # the words before the folder
    again: tuple[str, ...] = ()
    begin: Path | None = None  # a folder to start from, less a few of its runs
    less: int = 0
    pattern: str = ".*"  # of the temporary files at whose sight the command may be killed
    modes: tuple[str, ...] = ("moment", "writing")

    def command(self, folder: Path, resumed: bool = False) -> list[str]:
        """Return the command line."""
        again = self.again if resumed else ()
        return [*self.words, *self.place, str(folder), *again]

    def prepare(self, folder: Path, draw: random.Random) -> None:
        """Make the folder as it is before the command, if there is anything in it."""
        if self.begin is None:
            return
        shutil.copytree(self.begin, folder)
        for run in draw.sample(sorted(folder.glob("digits/*")), self.less):
            shutil.rmtree(run)


TRAINING = Situation("training", TRAIN, ("--out",), ("--resume",))
CHECKPOINT = Situation(
    "writing a checkpoint", TRAIN, ("--out",), ("--resume",), pattern=".checkpoint.pt.*", modes=("writing",)
)


def evaluation(run: Path) -> Situation:
    """Return the situation of attacking a trained run."""
    return Situation("evaluation", ("evaluate", *ATTACKS), (), begin=run)


def reproduction(table: Path) -> Situation:
    """Return the situation of a table of which two runs are missing."""
    return Situation("reproduction", TABLE, ("--out",), begin=table, less=2)


@dataclass
class Tally:
    """What became of a number of kills; ``torn`` of them left a temporary file."""

    kills: int = 0
    torn: int = 0
    resumed: int = 0
    faults: list[str] = field(default_factory=list)


def start(words: Sequence[str], log: Path) -> ForkServerProcess:
    """Start a command, whose output goes into a file."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(LOADED))
    process = context.Process(target=_perform, args=(list(words), str(log)))
    process.start()
    return process


def _perform(words: list[str], log: str) -> None:
    os.setsid()
    with Path(log).open("wb") as told:
        for stream in (1, 2):
            os.dup2(told.fileno(), stream)
    from cheaplip.cli import main

    sys.exit(main(words))


def undisturbed(situation: Situation, folder: Path) -> float:
    """Run a command that nobody kills, and return its seconds."""
    begun, log = time.monotonic(), folder.with_name(f"{folder.name}.log")
    process = start(situation.command(folder), log)
    process.join()
    if process.exitcode != 0:
        raise RuntimeError(log.read_text())
    return time.monotonic() - begun


def chain(situation: Situation, folder: Path, whole: Path, seconds: float, modes: Sequence[str], seed: str) -> Tally:
    """Kill one run again and again, let it finish, and compare it.

    Args:
        situation: the command.
        folder: of the run, new.
        whole: that of the undisturbed run.
        seconds: how long that took.
        modes: a kill each: at a random ``moment``, or while a file is ``writing``.
        seed: of the moments.
    """
    draw, tally, left = random.Random(seed), Tally(), list(modes)
    situation.prepare(folder, draw)
    log = folder.with_name(f"{folder.name}.log")
    while True:
        process = start(situation.command(folder, tally.kills > 0), log)
        if left and _struck(process, situation, folder, left[0], seconds, draw):
            left.pop(0)
            tally.kills += 1
            tally.torn += bool(_temporaries(folder, ".*"))
            continue
        process.join()
        if process.exitcode != 0:
            tally.faults += [f"{situation.name}, {seed}: status {process.exitcode}: {log.read_text()[-500:]}"]
        else:
            tally.faults += [f"{situation.name}, {seed}: {fault}" for fault in differences(folder, whole)]
        tally.resumed = 0 if tally.faults else tally.kills
        return tally


def _struck(
    process: ForkServerProcess,
    situation: Situation,
    folder: Path,
    mode: str,
    seconds: float,
    draw: random.Random,
) -> bool:
    """Kill a command, or tell that it ended before."""
    if mode == "writing":
        seen: set[str] = set()
        wanted = draw.choice((1, 1, 2, 5, 20))
        while len(seen) < wanted and process.is_alive():
            seen |= {str(path) for path in _temporaries(folder, situation.pattern)}
            time.sleep(1e-4)
    else:
        process.join(draw.uniform(0.0, 1.0) * seconds)
    number = process.pid
    if number is None or not process.is_alive():
        return False
    whom = draw.choice(("process", "group", "worker")) if "reproduce" in situation.words else "process"
    workers = _workers(number) if whom == "worker" else []
    with suppress(ProcessLookupError):  # it is not yet a group of its own, or has just ended
        if whom == "group":
            os.killpg(number, signal.SIGKILL)
        else:
            os.kill(draw.choice(workers or [number]), signal.SIGKILL)
    process.join()
    return process.exitcode != 0  # a command that outlives a helper of its own was not killed


def _workers(process: int) -> list[int]:
    """Return the processes that a command has begun: its workers, what they fork off, and Python's own helper."""
    try:
        children = [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []
    return children + [one for child in children for one in _workers(child)]


def _temporaries(folder: Path, pattern: str) -> list[Path]:
    return [path for path in folder.rglob(pattern) if not path.is_dir()]


def differences(one: Path, other: Path) -> Iterator[str]:
    """Tell what two finished folders do not share, but for seconds; and temporary files that are left."""
    first, second = _contents(one), _contents(other)
    for name in sorted(first.keys() | second.keys()):
        if name not in first or name not in second:
            yield f"{name} is only in {one if name in first else other}"
        elif first[name] != second[name]:
            yield f"{name} differs"


def _contents(folder: Path) -> dict[str, Any]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): _content(path) for path in files}


def _content(path: Path) -> Any:
    if path.name in NOT_COMPARED:
        return None
    if path.name == "metrics.csv":
        with path.open(newline="") as file:
            return [{key: cell for key, cell in row.items() if key != "seconds"} for row in csv.DictReader(file)]
    if path.suffix == ".json":
        return _timeless(json.loads(path.read_bytes()))
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            about = json.loads(str(arrays["about"]))
            entries = [[*entry[:-1], [batch[:2] for batch in entry[-1]]] for entry in about["entries"]]
            rest = {name: arrays[name].tobytes() for name in arrays.files if name != "about"}
            return about["names"], entries, rest
    return path.read_bytes()


def _timeless(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _timeless(value) for key, value in content.items() if key != "seconds"}
    return [_timeless(value) for value in content] if isinstance(content, list) else content


def _run(situation: Situation, home: Path, whole: Path, seconds: float, kills: int, seed: int) -> Tally:
    """Kill runs of one situation until there are enough kills."""
    total, number = Tally(), 0
    while total.kills < kills and len(total.faults) < LINES:
        draw = random.Random(f"{seed} {situation.name} {number}")
        modes = draw.choices(situation.modes, k=min(CHAIN, kills - total.kills))
        folder = home / f"{situation.name.replace(' ', '-')}-{number}"
        found = chain(situation, folder, whole, seconds, modes, f"{seed}-{number}")
        total.kills, total.torn = total.kills + found.kills, total.torn + found.torn
        total.resumed, number = total.resumed + found.resumed, number + 1
        total.faults += found.faults
        if not found.faults:
            shutil.rmtree(folder)
    return total


def main() -> int:
    """Run the soak test and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(2) as pool:
        home = Path(name)
        run, table, attacked = home / "run", home / "table", home / "attacked"
        made = pool.submit(undisturbed, TRAINING, run), pool.submit(undisturbed, reproduction(table), table)
        trained, tabled = (future.result() for future in made)
        shutil.copytree(run, attacked)
        took = undisturbed(evaluation(run), attacked)
        plans = [
            (reproduction(table), table, min(15.0, tabled), 2),  # first, as it takes longest
            (TRAINING, run, trained, 3),
            (CHECKPOINT, run, trained, 3),
            (evaluation(run), attacked, took, 2),
        ]
        shares = [options.kills * part // 10 for *_, part in plans]
        shares[0] += options.kills - sum(shares)
        jobs = [
            (situation, pool.submit(_run, situation, home, whole, seconds, share, options.seed))
            for (situation, whole, seconds, _), share in zip(plans, shares, strict=True)
        ]
        found = {situation.name: job.result() for situation, job in jobs}
    print(f"{'situation':22}{'kills':>8}{'torn file':>11}{'resumed':>9}{'lost':>6}")
    for name, tally in found.items():
        print(f"{name:22}{tally.kills:8}{tally.torn:11}{tally.resumed:9}{tally.kills - tally.resumed:6}")
    print(f"{sum(tally.kills for tally in found.values())} kills in {time.monotonic() - begun:.0f} s")
    faults = [fault for tally in found.values() for fault in tally.faults]
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
