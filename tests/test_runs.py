"""Run folders: what training leaves in them, that it is reproducible, and that reading one is safe."""

from __future__ import annotations

import csv
import itertools
import math
import shlex
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

import cheaplip as cl
from cheaplip import runs
from cheaplip.cli import main
from cheaplip.data import Data, Split
from cheaplip.data import load as load_data
from cheaplip.models import build
from cheaplip.runs.parts import assemble
from cheaplip.settings import (
    AlpSettings,
    ControlSettings,
    JacobianSettings,
    LipschitzSettings,
    TradesSettings,
    TrainSettings,
    from_mapping,
    settings_of,
)
from cheaplip.settings.penalties import PENALTIES
from cheaplip.training.checkpoint import Checkpoint

FILES = {"config.yaml", "metrics.csv", "model.safetensors", "checkpoint.pt", "result.json"}
SMALL = TrainSettings(data="digits", model="mlp:64-16-10:relu", epochs=2, lipschitz=LipschitzSettings(pairs=8))


def trained(folder: Path, settings: TrainSettings = SMALL, **changes: Any) -> Path:
    return runs.train(replace(settings, out=str(folder), **changes), progress=False)


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished run that a test may spoil."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def without_seconds(folder: Path) -> tuple[Any, ...]:
    """All that a run says, but for its times."""
    result = runs.read_result(folder)
    assert result.pop("seconds")["train"] > 0
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [{key: cell for key, cell in row.items() if key != "seconds"} for row in csv.DictReader(file)]
    return (folder / "model.safetensors").read_bytes(), (folder / "config.yaml").read_bytes(), result, rows


def stop_after(monkeypatch: pytest.MonkeyPatch, epochs: int) -> None:
    """Let training be stopped once so many epochs are saved."""
    save = Checkpoint.save

    def save_and_stop(self: Checkpoint) -> None:
        save(self)
        if len(self.history) == epochs:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", save_and_stop)


def test_run_folder_holds_its_files_and_nothing_else(finished_run: Path) -> None:
    assert {path.name for path in finished_run.iterdir()} == FILES


def test_result_has_the_documented_keys_in_their_order(finished_run: Path) -> None:
    result = runs.read_result(finished_run)
    assert list(result) == [
        *("data", "model", "penalty", "target", "seed", "epochs", "steps", "kept"),
        *("accuracy", "lipschitz", "weight", "seconds"),
    ]
    assert (result["data"], result["model"], result["seed"]) == ("digits", "mlp:64-16-10:relu", 0)
    assert (result["epochs"], result["steps"], result["kept"]) == (2, 18, 2)
    assert set(result["accuracy"]) == {"train", "clean"}
    assert result["lipschitz"].keys() >= {"lower", "method"}


def test_accuracies_and_lower_bound_are_those_of_the_saved_weights(finished_run: Path) -> None:
    result, model, data = runs.read_result(finished_run), cl.load(finished_run), load_data("digits", seed=0)
    for key, split in (("train", data.train), ("clean", data.test)):
        right = (model(split.x).argmax(1) == split.y).float().mean().item()
        assert result["accuracy"][key] == pytest.approx(right, abs=1e-6)
    assert result["lipschitz"]["lower"] == cl.lipschitz.lower(model, data.lipschitz.x, seed=0).value
    assert result["lipschitz"]["upper"] == cl.lipschitz.upper(model, data.train.x[:1], method="eclipse").value
    assert result["lipschitz"]["upper_method"] == "ECLipsE-Fast"


