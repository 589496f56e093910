"""Stopped and killed at any time: what is done is saved, and a resumed run has the bits of an undisturbed one."""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from soak.kills import ATTACKS, TRAIN, TRAINING, chain, differences, evaluation
from test_training import Loader, Run, blobs, same_bits
from torch import Tensor, nn

from cheaplip.cli import main
from cheaplip.data import BatchLoader
from cheaplip.training.checkpoint import FILE
from cheaplip.training.step import Step
from cheaplip.training.stopping import Stopping


def batches(size: int = 16, shift: float = 0.0) -> BatchLoader:
    return BatchLoader(blobs().x + shift, blobs().y, size, seed=3)


class Stops:
    """A loss that sends signals to this process while it computes a step, and counts its steps."""

    def __init__(self, step: int, *numbers: signal.Signals) -> None:
        self.step, self.numbers, self.steps = step, numbers, 0

    def __call__(self, output: Tensor, y: Tensor) -> Tensor:
        self.steps += 1
        if self.steps == self.step:
            for number in self.numbers:
                signal.raise_signal(number)
        return F.cross_entropy(output, y)


def stopped(run: Run, step: int, *numbers: signal.Signals, **arguments: Any) -> str:
    """Train until the signals come, and return what the interruption says."""
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    settings: dict[str, Any] = {"loader": batches(), "loss": Stops(step, *numbers)}
    with pytest.raises(KeyboardInterrupt) as caught:
        run.fit(**(settings | arguments))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    return str(caught.value)


def score(model: nn.Module) -> float:
    return float(next(model.parameters()).detach().sum() + torch.randn(()))


# Six steps an epoch: in the first one, in the middle of one, at the end of one, and twice in one.
@pytest.mark.parametrize("steps", [(1,), (9,), (12,), (8, 2), (6, 6, 1)])
def test_interrupted_run_goes_on_inside_the_epoch_with_the_bits_of_the_undisturbed_one(
    steps: tuple[int, ...], tmp_path: Path
) -> None:
    arguments: dict[str, Any] = {"epochs": 4, "seed": 7, "select": score, "lower": score, "lower_every": 2}
    undisturbed_run, resumed_run = Run(dropout=0.3, renew=3), Run(dropout=0.3, renew=3)
    undisturbed = undisturbed_run.fit(loader=batches(), **arguments)
    arguments |= {"checkpoint": tmp_path, "resume": True}
    for step in steps:
        stopped(Run(dropout=0.3, renew=3), step, signal.SIGINT, **arguments)
    resumed = resumed_run.fit(**arguments, loader=batches())
    assert same_bits(undisturbed_run.state(), resumed_run.state())
    assert resumed.kept == undisturbed.kept
    names = [name for name in undisturbed.columns if name != "seconds"]
    for name in names:
        assert str(resumed.column(name)) == str(undisturbed.column(name))  # NaN where nothing was measured
    assert all(seconds > 0 for seconds in resumed.column("seconds"))


def test_interruption_finishes_the_step_and_says_how_to_go_on(tmp_path: Path) -> None:
    run = Run()
    loss = Stops(9, signal.SIGINT)
    said = stopped(run, 9, loss=loss, checkpoint=tmp_path)
    assert said.startswith("stopped in epoch 2, whose first 3 steps are saved; go on by fit(..., checkpoint=")
    assert "resume=True" in said
    assert loss.steps == 9
    state = torch.load(tmp_path / FILE, weights_only=True)
    assert state["inside"]["steps"] == 3
    assert all(torch.equal(value, run.model.state_dict()[name]) for name, value in state["model"].items())


def test_loader_of_a_user_begins_the_interrupted_epoch_anew_with_the_bits_of_the_undisturbed_run(
    tmp_path: Path,
) -> None:
    whole_run, resumed_run = Run(dropout=0.3), Run(dropout=0.3)
    undisturbed = whole_run.fit(epochs=3)
    said = stopped(Run(dropout=0.3), 9, signal.SIGINT, loader=blobs(), epochs=3, checkpoint=tmp_path)
    assert said.startswith("stopped in epoch 2, which begins anew; go on by fit(")
    assert "inside" not in torch.load(tmp_path / FILE, weights_only=True)
    resumed = resumed_run.fit(epochs=3, checkpoint=tmp_path, resume=True)
    assert same_bits(whole_run.state(), resumed_run.state())
    assert resumed.column("loss") == undisturbed.column("loss")


def test_loader_whose_processes_heard_ctrl_c_too_is_no_error(tmp_path: Path) -> None:
    class Dying(Loader):
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            yield from list(super().__iter__())[:2]
            signal.raise_signal(signal.SIGINT)
            raise RuntimeError("DataLoader worker exited unexpectedly")

    data = blobs()
    said = stopped(Run(), 0, loader=Dying(data.x, data.y), checkpoint=tmp_path)
    assert "before anything was saved" in said


