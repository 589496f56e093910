"""Cases of bad input, each made by its kind, a seed and a number alone, and what becomes of each.

A case spoils one file (or a command line), gives it to a command and to the reader of the library, and is ``worked``,
``refused`` (status 2 and one sentence, nothing changed) or ``failed``.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import random
import shutil
import signal
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn, final

import fuzz_kinds
import mutations
import pytest
import torch
import yaml
from fuzz_kinds import KINDS, Kind

from cheaplip import runs
from cheaplip.cli import main
from cheaplip.runs import folder as folder_files

SECONDS = 60  # a case that takes longer hangs
LONGEST = 1000  # characters of a sentence
# What a command may change in its run folder, and what may be left of a training that began and could not go on.
WRITES = {"evaluate": {"result.json", "robust.npz", "robustness.png", "attacked.png"}}
WRITES |= {"bounds": {"result.json", "bounds.png", "certificate.npz", "witness.npz"}}
BEGUN = {"config.yaml", "checkpoint.pt", "metrics.csv"}


@final
class Hung(BaseException):
    """A case took too long."""


@final
@dataclass(frozen=True)
class Case:
    """What became of a case: its end, and in words what was said or is wrong."""

    name: str
    end: str
    words: str


def run_case(base: Path, kind: str, seed: int, number: int) -> Case:
    """Make a case in a folder of its own, run it, and judge it.

    Args:
        base: what ``fuzz_kinds.prepare`` made.
        kind: of the case.
        seed: of all draws.
        number: of the case.
    """
    name, about = f"{kind} {number} (seed {seed})", KINDS[kind]
    rng = random.Random(f"{seed}/{kind}/{number}")
    folder = base / "cases" / "here" / "case"  # deep enough that ../../ stays inside
    shutil.copytree(base / "base", folder)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(base / "code"))
            patch.setattr("cheaplip.experiments.stages.run_all", fuzz_kinds.run_here)
            patch.chdir(folder)
            torch.manual_seed(0)
            command = _spoil(rng, kind, about)
            before = contents(folder)
            end, words = _read(about) if command is None else _command(command, before)
        left = sorted(set(contents(base / "cases")) - {f"here/case/{name}" for name in contents(folder)})
        if left:
            end, words = "failed", f"it left {left} outside its folder"
        return Case(name, end, f"{' '.join(command or ['library'])[:300]}: {words}")
    finally:
        shutil.rmtree(base / "cases")


def contents(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of all files in a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _spoil(rng: random.Random, kind: str, about: Kind) -> list[str] | None:
    """Spoil the file of a kind; return the command to run, or None for the reader of the library."""
    if kind == "words":
        return _affordable(fuzz_kinds.words(rng))
    file = Path(about.file)
    content = file.read_bytes()
    if about.means is not None and rng.random() < 0.6:
        content = about.means(rng, content)
    else:
        content = mutations.spoiled_bytes(rng, content, Path(about.other).read_bytes())
    if file.suffix == ".yaml":
        content = _cheap(content)
    file.write_bytes(content)
    choices = [*about.commands, *([] if about.read is None else [None])]
    return rng.choice(choices)


def _affordable(line: list[str]) -> list[str]:
    """Let no command line train for hours, which would be no fault."""
    for k in range(len(line) - 1):
        if line[k] == "--epochs" and line[k + 1].isdigit():
            line[k + 1] = str(min(2, int(line[k + 1])))
    return line


def _cheap(content: bytes) -> bytes:
    """Let no file of settings train for hours, start processes or wait for other machines, none of which is a fault."""
    try:
        values = yaml.safe_load(content)
        groups = [
            (values, "epochs", 2),
            (values, "devices", 1),
            (values, "nodes", 1),
            (values.get("lipschitz"), "steps", 2),
        ]
    except Exception:
        return content
    held = [(group, key, most) for group, key, most in groups if isinstance(group, dict)]
    many = [(group, key, most) for group, key, most in held if isinstance(group.get(key), int) and group[key] > most]
    for group, key, most in many:
        group[key] = most
    return yaml.safe_dump(values, sort_keys=False).encode() if many else content


def _read(about: Kind) -> tuple[str, str]:
    assert about.read is not None
    try:
        with _alarm():
            about.read(Path(about.file).resolve())
    except (ValueError, TypeError, OSError) as error:
        wrong = _no_sentence(str(error))
        return ("failed", f"{type(error).__name__} {wrong}") if wrong else ("refused", str(error))
    except (Exception, Hung):
        return "failed", traceback.format_exc()
    return "worked", ""


def _command(command: list[str], before: dict[str, str]) -> tuple[str, str]:
    err = io.StringIO()
    try:
        with _alarm(), contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
            status = main(command)
    except BaseException:
        return "failed", traceback.format_exc()
    told, after = err.getvalue(), contents(Path())
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    hidden = sorted(name for name in after if Path(name).name.startswith("."))
    if hidden:
        return "failed", f"it left {hidden}"
    if status == 2:
        wrong = _no_sentence(told.removesuffix("\n"), "cheaplip: ")
        if command[0] == "train":
            changed = {name for name in changed if Path(name).name not in BEGUN}
        if changed:
            wrong = f"refused, but changed {sorted(changed)}"
        return ("failed", f"{wrong}: {told}") if wrong else ("refused", told.strip())
    if status != 0 and (status, command[0]) != (3, "bounds"):
        return "failed", f"status {status}: {told}"
    try:
        wrong = _badly_written(command, changed, before)
    except (ValueError, OSError) as error:
        wrong = f"what it wrote cannot be read: {error}"
    return ("failed", wrong) if wrong else ("worked", told.strip())


def _no_sentence(told: str, begin: str = "") -> str:
    """Say what is wrong with a message, if anything is."""
    if not told.startswith(begin) or not told.removeprefix(begin).strip():
        return f"said {told[:300]!r}, no sentence"
    if "Traceback" in told or "\n" in told or (begin and not told.isprintable()):
        return f"said {told[-2000:]!r}, more than one printable line"
    return f"said {len(told)} characters, which is no sentence" if begin and len(told) > LONGEST else ""


def _badly_written(command: list[str], changed: set[str], before: dict[str, str]) -> str:
    """Say what a command that worked should not have changed, or left half-written."""
    allowed = WRITES.get(command[0], set())
    for name in sorted(changed):
        path, of_run = Path(name), Path(name).parent
        mine = command[0] in ("train", "reproduce") or name not in before or path.name in allowed
        if not mine or not path.is_file():
            return f"it changed {name}"
        if path.name == folder_files.RESULT:
            runs.read_result(of_run)
        elif path.name == folder_files.WEIGHTS:
            runs.load(of_run)
    return ""


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    """Raise Hung when a case takes too long."""

    def ring(number: int, frame: FrameType | None) -> NoReturn:
        raise Hung

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, float(os.environ.get("FUZZ_SECONDS", SECONDS)))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
