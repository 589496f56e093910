"""What is spoiled in cases of bad input: each kind has a file, ways to spoil it, and readers."""

from __future__ import annotations

import contextlib
import gzip
import io
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import mutations as spoil
import numpy as np
import pytest
import torch

import cheaplip as cl
from cheaplip import experiments, runs
from cheaplip.attacks.patch import Patch
from cheaplip.cli import main
from cheaplip.data.idx import FileInfo, parse_idx, read_verified
from cheaplip.experiments import stages
from cheaplip.experiments.jobs import Job
from cheaplip.experiments.outcome import read_json
from cheaplip.experiments.path.training import staged
from cheaplip.lipschitz import certificate
from cheaplip.report.reading import read_history, read_runs
from cheaplip.runs import folder as folder_files
from cheaplip.settings import ReproduceSettings

FACTORY = """
import io
from pathlib import Path
import numpy as np
import torch


def data():
    x = torch.rand(48, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    y = torch.arange(48) % 3
    return (x[:32], y[:32]), (x[32:], y[32:])


def own(data_dir):
    with np.load(io.BytesIO((Path(data_dir) / "own.npz").read_bytes())) as arrays:
        x, y = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"])
    return (x[:32], y[:32]), (x[32:], y[32:])
"""
TRAIN = ["train", "--data", "fuzz_factory:data", "--model", "mlp:16-6-3:relu", "--epochs", "2", "--batch-size", "16"]
TRAIN += ["--lipschitz.pairs", "4", "--device", "cpu"]


def run_here(jobs: list[Job], *_: Any, **__: Any) -> list[Any]:
    """Run the jobs of an experiment here, which is quicker than in other processes."""
    return [job.call(*job.arguments) for job in jobs]


def prepare(folder: Path, *, experiment: bool = True) -> Path:
    """Make what the cases spoil: runs, finished and begun, a certificate, a patch, data and an experiment."""
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "fuzz_factory.py").write_text(FACTORY)
    base = folder / "base"
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.syspath_prepend(str(folder / "code"))
        patch.setattr(stages, "run_all", run_here)
        for name, seed in (("one", 0), ("two", 1)):
            assert main([*TRAIN, "--seed", str(seed), "--out", str(base / name)]) == 0
        shutil.copytree(base / "one", base / "begun")
        for name in (folder_files.RESULT, folder_files.WEIGHTS):
            (base / "begun" / name).unlink()
        evaluate = ["evaluate", str(base / "one"), "--attacks", "noise,pgd-paper", "--eps", "1", "--limit", "4"]
        assert main(evaluate) == 0
        assert main(["bounds", str(base / "one"), "--save", str(base / "certificate.npz")]) == 0
        if experiment:
            experiments.reproduce("path", ReproduceSettings(epochs=1, jobs=1, out=str(base / "path")))
    (base / "settings.yaml").write_bytes((base / "one" / folder_files.CONFIG).read_bytes())
    Patch(torch.rand(1, 5, 5, generator=torch.Generator().manual_seed(0)), target=1).save(base / "patch.npz")
    rng = np.random.default_rng(0)
    np.savez(base / "own.npz", x=rng.random((48, 1, 4, 4), np.float32), y=np.arange(48) % 3)
    (base / "images.idx").write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 5, 0, 0, 0, 4, 0, 0, 0, 4]) + rng.bytes(80))
    raw = base / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress((base / "images.idx").read_bytes()))
    return folder


@final
@dataclass
class Kind:
    """One kind of case: which file is spoiled, how beside its bytes, and who reads it.

    Args:
        file: the file, in the folder of the case.
        means: spoils what the bytes mean.
        commands: one of them is given the case.
        read: a reader of the library.
        other: a file of another kind, to be swapped in.
    """

    file: str
    means: spoil.Mutator | None
    commands: list[list[str]]
    read: Callable[[Path], Any] | None = None
    other: str = "one/result.json"


