"""Whatever a public function is called with, it works or says in one sentence of ours what is wrong.

What a user's own model raises comes through as it is.
"""

from __future__ import annotations

import inspect
import signal
import traceback
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import pytest
import torch
from public_calls import CALLS, Call, wrong

import cheaplip as cl
from cheaplip import norms

PACKAGE = str(Path(cl.__file__).parent)
SECONDS = 20


def fault(call: Call, argument: str, value: Any) -> str:
    """Say what is wrong with how a call ends; nothing where it works or is refused as it should be."""
    try:
        with torch.random.fork_rng():
            call.run(**{**call.arguments, argument: value})
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        if any("torch/nn/modules/" in frame.filename for frame in frames):
            return ""  # the model's own error, or that of the user's loss
        last = frames[-1]
        told = isinstance(error, (ValueError, TypeError, FileNotFoundError)) and "\n" not in str(error)
        ours = last.filename.startswith(PACKAGE) and str(last.line).startswith("raise")
        if told and (ours or "pathlib" in last.filename):  # Python says well what is no path
            return ""
        return f"{type(error).__name__}: {str(error)[:200]} ({last.filename}:{last.lineno})"
    return ""


def hang(number: int, frame: FrameType | None) -> NoReturn:
    raise AssertionError("it hangs")


@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning")
@pytest.mark.parametrize("name", [name for name, call in CALLS.items() if isinstance(call, Call)])
def test_wrong_argument_is_refused_in_one_sentence_of_ours(name: str) -> None:
    call = CALLS[name]
    assert isinstance(call, Call)
    before = signal.signal(signal.SIGALRM, hang)
    try:
        faults = {}
        for argument in call.tried or call.arguments:
            for label, value in wrong(argument, call.arguments[argument]).items():
                signal.alarm(SECONDS)
                if found := fault(call, argument, value):
                    faults[f"{argument} = {label}"] = found
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert not faults


@pytest.mark.parametrize("name", [name for name, call in CALLS.items() if isinstance(call, Call)])
def test_rows_of_the_table_work_when_nothing_is_wrong(name: str) -> None:
    call = CALLS[name]
    assert isinstance(call, Call)
    if name in ("load", "lipschitz.load"):
        with pytest.raises(FileNotFoundError):
            call.run(**call.arguments)
    elif name == "bounds":
        with pytest.raises(ValueError, match="finite"):
            call.run(**call.arguments)
    else:
        assert call.run(**call.arguments) is not call


def test_table_has_a_row_for_every_public_name() -> None:
    functions = {
        name for name, value in vars(norms).items() if inspect.isfunction(value) and value.__module__ == norms.__name__
    }
    public = {*cl.__all__, *cl.attacks.__all__, *cl.lipschitz.__all__, *(name for name in functions if name[0] != "_")}
    assert public - {"attacks", "lipschitz"} - CALLS.keys() == set()
    why = [call for call in CALLS.values() if isinstance(call, str)]
    assert len(why) < 12  # records and protocols, which compute nothing


NAN, INF = float("nan"), float("inf")
MUST_FAIL: list[tuple[str, str, Any, str]] = [
    ("lower", "x", torch.rand(6, 1, 6, 6) * NAN, "finite"),
    ("lower", "x", torch.rand(6, 1, 6, 6, device="meta"), "hold numbers"),
    ("certify", "y", torch.arange(6, device="meta") % 5, "one device"),
    ("LipschitzPenalty", "u", torch.rand(6, 1, 6, 6) + INF, "finite"),
    ("PGD", "x", torch.rand(6, 1, 6, 6, device="meta"), "hold numbers"),
    ("PGD", "x", (torch.rand(6, 1, 6, 6) * 255).byte(), "floating"),
    ("PGD", "y", torch.full((6,), 5), "labels must lie in 0..4"),
    ("one_step", "y", torch.full((6,), 5), "labels must lie in 0..4"),
    ("PaperPGD", "y", torch.full((6,), -1), "labels must lie in 0..4"),
    ("PGD", "generator", 3, "torch.Generator"),
    ("Gaussian", "x", [0.5], "must be a tensor"),
    ("evaluate", "device", "mars", "must be one that torch knows"),
    ("fit", "x", torch.rand(6, 1, 6, 6, device="meta"), "meta"),
    ("MarginLoss", "y", torch.full((6,), 9), "labels must lie in 0..4"),
    ("Discrepancy", "value", torch.zeros((), device="meta"), "one real number"),
    ("vector_norm", "x", torch.arange(3), "floating"),
    ("dual", "p", 3, "1, 2 or inf"),
]


@pytest.mark.parametrize(("name", "argument", "value", "message"), MUST_FAIL)
def test_what_would_give_a_wrong_number_is_refused(name: str, argument: str, value: Any, message: str) -> None:
    call = CALLS[name]
    assert isinstance(call, Call)
    with pytest.raises((ValueError, TypeError), match=message):
        call.run(**{**call.arguments, argument: value})