class Product(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * x


def without_proof() -> nn.Module:
    """A model that no proof covers: over all space a product of two values has no Lipschitz constant."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Tanh(), Product())


def test_upper_bound_is_absent_where_there_is_no_proof(tmp_path: Path) -> None:
    folder = trained(tmp_path / "run", model=f"{__name__}:without_proof")
    assert "upper" not in runs.read_result(folder)["lipschitz"]


def with_batchnorm() -> nn.Module:
    """A model whose layers have a constant in eval mode alone."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))


def test_upper_bound_is_that_of_the_model_in_eval_mode(tmp_path: Path) -> None:
    folder = trained(tmp_path / "run", model=f"{__name__}:with_batchnorm")
    lipschitz, x = runs.read_result(folder)["lipschitz"], load_data("digits", seed=0).train.x[:1]
    assert lipschitz["upper"] == cl.lipschitz.upper(cl.load(folder), x, method="eclipse").value
    assert lipschitz["lower"] <= lipschitz["upper"]


def test_config_holds_all_settings_versions_and_the_input(finished_run: Path) -> None:
    values = yaml.safe_load((finished_run / "config.yaml").read_text())
    names = {field.name for field in fields(TrainSettings)} - {"out", "resume"}
    assert set(values) == names | {"versions", "input"}
    assert set(values["versions"]) == {"cheaplip", "torch", "python"}
    assert values["input"] == {"shape": [1, 8, 8], "classes": 10}
    assert replace(runs.read_config(finished_run).settings, out=None) == replace(SMALL, learning_rate=0.1)


def test_key_is_absent_where_its_quantity_was_not_computed(tmp_path: Path) -> None:
    result = runs.read_result(trained(tmp_path / "run", penalty="none", epochs=1))
    assert result.keys() & {"target", "weight", "weights", "robust", "loss", "doubts"} == set()


def test_regression_reports_losses_and_no_accuracy(tmp_path: Path) -> None:
    folder = trained(tmp_path / "run", data="regression", model=None, epochs=1, batch_size=50, target=0.01)
    result = runs.read_result(folder)
    assert set(result["loss"]) == {"train", "clean"}
    assert "accuracy" not in result
    assert result["model"] == "mlp:1-64-64-1:relu"
    with pytest.raises(ValueError, match="attacks need data with classes"):
        runs.evaluate_run(folder, ["pgd"])


class Denoiser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.inner(x)
        return x - residual


def noisy_images(seed: int) -> Any:
    clean, draw = load_data("digits", seed=0).train.x[:200], torch.Generator().manual_seed(seed)
    noisy = clean + 0.2 * torch.randn(clean.shape, generator=draw)
    return (noisy[:150], clean[:150]), (noisy[150:], clean[150:])


def doubled() -> nn.Module:
    return Denoiser().double()


DENOISING: dict[str, Any] = {"data": "test_runs:noisy_images", "model": "test_runs:Denoiser", "batch_size": 20}


def test_weight_of_a_denoiser_is_driven_by_its_constant(tmp_path: Path) -> None:
    control = ControlSettings(measure="value", step=0.02, per="epoch")
    run = trained(tmp_path / "run", target=0.98, epochs=8, control=control, **DENOISING)
    with (run / "metrics.csv").open(newline="") as file:
        rows = [(float(row["value"]), float(row["weight"])) for row in csv.DictReader(file)]
    steep = [value > 0.98 for value, _ in rows[:-1]]  # the last epoch's is told after its row is written
    assert set(steep) == {True, False}
    moved = [after - before for (_, before), (_, after) in itertools.pairwise(rows)]
    assert moved == pytest.approx([0.02 if above else -0.02 for above in steep])
    result = runs.read_result(run)
    assert set(result["loss"]) == {"train", "clean"}
    assert result["lipschitz"]["lower"] < result["lipschitz"]["upper"]
    assert cl.load(run)(torch.zeros(2, 1, 8, 8)).shape == (2, 1, 8, 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": 0.95}, "target must be given for test_runs:noisy_images, which has no classes; got the default"),
        (
            {"model": "test_runs:doubled"},
            "the model must take the data's torch.float32 inputs; on one it raised: .* leave out",
        ),
        ({"model": None}, r"model must be given for data with values of shape \(1, 8, 8\), such as pkg.mod:factory"),
        ({"model": "mlp:64-8-64"}, r"outputs of shape \(64,\), but the data wants \(1, 8, 8\) for each sample"),
    ],
)
def test_denoiser_that_does_not_fit_gets_a_sentence(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        trained(tmp_path / "run", **{"target": 0.1, **DENOISING, **change})
    assert not (tmp_path / "run").exists()


def test_joined_penalties_report_the_weight_of_each(tmp_path: Path) -> None:
    result = runs.read_result(trained(tmp_path / "run", penalty="layers+weight", target=None, weight=0.25, epochs=1))
    assert result["weights"] == {"layers": 0.25, "weight": 0.25}
    assert result["weight"] == 0.25


@pytest.mark.parametrize("target", [0.2, None])
def test_every_penalty_has_a_say_in_training_and_its_weight_is_driven_to_the_target(
    target: float | None, tmp_path: Path
) -> None:
    others: dict[str, Any] = {"target": target, "weight": 0.5, "epochs": 2, "trades": TradesSettings(steps=2)}
    plain = (trained(tmp_path / "none", penalty="none", **others) / "model.safetensors").read_bytes()
    for name in PENALTIES:
        run = trained(tmp_path / name, penalty=name, **others)
        assert (run / "model.safetensors").read_bytes() != plain
        assert (runs.read_result(run)["weight"] == 0.5) == (target is None)
        with (run / "metrics.csv").open(newline="") as file:
            assert all(float(row["value"]) > 0 for row in csv.DictReader(file))


def test_settings_of_a_penalty_reach_it() -> None:
    settings = replace(
        SMALL,
        penalty="jacobian+alp+trades",
        weight=0.25,
        jacobian=JacobianSettings(projections=None),
        alp=AlpSettings(distance=0.3, steps=2, constant=0.5, power=2),
        trades=TradesSettings(eps=0.7, norm="inf", steps=4, step=0.1),
    )
    data = load_data("digits", seed=0)
    jacobian, alp, trades = assemble(settings, data, torch.device("cpu")).penalties
    assert isinstance(jacobian, cl.JacobianPenalty)
    assert jacobian.projections is None
    assert isinstance(alp, cl.AdversarialLipschitzPenalty)
    assert (alp.distance, alp.steps, alp.constant, alp.power) == (0.3, 2, 0.5, 2)
    assert isinstance(trades, cl.TradesPenalty)
    assert (trades.eps, trades.norm, trades.steps, trades.step) == (0.7, math.inf, 4, 0.1)
    assert trades.box == data.box == (0.0, 1.0)
    assert [float(penalty.weight) for penalty in (jacobian, alp, trades)] == [0.25] * 3


@pytest.mark.parametrize("penalty", ["jacobian", "alp", "bound", "lipschitz+jacobian+alp"])
def test_penalties_that_need_no_classes_train_on_a_regression(penalty: str, tmp_path: Path) -> None:
    regression: dict[str, Any] = {"data": "regression", "model": None, "epochs": 1, "batch_size": 50, "target": 0.01}
    result = runs.read_result(trained(tmp_path / "run", penalty=penalty, **regression))
    assert result["penalty"] == penalty
    assert result["loss"]["clean"] > 0


@pytest.mark.parametrize(("key", "value"), [("classes", 2**31), ("shape", [1, 8, 9]), ("classes", None)])
def test_run_that_was_begun_with_other_data_is_not_gone_on_with(key: str, value: Any, run: Path) -> None:
    values = yaml.safe_load((run / "config.yaml").read_text())
    values["input"][key] = value
    (run / "config.yaml").write_text(yaml.safe_dump(values))
    (run / "result.json").unlink()
    before = contents(run)
    with pytest.raises(ValueError, match=r"begun with inputs of shape .*; digits now has \(1, 8, 8\) and 10: put the"):
        runs.train(replace(SMALL, out=str(run), resume=True), progress=False)
    assert contents(run) == before


def test_config_that_was_written_before_there_were_these_penalties_is_read(run: Path) -> None:
    values = yaml.safe_load((run / "config.yaml").read_text())
    for name in ("jacobian", "alp", "trades"):
        del values[name]
    (run / "config.yaml").write_text(yaml.safe_dump(values))
    assert runs.read_config(run).settings.trades == TradesSettings()
    before = contents(run)
    (run / "result.json").unlink()
    trained(run, resume=True)
    assert contents(run)["model.safetensors"] == before["model.safetensors"]


def test_select_robust_keeps_the_weights_of_the_epoch_that_it_names(tmp_path: Path) -> None:
    # Without a step, all epochs are alike, and the first of equals is kept.
    folder = trained(tmp_path / "run", select="robust", learning_rate=1e-30, epochs=2)
    assert runs.read_result(folder)["kept"] == 1


VARIANTS = {
    "lipschitz": SMALL,
    "all": replace(SMALL, penalty="lipschitz+weight", adversary="one-step", select="robust", batch_size=256,
                   control=ControlSettings(per="epoch", rule="multiplicative", floor=1e-4)),
    "minibatch": replace(SMALL, penalty="trades+alp+jacobian+bound", target=0.2, trades=TradesSettings(steps=2)),
}  # fmt: skip


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
def test_two_runs_with_one_seed_are_bit_identical(settings: TrainSettings, tmp_path: Path) -> None:
    first, second = (trained(tmp_path / name, settings) for name in ("a", "b"))
    assert without_seconds(first) == without_seconds(second)


def test_another_seed_gives_other_weights(finished_run: Path, tmp_path: Path) -> None:
    other = trained(tmp_path / "run", seed=1)
    assert (other / "model.safetensors").read_bytes() != (finished_run / "model.safetensors").read_bytes()


def test_training_leaves_the_global_random_state_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    trained(tmp_path / "run", epochs=1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
def test_resumed_run_ends_with_the_bits_of_an_undisturbed_one(
    settings: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = trained(tmp_path / "a", settings)
    with monkeypatch.context() as patch:
        stop_after(patch, epochs=1)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "b", settings)
    assert {path.name for path in (tmp_path / "b").iterdir()} == {"config.yaml", "checkpoint.pt", "metrics.csv"}
    assert not runs.finished(tmp_path / "b")
    resumed = trained(tmp_path / "b", settings, resume=True)
    assert without_seconds(resumed) == without_seconds(undisturbed)


def test_resume_on_a_new_folder_starts_anew(finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert without_seconds(trained(tmp_path / "empty", resume=True)) == without_seconds(finished_run)


def test_resume_on_a_finished_run_changes_nothing(run: Path) -> None:
    before = contents(run)
    assert trained(run, resume=True) == run
    assert trained(run, resume=True, model=None) == run  # none named is the one of the run
    assert contents(run) == before


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"epochs": 3}, "epochs = 2, got 3"),
        ({"target": None}, "target = 0.95, got null"),
        ({"lipschitz": LipschitzSettings(pairs=9)}, "lipschitz.pairs = 8, got 9"),
    ],
)
def test_resume_with_another_setting_names_it_and_changes_nothing(
    changes: dict[str, Any], named: str, run: Path
) -> None:
    before = contents(run)
    with pytest.raises(ValueError, match=named):
        trained(run, resume=True, **changes)
    assert contents(run) == before


