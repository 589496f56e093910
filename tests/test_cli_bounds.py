"""The command bounds: what it prints and leaves, its exit status, and one line for every wrong thing."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import cheaplip as cl
from cheaplip import runs
from cheaplip.cli import main
from cheaplip.settings import BoundsSettings, settings_of

QUICK = ("--steps", "5")
FACTORIES = """
import torch
from torch import nn

def linear():
    net = nn.Linear(4, 2, bias=False)
    net.weight.data = torch.tensor([[3.0, 0, 0, 0], [0, 1, 0, 0]])
    return net

def other(): return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))

def nan():
    net = linear()
    net.weight.data[0, 1] = float("nan")
    return net

class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.out = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x):
        return self.out(self.cell(x)[0][:, -1])
"""


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    words = ["train", "--model", "mlp:64-16-16-10:relu", "--lipschitz.pairs", "4", "--epochs", "1", "--target", "null"]
    assert main([*words, "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished run that a test may spoil."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, from which factories are imported."""
    (tmp_path / "shelf").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "shelf" / "own_nets.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(str(tmp_path / "shelf"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def lipschitz_of(run: Path) -> dict[str, object]:
    return dict(runs.read_result(run)["lipschitz"])


def fails(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    """Run a command that must end with status 2 and this one line."""
    capsys.readouterr()
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("cheaplip: ")
    assert told.err.count("\n") == 1
    assert message in told.err


def test_bounds_of_a_run_are_printed_drawn_and_kept(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = lipschitz_of(run)
    assert before["upper_method"] == "ECLipsE-Fast"
    assert main(["bounds", str(run), *QUICK]) == 0
    out, after = capsys.readouterr().out, lipschitz_of(run)
    assert out.startswith("run (mlp:64-16-16-10:relu): Lip in the 2-norm, over all space\n")
    lines = {line.split("  ")[0]: line for line in out.splitlines()}
    assert " LipSDP-Neuron " in lines["upper"]
    assert "  yes " in lines["lower"]
    assert "  Linear  16 " in lines["3"]
    assert "upper / lower" in lines
    assert after["upper_method"] == "LipSDP-Neuron"
    assert before["lower"] <= after["lower"] <= after["upper"] < before["upper"]  # type: ignore[operator]
    assert (run / "bounds.png").read_bytes().startswith(b"\x89PNG")
    assert out.endswith(f"{run / 'bounds.png'}\n")
    assert runs.read_result(run)["seconds"]["bounds"] > 0


def test_worse_bound_replaces_no_better_one(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bounds", str(run), "--method", "sdp", "--steps", "20"]) == 0
    better = lipschitz_of(run)
    assert main(["bounds", str(run), "--method", "product", "--steps", "1", "--seed", "5"]) == 0
    assert lipschitz_of(run) == better
    assert "result.json keeps its better upper bound" in capsys.readouterr().out


def test_other_norms_and_boxes_leave_the_bounds_over_all_space_alone(run: Path) -> None:
    first = lipschitz_of(run)
    asked = [["--domain", "box"], ["--p", "inf"], ["--domain", "box", "--box=-1,2"], ["--domain", "box"]]
    for words in asked:
        assert main(["bounds", str(run), *words, "--method", "product", "--steps", "2"]) == 0
    after = lipschitz_of(run)
    others = after.pop("others")
    assert after == first
    assert isinstance(others, list)
    found = [(entry["domain"], entry["p_in"], entry.get("box")) for entry in others]
    assert found == [("box", "2", [0.0, 1.0]), ("all", "inf", None), ("box", "2", [-1.0, 2.0])]
    assert all(entry["lower"] <= entry["upper"] for entry in others)


def test_refuted_claim_leaves_a_pair_that_anyone_can_measure(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    claim = 0.5 * float(lipschitz_of(run)["lower"])  # type: ignore[arg-type]
    assert main(["bounds", str(run), "--claim", str(claim), *QUICK]) == 3
    assert "\nrefuted: a pair of inputs has the quotient " in capsys.readouterr().out
    with np.load(run / "witness.npz", allow_pickle=False) as file:
        u, v, lower = (torch.from_numpy(file[name]) for name in ("u", "v", "lower"))
        assert float(file["claim"]) == claim
    model = cl.load(run).double()
    with torch.no_grad():
        apart = model(u.unsqueeze(0)) - model(v.unsqueeze(0))
    quotient = float(apart.norm() / (u - v).norm())
    assert claim < float(lower) <= quotient
    assert not (run / "certificate.npz").exists()


def test_proven_claim_leaves_a_certificate_that_holds(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    claim = 1.5 * float(lipschitz_of(run)["upper"])  # type: ignore[arg-type]
    assert main(["bounds", str(run), "--claim", str(claim), *QUICK]) == 0
    assert "\nproven: Lip <= " in capsys.readouterr().out
    assert cl.lipschitz.check(cl.lipschitz.load(run / "certificate.npz"), cl.load(run)).value <= claim
    assert not (run / "witness.npz").exists()


def test_claim_inside_the_interval_stays_open(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bounds", "own_nets:other", "--shape", "4", "--method", "product", "--steps", "1"]
    found = runs.bound("own_nets:other", BoundsSettings(shape="4", method="product", steps=1))
    assert found.upper is not None
    claim = 0.1 * found.lower.value + 0.9 * found.upper.value
    assert main([*words, "--claim", str(claim)]) == 0
    assert "\nopen: Lip lies between " in capsys.readouterr().out
    assert [path.name for path in (here / "runs").rglob("*.npz")] == []


def test_factory_is_bounded_exactly_where_its_constant_is_known(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bounds", "own_nets:linear", "--shape", "4", "--out", "mine", *QUICK]) == 0
    lines = {line.split("  ")[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    assert float(lines["lower"][1]) == pytest.approx(3.0, rel=1e-4)
    assert 3.0 <= float(lines["upper"][1]) <= 3.001
    assert [path.name for path in (here / "mine").iterdir()] == ["bounds.png"]


def test_layer_that_is_not_understood_leaves_the_lower_bound(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bounds", "own_nets:Recurrent", "--shape", "5,3", *QUICK]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "\nlower " in out
    assert "\nthere is no upper bound: module 'cell' (LSTM) is not understood" in out
    fails(capsys, [*words, "--save", "cert.npz"], "there is no certificate to save: module 'cell' (LSTM)")
    assert list(here.iterdir()) == []


def test_saved_certificate_is_verified_from_scratch(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = run.parent / "box.npz"
    assert main(["bounds", str(run), "--domain", "box", "--save", str(file), *QUICK]) == 0
    value = cl.lipschitz.load(file).value
    capsys.readouterr()
    for claim, verdict in ((2 * value, "proven: this is at most"), (value / 2, "open: a certificate refutes nothing")):
        assert main(["bounds", "--check", str(file), str(run), "--claim", str(claim)]) == 0
        out = capsys.readouterr().out
        assert f"{file} holds for run (mlp:64-16-16-10:relu), verified from scratch" in out
        assert "in the 2-norm, for inputs in the box [0, 1], by LipSDP-Neuron" in out
        assert f"\n{verdict}" in out


def test_certificate_that_proves_nothing_is_bad_input(
    run: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bound = cl.lipschitz.upper(cl.load(run), torch.zeros(1, 1, 8, 8))
    good = bound.certificate
    assert good is not None
    (part,) = good.parts
    assert part.multipliers is not None
    nudged = part.multipliers.clone()
    nudged[0] *= 2
    bad = {
        "nudged": (good, dataclasses.replace(part, multipliers=nudged), "is not positive definite"),
        "smaller": (good, dataclasses.replace(part, value=0.99 * part.value), "is not positive definite"),
        "negative": (good, dataclasses.replace(part, value=-part.value), "its parts do not follow the layers"),
        "backward": (
            good,
            dataclasses.replace(part, start=part.end, end=part.start),
            "its parts do not follow the layers",
        ),
        "boastful": (dataclasses.replace(good, value=0.99 * good.value), part, "its parts prove "),
        "of no shape": (dataclasses.replace(good, shape=(-1, 64)), part, "are none: it is damaged"),
        "of another shape": (dataclasses.replace(good, shape=(64,)), part, "is of another model: it is for inputs"),
    }
    for name, (certificate, changed, message) in bad.items():
        file = dataclasses.replace(certificate, parts=(changed,)).save(f"{name}.npz")
        fails(capsys, ["bounds", str(run), "--check", str(file)], message)
    Path("text.npz").write_text("no zip")
    fails(capsys, ["bounds", str(run), "--check", "text.npz"], "text.npz is no certificate of cheaplip, or damaged")
    good.save("good.npz")
    fails(capsys, ["bounds", str(run), "--check", "good.npz", "--p", "1"], "good.npz is for p = 2; got p = 1")
    fails(capsys, ["bounds", "own_nets:other", "--check", "good.npz"], "the model must take inputs of shape (1, 8, 8)")
    fails(capsys, ["bounds", str(run), "--check", "none.npz"], "there is no certificate none.npz")


BAD = {
    "nothing": ([], "target"),
    "no run": (["nowhere"], "expected a run folder, found no folder nowhere"),
    "no factory": (["no.such:thing", "--shape", "3"], "No module named 'no'"),
    "no shape": (["own_nets:linear"], "the shape of one input of own_nets:linear must be known: give --shape"),
    "shape in words": (["own_nets:linear", "--shape", "four"], "shape must be whole numbers above 0, joined by commas"),
    "empty shape": (["own_nets:linear", "--shape", "0"], "shape must be whole numbers above 0"),
    "shape that does not fit": (["own_nets:linear", "--shape", "5"], "the model must take inputs of shape (5,)"),
    "shape beside data": (["own_nets:linear", "--shape", "4", "--data", "digits"], "is not that of digits, (1, 8, 8)"),
    "data that does not fit": (
        ["own_nets:linear", "--data", "digits"],
        "the model must take inputs of shape (1, 8, 8)",
    ),
    "weights NaN": (["own_nets:nan", "--shape", "4"], "finite real weights"),
    "norm": (["own_nets:linear", "--p", "3"], "p must be one of 1, 2, inf, or null; got '3'"),
    "method": (["own_nets:linear", "--method", "best"], "method must be one of auto, product, eclipse, sdp"),
    "method for another norm": (["own_nets:linear", "--shape", "4", "--p", "1", "--method", "sdp"], "use 'product'"),
    "domain": (["own_nets:linear", "--domain", "ball"], "domain must be one of all, box; got 'ball'"),
    "box": (["own_nets:linear", "--box", "1,0"], "box must be two finite numbers LOW,HIGH with LOW < HIGH"),
    "box without end": (["own_nets:linear", "--box", "0,inf"], "box must be two finite numbers"),
    "data without a box": (["mlp:1-4-1", "--data", "regression", "--domain", "box"], "regression has no box: give one"),
    "seconds": (["own_nets:linear", "--seconds", "-1"], "seconds must be a number of at least 0; got -1.0"),
    "steps": (["own_nets:linear", "--steps", "0"], "steps must be a whole number of at least 1, or null; got 0"),
    "claim": (["own_nets:linear", "--claim", "nan"], "claim must be a number of at least 0, or null; got 'nan'"),
    "seed": (["own_nets:linear", "--seed", "-1"], "seed must be a whole number of at least 0, or null; got -1"),
    "save and check": (["x", "--save", "a.npz", "--check", "b.npz"], "a check makes no certificate"),
    "save to a folder": (
        ["own_nets:linear", "--shape", "4", "--save", ".."],
        "a folder: name a file, such as cert.npz",
    ),
    "misspelt option": (["own_nets:linear", "--claims", "3"], "unknown option --claims, did you mean --claim?"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_told_in_one_line_and_leaves_nothing(
    arguments: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fails(capsys, ["bounds", *arguments], message)
    assert list(here.iterdir()) == []


def test_run_takes_no_other_shape_and_no_spoilt_results(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(capsys, ["bounds", str(run), "--shape", "64"], "takes inputs of shape (1, 8, 8); got 64: leave it out")
    (run / "result.json").write_text('{"lipschitz": {"lower": 1, "others": [3]}}')
    fails(capsys, ["bounds", str(run), *QUICK], "its key 'lipschitz.others' must be a list of bounds")


def test_help_names_every_option_with_its_default_and_the_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bounds", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "status 3: a claim is refuted" in text
    for setting in settings_of(BoundsSettings):
        _, found, after = text.partition(f" --{setting.name.replace('_', '-')} ")
        default = "null" if setting.default is None else setting.default
        assert found, setting.name
        assert f"default: {default})" in after.partition(" --")[0], setting.name
