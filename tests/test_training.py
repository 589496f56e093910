"""fit(): the joint loop and all that rides on it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cheaplip as cl
from cheaplip.pairs.chains import Chain
from cheaplip.penalties import lipschitz
from cheaplip.penalties.sharing import shared
from cheaplip.training.checkpoint import FILE

Batch = tuple[Tensor, Tensor]


class Loader:
    """Shuffled minibatches whose order depends on the epoch alone."""

    def __init__(self, x: Tensor, y: Tensor, size: int = 16) -> None:
        self.x, self.y, self.size, self.epoch = x, y, size, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.x) // self.size)

    def __iter__(self) -> Iterator[Batch]:
        order = torch.randperm(len(self.x), generator=torch.Generator().manual_seed(self.epoch))
        for at in torch.split(order, self.size):
            yield self.x[at], self.y[at]


def blobs(classes: int = 3) -> Loader:
    generator = torch.Generator().manual_seed(5)
    y = torch.arange(90) % classes
    x = torch.randn(90, 4, generator=generator) * 0.4 + F.one_hot(y, 4).float()
    return Loader(x, y)


class Run:
    """A model and everything that trains it, always the same."""

    def __init__(self, dropout: float | None = 0.0, **penalty: Any) -> None:
        torch.manual_seed(1)
        between = [] if dropout is None else [nn.Dropout(dropout)]
        self.model = nn.Sequential(nn.Linear(4, 12), nn.Sigmoid(), *between, nn.Linear(12, 3))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 1, 0.8)
        self.penalty = cl.LipschitzPenalty.from_data(blobs().x, weight=0.1, pairs=8, **penalty)
        self.control = cl.Discrepancy(self.penalty, target=0.9, step=0.02)

    def fit(self, epochs: int = 3, **arguments: Any) -> cl.History:
        settings: dict[str, Any] = {"penalty": self.penalty, "control": self.control, "scheduler": self.scheduler}
        settings |= {"loss": F.cross_entropy, "optimizer": self.optimizer, "epochs": epochs, "progress": False}
        return cl.fit(self.model, **({"loader": blobs()} | settings | arguments))

    def state(self) -> list[Tensor]:
        parts = [*self.model.state_dict().values(), *self.penalty.state_dict().values()]
        return [tensor.clone() for tensor in parts]


def same_bits(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("dropout", [0.0, None])
def test_fit_equals_the_joint_loop_written_by_hand_bit_for_bit(
    dropout: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    forwards: list[nn.Module] = []

    def recorded(chain: Chain, *rest: Any) -> tuple[Tensor, Tensor]:
        forwards.append(chain.model)
        return shared(chain, *rest)

    monkeypatch.setattr(lipschitz, "shared", recorded)
    by_fit, by_hand, loader = Run(dropout), Run(dropout), blobs()
    history = by_fit.fit(epochs=3)
    for epoch in range(3):
        loader.set_epoch(epoch)
        by_hand.model.train()
        for x, y in loader:
            logits, reg = by_hand.penalty.joint(by_hand.model, x)
            loss = F.cross_entropy(logits, y) + reg
            by_hand.optimizer.zero_grad()
            torch.autograd.backward(loss)
            by_hand.optimizer.step()
            by_hand.control.step((logits.argmax(1) == y).sum() / len(y))
        by_hand.scheduler.step()
    assert same_bits(by_fit.state(), by_hand.state())
    assert history.column("steps") == [6, 12, 18]
    # Without a layer that differs in training, both take the way of a chain of plain layers.
    assert forwards == ([] if dropout is not None else 18 * [by_fit.model] + 18 * [by_hand.model])
    assert history.column("weight")[-1] == float(by_hand.penalty.weight)


def test_history_holds_true_loss_accuracy_and_rate() -> None:
    run = Run()
    model, loader = copy.deepcopy(run.model), blobs()
    frozen = torch.optim.SGD(run.model.parameters(), lr=0.0)
    history = run.fit(epochs=1, optimizer=frozen, scheduler=None, penalty=None, control=None)
    with torch.no_grad():
        logits = model(loader.x)
    assert history[0]["loss"] == pytest.approx(F.cross_entropy(logits, loader.y).item(), rel=1e-5)
    assert history[0]["accuracy"] == pytest.approx((logits.argmax(1) == loader.y).float().mean().item())
    assert history[0]["rate"] == 0.0
    assert not {"value", "weight", "score", "lower"} & set(history.columns)


@pytest.mark.parametrize("stop", [1, 2])
def test_resumed_run_has_the_bits_of_the_undisturbed_one(tmp_path: Path, stop: int) -> None:
    whole, first, second = Run(dropout=0.3, renew=3), Run(dropout=0.3, renew=3), Run(dropout=0.3, renew=3)
    undisturbed = whole.fit(epochs=4, seed=7)
    first.fit(epochs=stop, seed=7, checkpoint=tmp_path)
    resumed = second.fit(epochs=4, seed=7, checkpoint=tmp_path, resume=True)
    assert same_bits(whole.state(), second.state())
    for name in ("loss", "accuracy", "value", "weight", "rate"):
        assert undisturbed.column(name) == resumed.column(name)


def test_same_seed_gives_the_same_bits_and_another_seed_others() -> None:
    runs = [Run(dropout=0.5) for _ in range(3)]
    for run, seed in zip(runs, (0, 0, 1), strict=True):
        run.fit(epochs=1, seed=seed)
    assert same_bits(runs[0].state(), runs[1].state())
    assert not same_bits(runs[0].state(), runs[2].state())


def test_global_random_state_is_given_back() -> None:
    before = torch.get_rng_state()
    run = Run(dropout=0.5)
    torch.set_rng_state(before)
    run.fit(epochs=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_select_keeps_the_best_epoch_in_model_and_history() -> None:
    scores, seen = iter([0.1, 0.7, 0.3]), []

    def select(model: nn.Module) -> float:
        assert not model.training
        seen.append([p.detach().clone() for p in model.parameters()])
        return next(scores)

    run = Run()
    history = run.fit(epochs=3, select=select, control=None)
    assert history.kept == 2
    assert history.column("score") == [0.1, 0.7, 0.3]
    assert same_bits([p.detach() for p in run.model.parameters()], seen[1])


def test_select_prefers_epochs_within_a_point_of_the_target() -> None:
    accuracy = Run().fit(epochs=3, control=None).column("accuracy")
    assert abs(accuracy[0] - accuracy[2]) > 0.01
    run = Run()
    run.control = cl.Discrepancy(run.penalty, target=accuracy[2], step=1e-9)
    scores = iter([0.9, 0.1, 0.2])
    history = run.fit(epochs=3, select=lambda _: next(scores))
    assert history.kept > 1
    assert abs(history[history.kept - 1]["accuracy"] - accuracy[2]) <= 0.01


def test_select_goes_by_the_accuracy_of_the_weights_where_it_is_given() -> None:
    scores, accuracies = iter([0.9, 0.1, 0.2]), iter([0.5, 0.895, 0.8])
    history = Run().fit(epochs=3, select=lambda _: next(scores), accuracy=lambda _: next(accuracies))
    assert history.kept == 2  # the only epoch within a point of the target 0.9
    assert history.column("train_accuracy") == [0.5, 0.895, 0.8]


def test_history_is_on_disk_after_each_epoch(tmp_path: Path) -> None:
    seen = []

    def look(_: nn.Module) -> float:
        seen.append((tmp_path / "metrics.csv").read_text().count("\n") - 1)
        return 0.0

    Run().fit(epochs=3, lower=look, checkpoint=tmp_path)
    assert seen == [1, 2, 3]


def test_adversary_replaces_the_minibatch_and_leaves_batchnorm_alone() -> None:
    seen: list[bool] = []

    def adversary(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        norm = list(model.children())[1]
        assert isinstance(norm, nn.BatchNorm1d)
        seen.append(norm.training)
        model(x + 100)
        return x + 1

    def trained(attack: Any, loader: Loader) -> list[Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
        sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        cl.fit(model, loader, loss=F.cross_entropy, optimizer=sgd, epochs=1, adversary=attack, progress=False)
        return list(model.state_dict().values())

    shifted = blobs()
    shifted.x = shifted.x + 1
    assert same_bits(trained(adversary, blobs()), trained(None, shifted))
    assert seen
    assert not any(seen)


def test_penalties_add_and_each_has_its_control() -> None:
    run = Run()
    decay = cl.WeightPenalty(weight=0.01)
    controls = [run.control, cl.Discrepancy(decay, target=0.5, step=0.001)]
    history = run.fit(epochs=2, penalty=[run.penalty, decay], control=controls)
    assert history.column("weight_2")[-1] == pytest.approx(float(decay.weight))
    assert history.column("weight_2")[-1] != pytest.approx(0.01)
    assert history.column("value_2")[-1] > 0


def test_control_per_epoch_moves_once_an_epoch() -> None:
    run = Run()
    history = run.fit(epochs=3, control_per="epoch")
    assert run.control.calls == 3
    signs = [0.02 if accuracy > 0.9 else -0.02 for accuracy in history.column("accuracy")]
    assert float(run.penalty.weight) == pytest.approx(0.1 + sum(signs), abs=1e-6)


def test_regression_is_controlled_by_its_loss() -> None:
    x = torch.linspace(-1, 1, 64).unsqueeze(1)
    model = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))
    penalty = cl.LipschitzPenalty.from_data(x, weight=1.0, pairs=4)
    control = cl.Discrepancy(penalty, target=1e6, step=0.1, measure="loss")
    sgd = torch.optim.SGD(model.parameters(), lr=0.01)
    arguments: dict[str, Any] = {"loss": F.mse_loss, "optimizer": sgd, "epochs": 1, "penalty": penalty}
    history = cl.fit(model, Loader(x, x.abs()), control=control, progress=False, **arguments)
    assert "accuracy" not in history.columns
    assert float(penalty.weight) == pytest.approx(1.0 + 4 * 0.1)
    with pytest.raises(ValueError, match='measure="loss"'):
        cl.fit(model, Loader(x, x), control=cl.Discrepancy(penalty, target=0.5, step=0.1), **arguments)


def test_control_holds_the_value_of_its_penalty() -> None:
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))

    def parts() -> tuple[nn.Module, cl.LipschitzPenalty, cl.Discrepancy, torch.optim.Optimizer]:
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 2))
        penalty = cl.LipschitzPenalty.from_data(x, weight=0.1, pairs=4, search="power", renew=None)
        control = cl.Discrepancy(penalty, target=1.5, step=0.1, measure="value", rule="multiplicative", floor=1e-3)
        return model, penalty, control, torch.optim.SGD(model.parameters(), lr=0.1)

    model, penalty, control, sgd = parts()
    arguments: dict[str, Any] = {"loss": F.mse_loss, "optimizer": sgd, "epochs": 60, "penalty": penalty}
    history = cl.fit(model, Loader(x, 3 * x[:, :2]), control=control, progress=False, **arguments)
    assert max(history.column("value")) > 2.5
    assert history.column("value")[-1] == pytest.approx(1.5, abs=0.1)
    by_hand, own, driver, descent = parts()
    for epoch in range(60):
        batches = Loader(x, 3 * x[:, :2])
        batches.set_epoch(epoch)
        for rows, y in batches:
            output, term = own.joint(by_hand, rows)
            descent.zero_grad()
            torch.autograd.backward(F.mse_loss(output, y) + term)
            descent.step()
            driver.step(own.value)
    assert same_bits(list(by_hand.parameters()), list(model.parameters()))
    assert torch.equal(own.weight, penalty.weight)


def test_control_of_a_value_needs_one() -> None:
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3))
    loss = cl.MarginLoss(model, weight=0.1)
    arguments: dict[str, Any] = {"optimizer": torch.optim.SGD(model.parameters(), lr=0.1), "epochs": 1, "loss": loss}
    control = cl.Discrepancy(loss, target=1.0, step=0.1, measure="value")
    with pytest.raises(TypeError, match='measure="value" needs a penalty whose value is a tensor; MarginLoss has none'):
        cl.fit(model, [(torch.rand(4, 2), torch.arange(4) % 3)], control=control, **arguments)


def test_a_single_output_has_no_accuracy() -> None:
    x = torch.rand(64, 4, generator=torch.Generator().manual_seed(0))
    y = (x.mean(1) > 0.5).long()
    model = nn.Linear(4, 1)
    penalty = cl.LipschitzPenalty.from_data(x, weight=0.1, pairs=4)
    arguments: dict[str, Any] = {"optimizer": torch.optim.SGD(model.parameters(), lr=0.1), "penalty": penalty}
    arguments |= {"loss": lambda z, y: F.binary_cross_entropy_with_logits(z[:, 0], y.float()), "progress": False}
    assert "accuracy" not in cl.fit(model, [(x, y)], epochs=1, **arguments).columns
    control = cl.Discrepancy(penalty, target=0.9, step=0.1)
    with pytest.raises(ValueError, match=r"outputs \(batch, classes\), 2 or more; got .* outputs \(64, 1\)"):
        cl.fit(model, [(x, y)], epochs=1, control=control, **arguments)


def test_a_compiled_model_trains_as_it_does_uncompiled() -> None:
    plain, compiled = Run(), Run()
    history = plain.fit(epochs=2)
    compiled.model = torch.compile(compiled.model, backend="eager")  # type: ignore[assignment]
    assert compiled.fit(epochs=2).column("loss") == pytest.approx(history.column("loss"), rel=1e-4)


def test_lower_is_recorded_every_so_many_epochs_and_at_the_end() -> None:
    history = Run().fit(epochs=5, lower=lambda _: 2.5, lower_every=2)
    assert [row.get("lower") for row in history] == [None, 2.5, None, 2.5, 2.5]


def test_history_is_written_whole(tmp_path: Path) -> None:
    history = Run().fit(epochs=2)
    history.save(tmp_path / "deep" / "metrics.csv")
    lines = (tmp_path / "deep" / "metrics.csv").read_text("utf-8").splitlines()
    assert lines[0].split(",") == history.columns
    assert len(lines) == 3
    with pytest.raises(KeyError, match="no column 'speed'"):
        history.column("speed")


def test_checkpoint_in_the_way_is_not_touched(tmp_path: Path) -> None:
    Run().fit(epochs=1, checkpoint=tmp_path)
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(ValueError, match="already holds a checkpoint"):
        Run().fit(epochs=2, checkpoint=tmp_path)
    assert (tmp_path / FILE).read_bytes() == before


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", None])
def test_damaged_checkpoint_is_refused_in_one_sentence(tmp_path: Path, damage: bytes | None) -> None:
    Run().fit(epochs=1, checkpoint=tmp_path)
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:2000] if damage is None else damage)
    with pytest.raises(ValueError, match="cannot resume from") as caught:
        Run().fit(epochs=2, checkpoint=tmp_path, resume=True)
    assert "\n" not in str(caught.value)


def test_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    Run().fit(epochs=1, checkpoint=tmp_path)
    other = Run()
    other.model = nn.Sequential(nn.Linear(4, 3))
    with pytest.raises(ValueError, match="expected a checkpoint of this run"):
        other.fit(epochs=2, checkpoint=tmp_path, resume=True, optimizer=torch.optim.SGD(other.model.parameters()))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"epochs": 0}, ValueError, "epochs must be a whole number of at least 1; got 0"),
        ({"epochs": 1.5}, ValueError, "epochs must be a whole number"),
        ({"control_per": "step"}, ValueError, 'control_per must be "batch" or "epoch"'),
        ({"scheduler_per": 3}, ValueError, "scheduler_per must be"),
        ({"lower_every": 0}, ValueError, "lower_every must be"),
        ({"loader": []}, ValueError, "the loader gave no minibatch"),
        ({"loader": 3}, TypeError, "loader must give minibatches"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Run().fit(**arguments)


def test_exploding_loss_is_reported_not_trained_on() -> None:
    run = Run()
    run.model = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 3))
    wild = torch.optim.SGD(run.model.parameters(), lr=1e30)
    with pytest.raises(ValueError, match="NaN or infinite"):
        run.fit(epochs=2, optimizer=wild, scheduler=None)
    with pytest.raises(ValueError, match="training loss is nan in epoch 1"):
        run.fit(epochs=2, optimizer=wild, scheduler=None, penalty=None, control=None)