def test_remedy_for_another_setting_is_a_command_that_works(run: Path) -> None:
    (run / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="resume it with `cheaplip train ") as caught:
        trained(run, resume=True, epochs=3)
    words = shlex.split(str(caught.value).split("`")[1])
    assert words == ["cheaplip", "train", "--config", str(run / "config.yaml"), "--out", str(run), "--resume"]
    assert main(words[1:]) == 0
    assert runs.finished(run)


@pytest.mark.parametrize("name", ["model.safetensors", "metrics.csv", "result.json"])
def test_resume_makes_a_missing_file_anew_from_the_checkpoint(
    name: str, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    robust = runs.evaluate_run(run, ["noise"], limit=5)["robust"]
    monkeypatch.setattr("cheaplip.training.step.Step.__call__", lambda *_: pytest.fail("an epoch was trained anew"))
    before = contents(run)
    (run / name).unlink()
    assert not runs.finished(run)
    assert trained(run, resume=True) == run
    assert runs.finished(run)
    if name == "result.json":
        assert "robust" not in runs.read_result(run)  # they went with the file
    else:
        assert (run / name).read_bytes() == before[name]
        assert runs.read_result(run)["robust"] == robust


def test_run_that_fails_in_its_first_epoch_leaves_the_way_free(finished_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lower the learning rate"):
        trained(tmp_path / "run", learning_rate=1e30)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="lower the learning rate"):
        trained(tmp_path / "run", learning_rate=1e30)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]
    assert without_seconds(trained(tmp_path / "run")) == without_seconds(finished_run)