ATTACK = ["evaluate", "one", "--attacks", "noise", "--limit", "5"]
COMPARE = ["compare", "one", "two"]
BOUND = ["bounds", "one", "--method", "product", "--seconds", "1"]
REPORT = ["report", "one", "--out", "page.html"]
RESUME = ["train", "--config", "settings.yaml", "--out", "begun", "--resume"]
CHECK = ["bounds", "one", "--check", "certificate.npz"]
KINDS = {
    "settings": Kind("settings.yaml", spoil.as_yaml, [["train", "--config", "settings.yaml", "--out", "new"]]),
    "config": Kind("one/config.yaml", spoil.as_yaml, [ATTACK, COMPARE, CHECK], lambda at: cl.load(at.parent)),
    "checkpoint": Kind("begun/checkpoint.pt", spoil.as_checkpoint, [RESUME], None, "one/model.safetensors"),
    "begun config": Kind("begun/config.yaml", spoil.as_yaml, [RESUME], lambda at: runs.read_config(at.parent)),
    "weights": Kind(
        "one/model.safetensors", spoil.as_weights, [ATTACK, CHECK], lambda at: cl.load(at.parent), "begun/checkpoint.pt"
    ),
    "result": Kind(
        "one/result.json", spoil.as_json, [COMPARE, ATTACK], lambda at: read_runs([at.parent]), "path/experiment.json"
    ),
    "metrics": Kind("one/metrics.csv", spoil.as_table, [COMPARE], read_history, "one/config.yaml"),
    "samples": Kind(
        "one/robust.npz", spoil.as_archive, [COMPARE, ATTACK], lambda at: runs.read_samples(at.parent), "own.npz"
    ),
    "patch": Kind("patch.npz", spoil.as_archive, [], Patch.load, "own.npz"),
    "certificate": Kind("certificate.npz", spoil.as_archive, [CHECK], certificate.load, "patch.npz"),
    "own data": Kind(
        "own.npz",
        spoil.as_archive,
        [[*TRAIN, "--data", "fuzz_factory:own", "--data-dir", ".", "--out", "new"]],
        None,
        "patch.npz",
    ),
    "idx": Kind("images.idx", None, [], lambda at: parse_idx(at.read_bytes())),
    "zipped": Kind(
        "data/MNIST/raw/train-labels-idx1-ubyte.gz",
        None,
        [["data", "verify", "--data", "mnist", "--data-dir", "data"]],
        lambda at: read_verified(at, FileInfo("images", "0" * 64, 96), "get it anew"),
    ),
    "experiment": Kind("path/experiment.json", spoil.as_json, [], read_json),
    "stages": Kind(
        "path/runs/growing-seed-0.json", spoil.as_json, [], lambda at: staged(at.parents[1], "growing", 0, 1).read()
    ),
    "report": Kind("one/result.json", spoil.as_json, [REPORT]),
    "reproduce": Kind(
        "path/runs/growing-seed-0.json",
        spoil.as_json,
        [["reproduce", "path", "--epochs", "1", "--jobs", "1", "--out", "path"]],
    ),
    "words": Kind("settings.yaml", None, []),
}
# Kinds of which a case takes seconds.
SLOW = ("report", "reproduce")


def words(rng: random.Random) -> list[str]:
    """Return a spoiled command line."""
    lines = [ATTACK, COMPARE, BOUND, CHECK, RESUME, [*TRAIN, "--out", "new"], ["data", "list"]]
    lines += [
        ["data", "verify"],
        ["reproduce", "toy", "--seeds", "2"],
        REPORT,
        ["train", "--help"],
        [*CHECK, "--claim", "2"],
    ]
    line = list(rng.choice(lines))
    options = ["--eps", "--limit", "--seed", "--out", "--data", "--target", "--p", "--domain", "--device", "--config"]
    options += ["--lipschitz.pairs", "--weight", "--penalty", "--shape", "--box", "--attacks", "--check", "-x", "--"]
    for _ in range(rng.choice((1, 1, 2, 3))):
        at, way = rng.randrange(len(line) + 1), rng.randrange(5)
        value = str(rng.choice(spoil.STRANGE[:-2]))[:3000]
        if way == 0 and at < len(line):
            del line[at]
        elif way == 1 and at < len(line):
            line[at] = value
        elif way == 2:
            line.insert(at, rng.choice(("one", "two", "none", "path", ".", "/dev/null", "--", value)))
        elif way == 3:
            line += [rng.choice(options), value]
        elif len(line) > 1:
            line.append(line.pop(rng.randrange(1, len(line))))
    return line