@pytest.mark.parametrize(
    "other", [batches(size=10), batches(shift=1.0), BatchLoader(blobs().x, blobs().y, 90), blobs()]
)
def test_checkpoint_inside_an_epoch_is_refused_for_a_loader_that_does_not_go_on_there(
    other: Any, tmp_path: Path
) -> None:
    stopped(Run(), 9, signal.SIGINT, checkpoint=tmp_path)
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(ValueError, match="it was stopped inside epoch 2 by a loader that goes on there"):
        Run().fit(loader=other, checkpoint=tmp_path, resume=True)
    assert (tmp_path / FILE).read_bytes() == before


@pytest.mark.parametrize(
    "damage", [{"steps": 0}, {"steps": "3"}, {"sums": {}}, {"seconds": None}, {"batch": 5}, {"more": 1}]
)
def test_damaged_state_inside_an_epoch_is_refused(damage: dict[str, Any], tmp_path: Path) -> None:
    stopped(Run(), 9, signal.SIGINT, checkpoint=tmp_path)
    state = torch.load(tmp_path / FILE, weights_only=True)
    state["inside"] |= damage
    torch.save(state, tmp_path / FILE)
    with pytest.raises(ValueError, match=r"cannot resume from .* but it is damaged"):
        Run().fit(loader=batches(), checkpoint=tmp_path, resume=True)


def test_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    loss = Stops(9, signal.SIGINT, signal.SIGINT)
    said = stopped(Run(), 9, loss=loss, checkpoint=tmp_path)
    assert said == "stopped at once"
    assert "inside" not in torch.load(tmp_path / FILE, weights_only=True)


def test_without_a_folder_ctrl_c_stops_at_once() -> None:
    run = Run()
    with pytest.raises(KeyboardInterrupt):
        run.fit(loader=batches(), loss=Stops(1, signal.SIGINT))
    assert same_bits(run.state()[:2], Run().state()[:2])


def test_sigterm_is_handed_on_after_the_step_even_if_it_comes_twice(tmp_path: Path) -> None:
    def leave(number: int, frame: Any) -> None:
        raise SystemExit(5)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        with pytest.raises(SystemExit, match="5"):
            Run().fit(loader=batches(), loss=Stops(9, signal.SIGTERM, signal.SIGTERM), checkpoint=tmp_path)
        assert signal.getsignal(signal.SIGTERM) is leave
    finally:
        signal.signal(signal.SIGTERM, before)
    assert torch.load(tmp_path / FILE, weights_only=True)["inside"]["steps"] == 3


def test_ignored_signals_stay_ignored_and_other_threads_leave_signals_alone(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Stopping() as stop:
            signal.raise_signal(signal.SIGINT)
            assert not stop.asked
    finally:
        signal.signal(signal.SIGINT, before)
    thread = threading.Thread(target=Run().fit, kwargs={"epochs": 1, "checkpoint": tmp_path})
    thread.start()
    thread.join()
    assert (tmp_path / FILE).exists()


@pytest.mark.parametrize(
    ("number", "status", "name"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")]
)
def test_stopped_command_saves_inside_the_epoch_and_resumes_to_the_same_bits(
    number: signal.Signals,
    status: int,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["train", "--epochs", "3", "--model", "mlp:64-16-10:relu", "--lipschitz.pairs", "8", "--out"]
    one, other = [*arguments, str(tmp_path / "a")], [*arguments, str(tmp_path / "b")]
    with monkeypatch.context() as patch:
        real, steps = Step.__call__, iter(range(100))

        def step(self: Step, x: Tensor, y: Tensor, stop: bool = False) -> bool:
            if next(steps) == 12:  # the fourth of the second epoch
                signal.raise_signal(number)
            return real(self, x, y, stop)

        patch.setattr(Step, "__call__", step)
        assert main(one) == status
    go_on = f"go on with cheaplip {' '.join(one)} --resume"
    assert capsys.readouterr().err == f"cheaplip: stopped by {name}; what is done is saved: {go_on}\n"
    assert torch.load(tmp_path / "a" / FILE, weights_only=True)["inside"]["steps"] == 4
    assert main([*one, "--resume"]) == 0
    assert main(other) == 0
    assert list(differences(tmp_path / "a", tmp_path / "b")) == []


def test_three_kills_lose_nothing(tmp_path: Path) -> None:
    run, attacked = tmp_path / "run", tmp_path / "attacked"
    assert main([*TRAIN, "--out", str(run)]) == 0
    shutil.copytree(run, attacked)
    assert main(["evaluate", *ATTACKS, str(attacked)]) == 0
    trained = chain(TRAINING, tmp_path / "a", run, 5.0, ["writing", "writing"], "seed 0")
    evaluated = chain(evaluation(run), tmp_path / "b", attacked, 5.0, ["writing"], "seed 1")
    assert trained.faults + evaluated.faults == []
    assert trained.resumed + evaluated.resumed == trained.kills + evaluated.kills == 3