def test_run_stopped_in_its_first_epoch_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cheaplip.training.step.Step.__call__", stop)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_resume_under_another_version_is_refused(run: Path) -> None:
    (run / "result.json").unlink()
    config = run / "config.yaml"
    config.write_text(config.read_text().replace(f"cheaplip: {cl.__version__}", "cheaplip: 0.0.1"))
    with pytest.raises(ValueError, match=r"begun by cheaplip 0\.0\.1"):
        trained(run, resume=True)


def test_folder_that_holds_a_run_is_refused_and_left_alone(run: Path) -> None:
    before = contents(run)
    with pytest.raises(ValueError, match="already holds a run"):
        trained(run)
    assert contents(run) == before


def test_folder_that_cannot_be_written_is_refused_before_any_data_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("cheaplip.runs.pipeline.load", lambda *_, **__: pytest.fail("data was loaded"))
    with pytest.raises(ValueError, match=r"cannot write into .* is no folder: choose another folder"):
        trained(tmp_path / "file" / "run")


def test_bad_settings_leave_no_folder_behind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="takes 10 inputs"):
        trained(tmp_path / "new" / "run", model="mlp:10-10")
    assert list(tmp_path.iterdir()) == []


def test_load_gives_the_selected_weights_in_eval_mode(finished_run: Path) -> None:
    assert cl.load is runs.load
    model = cl.load(finished_run)
    state = torch.load(finished_run / "checkpoint.pt", weights_only=True)["model"]
    other = build("mlp:64-16-10:relu", shape=(1, 8, 8), classes=10, seed=5)
    other.load_state_dict(state)
    x = torch.rand(7, 1, 8, 8)
    assert torch.equal(model(x), other(x))
    assert not model.training


