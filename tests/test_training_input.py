"""fit(): what it refuses, in one sentence, and what a resumed run takes over."""

from __future__ import annotations

import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_training import Loader, Run, blobs, same_bits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import cheaplip as cl
from cheaplip.training.checkpoint import FILE
from cheaplip.training.progress import Progress


class Plain:
    """The smallest penalty: a number for λ, and no state."""

    def __init__(self, weight: Any = 0.1, power: int = 2) -> None:
        self.weight, self.power = weight, power

    def __call__(self, model: nn.Module) -> Tensor:
        total = torch.stack([(p.abs() ** self.power).sum() for p in model.parameters()]).sum()
        return torch.as_tensor(self.weight * total)


class PlainModule(nn.Module):
    """A module whose λ is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = 0.1

    def forward(self, model: nn.Module) -> Tensor:
        return self.weight * torch.stack([p.square().sum() for p in model.parameters()]).sum()


def plain_run(make: Any) -> Run:
    run = Run()
    run.penalty = make()
    run.control = cl.Discrepancy(run.penalty, target=0.9, step=0.02)
    return run


@pytest.mark.parametrize("make", [Plain, lambda: Plain(torch.tensor(0.1)), PlainModule])
def test_weight_of_a_penalty_without_a_state_is_resumed(make: Any, tmp_path: Path) -> None:
    whole, first, second = (plain_run(make) for _ in range(3))
    undisturbed = whole.fit(epochs=3)
    first.fit(epochs=1, checkpoint=tmp_path)
    resumed = second.fit(epochs=3, checkpoint=tmp_path, resume=True)
    assert float(first.penalty.weight) != 0.1
    assert type(second.penalty.weight) is type(whole.penalty.weight)
    assert resumed.column("weight") == undisturbed.column("weight")
    assert resumed.column("loss") == undisturbed.column("loss")


def shuffled(seed: int) -> DataLoader[Any]:
    data = TensorDataset(blobs().x, blobs().y)
    return DataLoader(data, batch_size=16, shuffle=True, generator=torch.Generator().manual_seed(seed))


def test_loader_with_a_generator_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole, first, second = Run(), Run(), Run()
    whole.fit(epochs=3, loader=shuffled(3))
    first.fit(epochs=1, loader=shuffled(3), checkpoint=tmp_path)
    second.fit(epochs=3, loader=shuffled(8), checkpoint=tmp_path, resume=True)  # another state, which is replaced
    assert same_bits(whole.state(), second.state())


def score(model: nn.Module) -> float:
    first = next(iter(model.parameters()))
    return float(first.detach().sum() + torch.randn(()))


@pytest.mark.parametrize("broken", ["select", "lower"])
def test_epoch_survives_an_error_in_its_measurements(broken: str, tmp_path: Path) -> None:
    def fails(model: nn.Module) -> float:
        raise KeyboardInterrupt

    calls: dict[str, Any] = {"select": score, "lower": score}
    whole, first, second = Run(dropout=0.3), Run(dropout=0.3), Run(dropout=0.3)
    undisturbed = whole.fit(epochs=3, **calls)
    with pytest.raises(KeyboardInterrupt):
        first.fit(epochs=3, checkpoint=tmp_path, **(calls | {broken: fails}))
    assert len(torch.load(tmp_path / FILE, weights_only=True)["rows"]) == 1
    resumed = second.fit(epochs=3, checkpoint=tmp_path, resume=True, **calls)
    assert same_bits(whole.state(), second.state())
    assert resumed.kept == undisturbed.kept
    for name in ("loss", "score", "lower"):
        assert resumed.column(name) == undisturbed.column(name)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"search": "paper"}, "penalty_0.pairs.search = 'ascent', and now has 'paper'"),
        ({"steps": 2}, "penalty_0.steps = 1, and now has 2"),
        ({"reduce": ("softmax", 0.5)}, "penalty_0.reduce"),
        ({"p_out": 1}, "penalty_0.pairs.p_out"),
    ],
)
def test_resume_with_another_penalty_names_the_difference(changes: Any, named: str, tmp_path: Path) -> None:
    Run().fit(epochs=1, checkpoint=tmp_path)
    with pytest.raises(ValueError, match=re.escape(named)) as caught:
        Run(**changes).fit(epochs=2, checkpoint=tmp_path, resume=True)
    assert "\n" not in str(caught.value)


def test_resume_with_another_control_names_the_difference(tmp_path: Path) -> None:
    Run().fit(epochs=1, checkpoint=tmp_path)
    other = Run()
    other.control = cl.Discrepancy(other.penalty, target=0.8, step=0.02)
    with pytest.raises(ValueError, match=r"control_0\.target = 0\.9, and now has 0\.8"):
        other.fit(epochs=2, checkpoint=tmp_path, resume=True)


def test_settings_of_a_checkpoint_that_are_no_numbers_or_words_are_damage(tmp_path: Path) -> None:
    Run().fit(epochs=1, checkpoint=tmp_path)
    state = torch.load(tmp_path / FILE, weights_only=True)
    state["settings"]["control_0.target"] = torch.ones(2)
    torch.save(state, tmp_path / FILE)
    with pytest.raises(ValueError, match="but it is damaged"):
        Run().fit(epochs=2, checkpoint=tmp_path, resume=True)


@pytest.mark.parametrize("number", [1e308, math.inf, -(10**400)])
def test_rows_of_a_checkpoint_that_cannot_be_summed_up_are_damage(number: float, tmp_path: Path) -> None:
    Run().fit(epochs=1, checkpoint=tmp_path)
    state = torch.load(tmp_path / FILE, weights_only=True)
    state["rows"][0]["seconds"] = number
    torch.save(state, tmp_path / FILE)
    with pytest.raises(ValueError, match="but it is damaged"):
        Run().fit(epochs=2, checkpoint=tmp_path, resume=True)


def test_numbers_beyond_any_float_in_a_checkpoint_are_a_difference(tmp_path: Path) -> None:
    Run().fit(epochs=1, checkpoint=tmp_path)
    state = torch.load(tmp_path / FILE, weights_only=True)
    state["settings"]["control_0.target"] = 10**400
    torch.save(state, tmp_path / FILE)
    with pytest.raises(ValueError, match=r"begun with control_0\.target = 1000"):
        Run().fit(epochs=2, checkpoint=tmp_path, resume=True)


def test_same_objects_may_resume_though_their_counters_moved(tmp_path: Path) -> None:
    whole, run = Run(renew=2), Run(renew=2)
    whole.fit(epochs=3)
    for epochs in (1, 2, 3):
        run.fit(epochs=epochs, checkpoint=tmp_path, resume=True)
    assert same_bits(whole.state(), run.state())


def test_damaged_and_foreign_checkpoints_are_told_apart_without_torchs_own_words(tmp_path: Path) -> None:
    Run().fit(epochs=1, checkpoint=tmp_path)
    other = Run()
    other.model = nn.Sequential(nn.Linear(4, 3))
    sgd = torch.optim.SGD(other.model.parameters())
    with pytest.raises(ValueError, match="but its model holds other parts or shapes; resume"):
        other.fit(checkpoint=tmp_path, resume=True, optimizer=sgd)
    with pytest.raises(ValueError, match=r"but it holds other parts \(control_0\); resume"):
        Run().fit(checkpoint=tmp_path, resume=True, control=None)
    run = Run()
    adam = torch.optim.Adam(run.model.parameters())
    with pytest.raises(ValueError, match="but it was begun with optimizer = SGD, and now has Adam; resume"):
        run.fit(checkpoint=tmp_path, resume=True, optimizer=adam)
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:1500])
    with pytest.raises(ValueError, match="but it is cut short or damaged; resume"):
        Run().fit(checkpoint=tmp_path, resume=True)


def test_data_that_turn_out_not_to_be_finite_are_thought_of() -> None:
    x, y = blobs().x.clone(), blobs().y
    x[0, 0] = torch.nan
    batches = [(blobs().x, y), (x, y)]
    with pytest.raises(ValueError, match="lower the learning rate or λ, or remove NaN and infinite values from the"):
        Run().fit(epochs=1, loader=batches, penalty=None, control=None)


def test_unwritable_checkpoint_folder_is_found_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    run = Run()
    before = run.state()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match="cannot write checkpoints into"):
            run.fit(checkpoint=folder)
    assert same_bits(before, run.state())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), "good", None, torch.zeros(2)])
def test_score_that_cannot_be_compared_is_refused_naming_the_epoch(value: Any) -> None:
    scores = iter([0.5, value])
    with pytest.raises(ValueError, match=r"select must return .* in epoch 2"):
        Run().fit(select=lambda _: next(scores))


@pytest.mark.parametrize("labels", [(90, 1), (90, 3)])
def test_accuracy_needs_one_class_label_per_row(labels: tuple[int, int]) -> None:
    y = (blobs().y.unsqueeze(1) == torch.arange(3)).long()[:, : labels[1]]
    loader = Loader(blobs().x, y)

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square().mean()

    history = Run().fit(epochs=1, loader=loader, loss=loss, control=None)
    assert "accuracy" not in history.columns
    for per in ("batch", "epoch"):
        with pytest.raises(ValueError, match=r"a control of accuracy needs class labels \(batch,\)"):
            Run().fit(epochs=1, loader=loader, loss=loss, control_per=per)


def generator() -> Any:
    yield cl.WeightPenalty(weight=0.1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"penalty": 3, "control": None}, TypeError, "penalty must be .*; got 3"),
        ({"penalty": "lipschitz", "control": None}, TypeError, "penalty must be .*; got 'lipschitz'"),
        ({"penalty": generator(), "control": None}, TypeError, "penalty must be .*; got generator"),
        ({"penalty": cl.WeightPenalty, "control": None}, TypeError, "got the class WeightPenalty"),
        ({"penalty": None}, ValueError, "a control drives a penalty that is not trained with"),
        ({"control": "x"}, TypeError, "control must be a Discrepancy, .*; got 'x'"),
        ({"select": 3}, TypeError, "select must be a function or None; got 3"),
        ({"adversary": "pgd"}, TypeError, "adversary must be a function or None; got 'pgd'"),
        ({"lower": 2.5}, TypeError, "lower must be a function or None; got 2.5"),
        ({"loss": None}, TypeError, "loss must be a function; got NoneType"),
        ({"loss": nn.CrossEntropyLoss}, TypeError, "got the class CrossEntropyLoss"),
        ({"optimizer": "sgd"}, TypeError, "optimizer must be a torch.optim.Optimizer; got 'sgd'"),
        ({"scheduler": 3}, TypeError, "scheduler must be a learning rate scheduler"),
        ({"fabric": 3}, TypeError, "fabric must be a lightning_fabric.Fabric, or None; got 3"),
        ({"seed": "a"}, ValueError, "seed must be a whole number of at least 0; got 'a'"),
        ({"seed": 2**64}, ValueError, "seed must be below"),
        ({"epochs": True}, ValueError, "epochs must be a whole number of at least 1; got True"),
        ({"checkpoint": 3}, TypeError, "checkpoint must be the path of a folder"),
        ({"resume": True}, ValueError, "resume=True needs the folder"),
        ({"resume": "yes"}, TypeError, "resume must be True or False"),
        ({"progress": 3}, TypeError, "progress must be True, False or None"),
        ({"loader": [3]}, ValueError, r"must give pairs \(x, y\); got a int"),
        ({"loader": [{"x": 1, "y": 2}]}, ValueError, r"must give pairs \(x, y\); got a dict"),
        ({"loader": [(torch.ones(2, 4),) * 3]}, ValueError, "got a tuple of 3"),
        ({"loader": [(torch.ones(2, 4), [0, 1])]}, TypeError, "pairs of tensors .*; got Tensor and list"),
        ({"loader": [(torch.ones(2, 4), torch.ones(3))]}, ValueError, r"got shapes \(2, 4\) and \(3,\)"),
        ({"loader": [(torch.ones(2, 4), torch.tensor(1))]}, ValueError, "as many rows"),
        ({"loss": nn.CrossEntropyLoss(reduction="none")}, ValueError, r'got shape \(16,\): use reduction="mean"'),
        ({"loss": lambda output, y: 0.5}, TypeError, "loss must return a tensor"),
        ({"loss": lambda output, y: output.detach().sum()}, ValueError, "loss must be differentiable"),
    ],
)
def test_wrong_argument_is_refused_in_one_sentence(arguments: Any, error: type[Exception], message: str) -> None:
    run = Run()
    before = run.state()[:4]
    with pytest.raises(error, match=message) as caught:
        run.fit(**arguments)
    assert "\n" not in str(caught.value)
    assert same_bits(before, run.state()[:4])


def test_optimizer_must_drive_the_model_and_need_no_closure() -> None:
    with pytest.raises(ValueError, match="the optimizer drives no parameter of the model"):
        Run().fit(optimizer=Run().optimizer)
    run = Run()
    with pytest.raises(ValueError, match="LBFGS evaluates the loss several times per step"):
        run.fit(optimizer=torch.optim.LBFGS(run.model.parameters()), scheduler=None)


def test_plateau_scheduler_is_given_the_loss_of_the_epoch() -> None:
    run = Run()
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(run.optimizer, patience=0, threshold=1e6, threshold_mode="abs")
    history = run.fit(epochs=4, scheduler=plateau)
    assert plateau.best == history[0]["loss"]
    assert history.column("rate") == pytest.approx([0.1, 0.1, 0.01, 0.001])
    with pytest.raises(ValueError, match='use scheduler_per="epoch"'):
        run.fit(scheduler=plateau, scheduler_per="batch")


def test_several_processes_must_be_launched() -> None:
    several = SimpleNamespace(setup=F, to_device=F, backward=F, world_size=2, global_rank=0)
    with pytest.raises(ValueError, match=r"a fabric of 2 processes must be launched first"):
        Run().fit(fabric=several)


def test_gradient_of_several_processes_is_known() -> None:
    with pytest.raises(ValueError, match='gradient must be "max" or "mean"; got \'median\''):
        Run().fit(gradient="median")


def test_progress_bar_calls_the_figures_by_their_names_in_prose() -> None:
    bar = Progress(3, shown=True)
    bar.show(1, {"loss": 0.5, "value": 2.0, "weight": 0.1})
    assert bar._bar.tasks[0].description == "loss 0.5  Lip 2  λ 0.1"
