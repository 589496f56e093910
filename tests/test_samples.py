"""What became of every image is kept: nothing is attacked twice, and nothing stale is believed."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cheaplip import runs
from cheaplip.attacks import PGD, Patch, Threat, registry
from cheaplip.cli import main
from cheaplip.data import Data, Split
from cheaplip.data import load as load_data
from cheaplip.evaluation import Result
from cheaplip.evaluation.attacking import Outcome
from cheaplip.modes import Model
from cheaplip.report import write_report
from cheaplip.runs import attacking, robustness
from cheaplip.runs.robustness import steps
from cheaplip.runs.samples import FILE, Store
from cheaplip.settings import LipschitzSettings, TrainSettings

SMALL = TrainSettings(data="digits", model="mlp:64-16-10:relu", epochs=2, lipschitz=LipschitzSettings(pairs=8))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.train(replace(SMALL, out=str(tmp_path_factory.mktemp("runs") / "run")), progress=False)


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


CALLS: list[int] = []


@dataclass(frozen=True)
class Counted:
    """PGD that tells how often it ran, and can be stopped."""

    eps: float
    stop_at: int = 0

    @property
    def threat(self) -> Threat:
        return Threat(2.0, self.eps, (0.0, 1.0))

    def __call__(self, model: Model, x: Tensor, y: Tensor) -> Tensor:
        CALLS.append(len(x))
        return PGD(self.eps, steps=3)(model, x, y)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    CALLS.clear()
    monkeypatch.setitem(registry._REGISTRY, "counted", (lambda eps, box: Counted(eps), 1.0))
    return CALLS


def test_what_is_there_is_not_attacked_again(run: Path, counted: list[int]) -> None:
    first = runs.evaluate_run(run, ["counted"], eps=[0.3, 0.6], limit=50)
    before = len(counted)
    again = runs.evaluate_run(run, ["counted"], eps=[0.6, 0.3], limit=50)
    # What shows the pictures calls it once more.
    assert before == 3
    assert len(counted) == before + 1
    assert [e["accuracy"] for e in again["robust"]] == [e["accuracy"] for e in first["robust"]]


@pytest.mark.parametrize("change", [{"seed": 1}, {"limit": 40}, {"eps": [0.31]}])
def test_other_seed_images_or_radius_is_attacked_anew(run: Path, counted: list[int], change: dict[str, Any]) -> None:
    asked: dict[str, Any] = {"eps": [0.3], "limit": 50}
    runs.evaluate_run(run, ["counted"], **asked)
    before = len(counted)
    runs.evaluate_run(run, ["counted"], **asked | change)
    assert len(counted) == before + 2


def test_other_weights_are_attacked_anew(run: Path, counted: list[int]) -> None:
    from safetensors.torch import load_file, save_file

    runs.evaluate_run(run, ["counted"], eps=[0.3], limit=50)
    before = len(counted)
    weights = load_file(run / "model.safetensors")
    save_file({name: 1.01 * weight for name, weight in weights.items()}, run / "model.safetensors")
    runs.evaluate_run(run, ["counted"], eps=[0.3], limit=50)
    assert len(counted) == before + 2


def test_a_stopped_evaluation_goes_on_batch_by_batch(tmp_path: Path) -> None:
    attack = Counted(0.5)
    outcomes = [Outcome(torch.rand(n) < 0.5, torch.rand(n), 7 * n, 1.0) for n in (4, 4, 2)]
    store = Store(tmp_path, "seed 0")
    for number, outcome in enumerate(outcomes[:2]):
        store.put("counted@0.5", attack, number, outcome)
    later = Store(tmp_path, "seed 0")
    assert later.get("counted", attack, 2, 2) is None
    later.put("counted", attack, 2, outcomes[2])
    for number, outcome in enumerate(outcomes):
        found = Store(tmp_path, "seed 0").get("counted", attack, number, len(outcome.robust))
        assert found is not None
        assert torch.equal(found.robust, outcome.robust)
        assert found.distance is not None
        assert outcome.distance is not None
        assert torch.equal(found.distance, outcome.distance)
        assert found[2:] == outcome[2:]
    assert Store(tmp_path, "seed 0").get("counted", attack, 0, 3) is None
    assert Store(tmp_path, "seed 1").get("counted", attack, 0, 4) is None
    # A batch that is put anew takes those behind it away.
    later.put("counted", attack, 0, outcomes[0])
    assert later.get("counted", attack, 1, 4) is None


def test_a_patch_of_another_picture_is_another_attack(tmp_path: Path) -> None:
    first, second = Patch(torch.zeros(1, 4, 4), target=0), Patch(torch.ones(1, 4, 4), target=0)
    assert repr(first) == repr(second)
    store = Store(tmp_path, "seed 0")
    store.put("patch", first, 0, Outcome(torch.ones(3, dtype=torch.bool), None, None, 0.1))
    assert store.get("patch", first, 0, 3) is not None
    assert store.get("patch", second, 0, 3) is None


def test_other_test_images_or_library_are_attacked_anew(
    run: Path, counted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.evaluate_run(run, ["counted"], limit=20, progress=False)
    real = load_data

    def brighter(*args: Any, **kwargs: Any) -> Any:
        data = real(*args, **kwargs)
        return replace(data, test=replace(data.test, x=data.test.x * 0.9))

    monkeypatch.setattr(attacking, "load_data", brighter)
    counted.clear()
    runs.evaluate_run(run, ["counted"], limit=20, progress=False)
    assert counted
    counted.clear()
    monkeypatch.setattr(attacking, "version", lambda name: "another")
    runs.evaluate_run(run, ["counted"], limit=20, progress=False)
    assert counted


def test_samples_agree_with_the_results(run: Path) -> None:
    result = runs.evaluate_run(run, ["clean", "noise", "pgd", "ddn"], eps=[0.3, 0.6], limit=60)
    kept = runs.read_samples(run)
    assert set(kept) == {"clean", "noise", "pgd@0.3", "pgd@0.6", "ddn"}
    assert float(kept["clean"].robust.double().mean()) == pytest.approx(result["accuracy"]["clean"])
    for entry in result["robust"]:
        if entry["attack"] == "pgd":
            assert float(kept[f"pgd@{entry['eps']:g}"].robust.double().mean()) == pytest.approx(entry["accuracy"])
        if entry["attack"] == "ddn":
            far = kept["ddn"].distance
            assert far is not None
            assert float((far > entry["eps"]).double().mean()) == pytest.approx(entry["accuracy"])
            assert entry["median"] == pytest.approx(float(far.sort().values[29]))
    for name in ("robustness.png", "attacked.png"):
        assert (run / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("data", "names"), [("fashion-mnist", ("trousers", "shirt")), ("digits", ("1", "6"))])
def test_picture_of_attacked_images_says_the_names_of_the_classes(
    data: str, names: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = Split(torch.zeros(2, 1, 3, 3), torch.tensor([1, 6]))
    split.x[1] = 1.0

    class Bright(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            bright = x.mean((1, 2, 3)) > 0.5
            return nn.functional.one_hot(torch.where(bright, 6, 1), 11).float()

    drawn: list[Any] = []
    monkeypatch.setattr(robustness, "save", lambda figure, *_, **__: drawn.append(figure))
    found = {"turn": Result("turn", "turned", torch.zeros(2, dtype=torch.bool))}
    whole = Data(data, split, split, split, split, classes=10, shape=(1, 3, 3), box=(0.0, 1.0))
    turn: Any = lambda model, x, y: 1 - x  # noqa: E731
    robustness.draw_attacked(tmp_path, Bright(), whole, {"turn": turn}, found, 0)
    between = "\n" if data == "fashion-mnist" else ", "
    texts = [text.get_text() for text in drawn[0].axes[0].texts]
    assert texts == ["clean", *names, "turn", *(f"{name}{between}3.0" for name in reversed(names))]


@pytest.mark.parametrize(("classes", "said"), [(2, "it is left out"), (3, "APGD with the DLR loss stands in")])
def test_command_says_what_autoattack_lacks_with_few_classes(
    classes: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyautoattack")
    (tmp_path / "few.py").write_text(
        "import torch\n"
        "def make():\n"
        "    x = torch.rand(120, 1, 4, 4, generator=torch.Generator().manual_seed(0))\n"
        f"    y = torch.arange(120) % {classes}\n"
        "    return (x[:80], y[:80]), (x[80:], y[80:])\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "few", raising=False)
    folder = str(runs.train(replace(SMALL, data="few:make", model=None, out=str(tmp_path / "run")), progress=False))
    capsys.readouterr()
    sentence = "autoattack-fast is weaker here than elsewhere: "
    sentence += f"APGD-T needs 4 classes, the model has {classes}: {said}"
    options = ["--attacks", "autoattack-fast,noise", "--eps", "0.1,0.2", "--limit", "20"]
    for attempt in range(2):  # the second time nothing is attacked
        assert main(["evaluate", folder, *options]) == 0
        told = capsys.readouterr()
        assert told.out.count(f"doubt: {sentence}\n") == 1, attempt
        assert told.err == ""
        assert runs.read_result(folder)["doubts"].count(sentence) == 1
    write_report([folder], tmp_path / "page.html")
    assert sentence in (tmp_path / "page.html").read_text("utf-8")


def test_certified_is_below_every_distance(run: Path) -> None:
    runs.evaluate_run(run, ["ddn", "certified"], eps=[0.3], limit=40)
    kept = runs.read_samples(run)
    far, proven = kept["ddn"].distance, kept["certified"].distance
    assert far is not None
    assert proven is not None
    assert (proven > 0).any()
    assert (proven <= far * (1 + 1e-4)).all()


@pytest.mark.parametrize("spoil", ["text", "cut", "format", "short", "pickle"])
def test_damaged_file_is_named_and_runs_nothing(run: Path, spoil: str) -> None:
    runs.evaluate_run(run, ["noise"], limit=20)
    file = run / FILE
    if spoil == "text":
        file.write_text("none")
    elif spoil == "cut":
        file.write_bytes(file.read_bytes()[:-40])
    else:
        with np.load(file) as arrays:
            found = dict(arrays)
        if spoil == "format":
            found["about"] = np.array(str(found["about"]).replace('"format": 1', '"format": 2'))
        elif spoil == "short":
            found["robust_0"] = found["robust_0"][:-1]
        else:
            found["robust_0"] = np.array([print], dtype=object)
        np.savez(file, allow_pickle=True, **found)
    with pytest.raises(ValueError, match=r"robust\.npz is damaged .*: delete it, and evaluate the run again"):
        runs.read_samples(run)


def test_runs_are_compared_by_command_and_page(
    run: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = runs.train(replace(SMALL, out=str(tmp_path / "weak"), epochs=1, learning_rate=0.001), progress=False)
    for folder in (run, other):
        runs.evaluate_run(folder, ["pgd", "ddn"], eps=[0.3], limit=100)
    found = runs.compare([run, other])
    assert [row.name for row in found.rows] == ["clean", "pgd@0.3", "ddn@0.3"]
    assert found.rows[0].best == 0
    difference = found.rows[0].against[0]
    assert difference is not None
    assert difference.accuracy == pytest.approx((found.rows[0].accuracy[1] or 0) - (found.rows[0].accuracy[0] or 0))
    capsys.readouterr()
    assert main(["compare", str(run), str(other)]) == 0
    out = capsys.readouterr().out
    assert "weak − run" in out
    assert "p < 0.001" in out
    page = write_report([run, other], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<strong>" in page
    assert "against the first" in page


def test_comparison_refuses_what_does_not_compare(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="once"):
        runs.compare([run, run])
    with pytest.raises(FileNotFoundError, match="found no folder"):
        runs.compare([run, tmp_path / "none"])
    bare = Path(shutil.copytree(run, tmp_path / "bare"))
    assert len(runs.compare([run, bare]).remarks) == 2


def test_steps_fall_where_images_break() -> None:
    radii, shares = steps(torch.tensor([0.0, 0.5, 0.5, float("inf")]), 2.0)
    assert radii == [0.0, 0.5, 2.0]
    assert shares == [0.75, 0.25, 0.25]