def test_load_needs_no_data_and_no_checkpoint(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / "checkpoint.pt").unlink()
    monkeypatch.setattr("cheaplip.data.load", lambda *_, **__: pytest.fail("data was loaded"))
    assert isinstance(cl.load(str(run)), nn.Module)


def test_own_model_with_tied_weights_and_batchnorm_is_saved_and_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def make(shape, classes):\n"
        "    a, b = nn.Linear(64, 64), nn.Linear(64, 64)\n"
        "    b.weight = a.weight\n"
        "    return nn.Sequential(nn.Flatten(), a, nn.BatchNorm1d(64), nn.ReLU(), b, nn.Linear(64, classes))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = trained(tmp_path / "run", model="mine:make", epochs=1)
    state = torch.load(folder / "checkpoint.pt", weights_only=True)["model"]
    loaded = cl.load(folder).state_dict()
    assert state.keys() == loaded.keys()
    assert all(torch.equal(state[name], loaded[name]) for name in state)


def test_evaluate_merges_into_the_results_and_replaces_the_same_attack(run: Path) -> None:
    before = runs.read_result(run)
    runs.evaluate_run(run, ["pgd", "noise"], eps=[0.5, 1.0], limit=20)
    result = runs.evaluate_run(run, ["pgd", "pgd-linf"], eps=[0.5], limit=10)
    assert result == runs.read_result(run)
    found = [(entry["attack"], entry["norm"], entry.get("eps"), entry["images"]) for entry in result["robust"]]
    assert found == [
        *(("pgd", "2", 0.5, 10), ("pgd", "2", 1.0, 20)),
        *(("noise", "2", None, 20), ("pgd-linf", "inf", 0.5, 10)),
    ]
    for entry in result["robust"]:
        low, high = entry["interval"]
        assert low <= entry["accuracy"] <= high
    assert all(result[key] == before[key] for key in before if key != "seconds")
    assert result["seconds"].keys() == {"train", "evaluate"}


def test_paper_attacks_are_labelled_weak_and_strong_ones_are_not(run: Path) -> None:
    result = runs.evaluate_run(run, ["pgd-paper", "pgd-paper-box", "pgd", "noise-clamped"], limit=5)
    assert {entry["attack"]: entry.get("weak") for entry in result["robust"]} == {
        "pgd-paper": True, "pgd-paper-box": True, "pgd": None, "noise-clamped": None,
    }  # fmt: skip


def test_evaluate_twice_gives_the_same_bits(run: Path) -> None:
    first, second = (runs.evaluate_run(run, ["noise", "pgd"], eps=[0.5], limit=30)["robust"] for _ in range(2))
    assert first == second


def blobs(box: tuple[float, float] | None) -> Data:
    """Two classes in [-1, 1], as a data factory makes them."""
    y = torch.arange(60) % 2
    x = (torch.rand(60, 3, generator=torch.Generator().manual_seed(0)) - 0.5 + (y[:, None] - 0.5)).clamp(-1, 1)
    split = Split(x, y)
    return Data("blobs", split, split, split, split, classes=2, shape=(3,), box=box)


def boxed() -> Data:
    return blobs((-1.0, 1.0))


def unboxed() -> Data:
    return blobs(None)


@pytest.mark.parametrize(("factory", "box"), [("boxed", (-1.0, 1.0)), ("unboxed", None)])
def test_attacks_keep_to_the_box_of_the_data(
    factory: str, box: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = trained(tmp_path / "run", data=f"test_runs:{factory}", model=None, epochs=1)
    used: dict[str, Any] = {}

    def spy(model: Any, loader: Any, attacks: Any, **options: Any) -> Any:
        used.update({name: attack.threat.box for name, attack in attacks.items()})
        return cl.evaluate(model, loader, attacks, **options)

    monkeypatch.setattr("cheaplip.runs.attacking.evaluate", spy)
    names = ["noise", "pgd", "pgd-linf", "pgd-paper", *(["pgd-paper-box"] if box else [])]
    robust = runs.evaluate_run(folder, names, eps=[0.25])["robust"]
    assert [entry["attack"] for entry in robust] == names
    assert {name for name, held in used.items() if held == box} == set(names) - (
        {"noise", "pgd-paper"} if box else set()
    )


@pytest.mark.parametrize(
    ("factory", "name", "message"),
    [
        ("boxed", "noise-clamped", r"cuts images to \[0, 1\], but this data has the box \(-1.0, 1.0\)"),
        ("unboxed", "noise-clamped", "noise-clamped stays in the box of the data, but this data has none"),
        ("unboxed", "pgd-paper-box", "pgd-paper-box stays in the box of the data, but this data has none"),
    ],
)
def test_attack_that_needs_another_box_is_refused_by_name(
    factory: str, name: str, message: str, tmp_path: Path
) -> None:
    folder = trained(tmp_path / "run", data=f"test_runs:{factory}", model=None, epochs=1)
    before = contents(folder)
    with pytest.raises(ValueError, match=message):
        runs.evaluate_run(folder, ["noise", name])
    assert contents(folder) == before


sizes: list[int] = []  # of the batches that a Watched network saw when it was not training


class Watched(nn.Linear):
    """A network that writes down how much it is given at once."""

    def __init__(self) -> None:
        super().__init__(2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            sizes.append(len(x))
        return super().forward(x)


def many_targets() -> Any:
    x = torch.rand(3000, 2, generator=torch.Generator().manual_seed(0))
    return (x, x.sum(1)), (x[:1500], x[:1500].sum(1))


def test_loss_of_a_large_split_is_measured_in_batches(tmp_path: Path) -> None:
    sizes.clear()
    folder = trained(tmp_path / "run", data="test_runs:many_targets", model="test_runs:Watched", epochs=1, target=None)
    assert max(sizes) <= 1000
    data, model = load_data("test_runs:many_targets"), cl.load(folder)
    for key, split in (("train", data.train), ("clean", data.test)):
        whole = nn.functional.mse_loss(model(split.x), split.y).item()
        assert runs.read_result(folder)["loss"][key] == pytest.approx(whole, rel=1e-5)


def spoil(name: str, content: bytes) -> Any:
    def do(run: Path) -> None:
        (run / name).write_bytes(content)

    return do


def remove(name: str) -> Any:
    def do(run: Path) -> None:
        (run / name).unlink()

    return do


def cut(name: str) -> Any:
    def do(run: Path) -> None:
        (run / name).write_bytes((run / name).read_bytes()[:-50])

    return do


def edit(old: str, new: str) -> Any:
    def do(run: Path) -> None:
        config = run / "config.yaml"
        assert old in config.read_text()
        config.write_text(config.read_text().replace(old, new))

    return do


BROKEN = {
    "no folder": (shutil.rmtree, "expected a run folder, found no folder"),
    "no run": (remove("config.yaml"), "is no run folder: expected config.yaml"),
    "config is no YAML": (spoil("config.yaml", b"a: ["), "cannot use .*config.yaml"),
    "config is no mapping": (spoil("config.yaml", b"- 1"), "it lacks settings"),
    "config is binary": (spoil("config.yaml", b"\xff\xfe\x00"), "cannot use .*config.yaml"),
    "config is empty": (spoil("config.yaml", b""), "it lacks settings"),
    "config is cut short": (cut("config.yaml"), "it lacks settings"),
    "config has an unknown key": (edit("seed: 0", "sed: 0"), "unknown setting 'sed'"),
    "config has an unknown key in a group": (edit("pairs: 8", "pears: 8"), "unknown setting 'lipschitz.pears'"),
    "config has another type": (edit("epochs: 2", "epochs: two"), "epochs must be a whole number of at least 1"),
    "config is out of range": (edit("momentum: 0.9", "momentum: 1.9"), "momentum must be .* below 1; got 1.9"),
    "config names another model": (edit("64-16-10", "64-17-10"), "model.safetensors does not fit the model"),
    "config has no shape": (edit("shape:", "shade:"), "cannot use .*config.yaml"),
    "config has a bad shape": (edit("  - 8", "  - -8"), "whole numbers above 0"),
    "no weights": (remove("model.safetensors"), "expected the file .*model.safetensors, found none"),
    "weights are cut short": (cut("model.safetensors"), "cannot use .*model.safetensors"),
    "weights are something else": (spoil("model.safetensors", b"{}"), "cannot use .*model.safetensors"),
}


@pytest.mark.parametrize(("breaking", "message"), BROKEN.values(), ids=BROKEN)
def test_load_tells_a_broken_run_in_one_line(breaking: Any, message: str, run: Path) -> None:
    breaking(run)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        cl.load(run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("breaking", "message"),
    [
        (remove("result.json"), "expected the file .*result.json, found none"),
        (cut("result.json"), "cannot use .*result.json"),
        (spoil("result.json", b"[]"), "it holds no results"),
        (spoil("result.json", b"[" * 100_000), "cannot use .*result.json"),
        (spoil("result.json", b'{"accuracy": {"clean": "high"}}'), "'accuracy.clean' must be a finite number; got 'h"),
        (spoil("result.json", b'{"seconds": 3}'), "'seconds' must hold values by name; got 3"),
        (spoil("result.json", b'{"lipschitz": {"lower": NaN}}'), "it must hold finite numbers alone; got NaN"),
        (spoil("result.json", b'{"weight": true}'), "'weight' must be a finite number; got True"),
        (spoil("result.json", b'{"doubts": "none"}'), "'doubts' must be a list of sentences"),
        (spoil("result.json", b'{"robust": [{"attack": "pgd"}]}'), "'robust.0' lacks 'accuracy'"),
        (
            spoil("result.json", b'{"robust": [{"attack": "pgd", "accuracy": 1, "images": 1, "eps": "2"}]}'),
            "'robust.0.eps' must be a finite number; got '2'",
        ),
        (
            spoil("result.json", b'{"robust": [{"attack": "pgd", "accuracy": 1, "images": 1, "interval": 0}]}'),
            "'robust.0.interval' must be two numbers; got 0",
        ),
        (spoil("result.json", b'{"robust": [1]}'), "'robust' must be a list of attacks"),
    ],
)
def test_evaluate_tells_broken_results_in_one_line_and_changes_nothing(breaking: Any, message: str, run: Path) -> None:
    breaking(run)
    before = contents(run)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        runs.evaluate_run(run, ["noise"])
    assert "\n" not in str(caught.value)
    assert contents(run) == before


class Payload:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_no_file_of_a_run_can_run_code(run: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    torch.save({"model": Payload(mark)}, run / "model.safetensors")
    with pytest.raises(ValueError, match=r"cannot use .*model\.safetensors"):
        cl.load(run)
    (run / "config.yaml").write_text(f"!!python/object/apply:pathlib.Path.touch [!!python/name:mark {mark}]")
    with pytest.raises(ValueError, match=r"cannot use .*config\.yaml"):
        cl.load(run)
    assert not mark.exists()


def test_pickle_in_a_checkpoint_is_refused_and_not_run(run: Path, tmp_path: Path) -> None:
    (run / "result.json").unlink()
    torch.save({"model": Payload(tmp_path / "mark")}, run / "checkpoint.pt")
    with pytest.raises(ValueError, match=r"cannot resume from .*checkpoint\.pt"):
        trained(run, resume=True)
    assert not (tmp_path / "mark").exists()
    torch.load(run / "checkpoint.pt", weights_only=False)  # the payload does work where it is let in
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        ({"epochs": 0}, ValueError, "epochs must be a whole number of at least 1; got 0"),
        ({"epochs": 2.0}, TypeError, "epochs must be a whole number of at least 1; got 2.0"),
        ({"epochs": True}, TypeError, "epochs must be a whole number of at least 1; got True"),
        ({"weight": -0.1}, ValueError, "weight must be a number of at least 0; got -0.1"),
        ({"weight": float("nan")}, ValueError, "weight must be a number of at least 0; got nan"),
        ({"target": 0}, ValueError, "target must be a number above 0, or null; got 0"),
        ({"select": "best"}, TypeError, "select must be one of last, robust; got 'best'"),
        ({"penalty": "lipschitz+l1"}, ValueError, "penalty must be lipschitz, weight, layers, bound, jacobian"),
        ({"penalty": "weight+weight"}, ValueError, "penalty must be lipschitz, weight, layers, bound, jacobian"),
        ({"penalty": ""}, ValueError, "penalty must be lipschitz, weight, layers, bound, jacobian"),
        ({"control": {"rule": "multiplicative"}}, ValueError, "control.floor must be above 0"),
        ({"lipschitz": {"cap": 0.0}}, ValueError, "lipschitz.cap must be a number above 0, or null; got 0.0"),
        ({"lipschitz": {"power": True}}, TypeError, "lipschitz.power must be one of 1, 2; got True"),
        ({"trades": {"eps": 0}}, ValueError, "trades.eps must be a number above 0; got 0"),
        ({"trades": {"norm": 3}}, TypeError, "trades.norm must be one of 1, 2, inf; got 3"),
        ({"alp": {"distance": -1.0}}, ValueError, "alp.distance must be a number above 0; got -1.0"),
        ({"jacobian": {"projections": 0}}, ValueError, "jacobian.projections must be a whole number of at least 1, or"),
        ({"lipschitz": 3}, TypeError, "lipschitz must be a mapping of settings; got 3"),
        ({"oops": 3}, ValueError, "unknown setting 'oops'"),
    ],
)
def test_settings_refuse_what_is_out_of_range(values: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        from_mapping(TrainSettings, values)
    assert message in str(caught.value)


def test_every_setting_says_what_it_means_and_its_default_is_allowed() -> None:
    listed = list(settings_of(TrainSettings))
    assert {s.name for s in listed} > {"data", "lipschitz.pairs", "control.step"}
    assert all(s.about.text for s in listed)
    assert from_mapping(TrainSettings, {}) == TrainSettings()
