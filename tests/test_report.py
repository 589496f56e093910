"""The report: one page that loads nothing, escapes all that it shows, and says what it leaves out."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from cheaplip import runs
from cheaplip.data import Data, Split, class_words
from cheaplip.report import adversarial, pictures, steepest, waiting, write_report
from cheaplip.report.words import SPACE
from cheaplip.settings import ControlSettings, LipschitzSettings, TrainSettings

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)> $x^2$ {{ 7 * 7 }} &amp;'
SMALL = TrainSettings(data="digits", model="mlp:64-16-10:relu", epochs=4, lower_every=2)
VOID = {"meta", "link", "img", "input", "br"}


class Page(HTMLParser):
    """The tags of a page and its visible text; that every tag is closed is checked on the way."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text, self.raw = "", path.read_text("utf-8")
        self.feed(self.raw)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["script"]):
            self.text += data.replace(SPACE, " ") + " "

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


def trained(folder: Path, **changes: Any) -> Path:
    return runs.train(TrainSettings(**(vars(SMALL) | {"out": str(folder)} | changes)), progress=False)


def report(folders: list[Path], out: Path, **options: Any) -> Page:
    return Page(write_report(folders, out, progress=False, **options))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs clip and plain, both attacked."""
    folder = tmp_path_factory.mktemp("report")
    trained(folder / "clip")
    trained(folder / "plain", penalty="none")
    for name in ("clip", "plain"):
        runs.evaluate_run(folder / name, ["noise", "pgd-paper", "pgd"], eps=[0.25, 0.5], limit=20, progress=False)
    return folder


@pytest.fixture(scope="module")
def page(made: Path) -> Page:
    return report([made / "clip"], made / "clip.html")


@pytest.fixture(scope="module")
def both(made: Path) -> Page:
    return report([made / "clip", made / "plain"], made / "both.html")


@pytest.fixture
def clip(made: Path, tmp_path: Path) -> Path:
    """A copy of a run that a test may spoil."""
    return Path(shutil.copytree(made / "clip", tmp_path / "clip"))


def edit_result(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    result = json.loads((folder / "result.json").read_text())
    change(result)
    (folder / "result.json").write_text(json.dumps(result))


def edit_config(folder: Path, **changes: Any) -> None:
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(config | changes))


def test_page_says_what_the_run_is_and_its_key_figures(made: Path, page: Page) -> None:
    result = runs.read_result(made / "clip")
    worst = next(e for e in result["robust"] if (e["attack"], e.get("eps")) == ("pgd", 0.5))
    low, high = worst["interval"]
    for said in (
        *("digits", "mlp:64-16-10:relu", "lipschitz", "target 95.0 %", "seed 0", "epochs 4"),
        f"Clean accuracy {100 * result['accuracy']['clean']:.1f} %",
        f"Robust accuracy {100 * worst['accuracy']:.1f} % strongest attack: pgd, ‖δ‖₂ ≤ 0.5; 20 images; 95 % interval",
        f"interval {100 * low:.1f} to {100 * high:.1f} %",
        f"lower bound ≥ {result['lipschitz']['lower']:.3g}",
        f"upper bound ≤ {result['lipschitz']['upper']:.3g} ECLipsE-Fast",
        "pgd-paper (weak)",
        "noise σ = 1 20",
        "lipschitz.pairs 16 pairs of inputs",
    ):
        assert said in page.words
    titles = re.findall(r"<figcaption>([^<]+)</figcaption>\n<svg", page.raw)
    assert titles == [
        *("Loss", "Accuracy", "Lipschitz constant", "Weight of the penalty: lipschitz"),
        "Accuracy under attack, 2-norm",
    ]


@pytest.mark.parametrize("which", ["page", "both"])
def test_page_loads_nothing(which: str, request: pytest.FixtureRequest) -> None:
    shown: Page = request.getfixturevalue(which)
    for tag, attributes in shown.tags:
        for name in ("src", "href", "xlink:href", "srcset", "data", "poster", "action", "background"):
            assert attributes.get(name, "#").startswith(("data:", "#")), (tag, attributes)
    assert not re.search(r"@import|url\((?!#)", shown.raw)
    assert {link["rel"] for link in shown.all("link")} == {"icon"}
    (policy,) = (meta["content"] for meta in shown.all("meta") if meta.get("http-equiv"))
    (script,) = re.findall(r"<script>(.*?)</script>", shown.raw, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; ")
    assert f"script-src 'sha256-{digest}'" in policy


@pytest.mark.parametrize("which", ["page", "both"])
def test_page_is_told_to_those_who_cannot_see_it(which: str, request: pytest.FixtureRequest) -> None:
    shown: Page = request.getfixturevalue(which)
    assert shown.all("html") == [{"lang": "en"}]
    images = shown.all("img")
    assert len(images) > 300
    assert all(image["alt"] and image["src"].startswith("data:image/png;base64,") for image in images)
    ids = [attributes["id"] for _, attributes in shown.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    for _, attributes in shown.tags:
        referred = attributes.get("aria-labelledby", "").split() + attributes.get("for", "").split()
        referred += re.findall(r"url\(#([^)]+)\)", attributes.get("clip-path", "")) + (
            [attributes["href"][1:]] if attributes.get("href", "").startswith("#") else []
        )
        assert set(referred) <= set(ids)
    for svg in shown.all("svg"):
        assert svg.get("aria-hidden") == "true" or (svg["role"] == "img" and svg["aria-labelledby"])
    levels = [int(tag[1]) for tag, _ in shown.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_figures_take_the_colours_of_the_page(page: Page) -> None:
    drawn = "".join(re.findall(r'<svg[^>]*role="img".*?</svg>', page.raw, re.DOTALL))
    assert set(re.findall(r"#[0-9a-f]{6}\b", drawn)) <= {"#ffffff", "#000000"}
    assert set(re.findall(r"var\(--(\w+)\)", drawn)) >= {"s0", "soft", "rule"}
    assert "font-family" not in drawn


def test_same_runs_give_the_same_bytes(made: Path, page: Page, tmp_path: Path) -> None:
    assert report([made / "clip"], tmp_path / "again.html").raw == page.raw


def test_comparison_has_every_run_in_one_table_and_a_folded_section_for_each(made: Path, both: Page) -> None:
    words = both.words
    first, second = (runs.read_result(made / name) for name in ("clip", "plain"))
    lips = [f"{result['lipschitz']['lower']:.3g}" for result in (first, second)]
    assert f"Lip, lower bound {lips[0]} {lips[1]}" in words
    assert f"λ {first['weight']:.3g} –" in words
    assert re.search(r"accuracy under pgd, ‖δ‖₂ ≤ 0\.5 \S+ % \S+ to \S+ % \S+ %", words)
    assert "time to train" in words
    assert [details.get("class") for details in both.all("details")].count("run") == 2
    assert "clip, value" in words
    assert "plain, search" in words


def test_lip_names_its_norms_and_other_norms_are_warned_of(made: Path, clip: Path, tmp_path: Path) -> None:
    edit_result(clip, lambda result: result["lipschitz"].update(p_in="inf"))
    both = report([clip, made / "plain"], tmp_path / "both.html").words
    assert "‖·‖∞ → ‖·‖₂" in both
    assert "‖·‖₂ → ‖·‖₂" in both
    assert "Lip is measured in different norms" in both


def test_page_of_one_run_stays_small(page: Page) -> None:
    assert len(page.raw.encode()) < 500_000


def test_every_string_is_escaped(clip: Path, tmp_path: Path) -> None:
    folder = clip.rename(tmp_path / "<img src=x onerror=alert(1)> $x$")
    edit_config(folder, data="mnist", data_dir=HOSTILE, versions={"cheaplip": HOSTILE, HOSTILE: "1"})

    def spoil(result: dict[str, Any]) -> None:
        result["doubts"] = [HOSTILE]
        result["lipschitz"]["method"] = HOSTILE
        result["seconds"][HOSTILE] = 1.0
        for entry in result["robust"]:
            entry["attack"] += HOSTILE

    edit_result(folder, spoil)
    other = shutil.copytree(folder, tmp_path / "other")
    for folders in ([folder], [folder, other]):
        shown = report(folders, tmp_path / "r.html")
        assert len(shown.all("script")) == 1
        assert shown.all("img") == []
        assert "<img src=x onerror=alert(1)> $x$" in shown.text
        assert f"pgd{HOSTILE}" in shown.text
        assert shown.text.count(HOSTILE) > 5


def test_regression_leaves_out_what_does_not_apply_and_says_why(tmp_path: Path) -> None:
    folder = trained(tmp_path / "run", data="regression", model=None, epochs=2, batch_size=50, target=0.01)
    words = report([folder], tmp_path / "r.html").words
    for said in ("Clean loss", "target loss 0.01", "attacks are for data with classes", "are no images", "no accuracy"):
        assert said in words
    assert "<img" not in (tmp_path / "r.html").read_text()


def test_target_of_a_constant_is_drawn_beside_the_constant(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"target": 3.0, "control": ControlSettings(measure="value"), "epochs": 2}
    shown = report([trained(tmp_path / "run", **settings)], tmp_path / "r.html")
    assert "penalty’s value 3" in shown.words
    charts = shown.words.partition("Settings")[0]
    assert "a stronger search (lower) target 3 Lower bounds of the true constant" in " ".join(charts.split())
    assert charts.count("A line across") == 1


def flat() -> Any:
    x = torch.rand(60, 3, generator=torch.Generator().manual_seed(0))
    return (x, (x[:, 0] > 0.5).long()), (x, (x[:, 0] > 0.5).long())


def test_inputs_that_are_no_images_and_a_run_that_was_not_attacked_are_said_so(tmp_path: Path) -> None:
    words = report([trained(tmp_path / "run", data="test_report:flat", model=None)], tmp_path / "r.html").words
    assert words.count("The inputs have the shape (3): they are no images") == 2
    assert "No attack has been run on this network yet" in words


def test_page_is_made_without_data_and_says_so(clip: Path, tmp_path: Path) -> None:
    edit_config(clip, data="mnist")
    edit_result(clip, lambda result: result["lipschitz"].pop("upper"))
    words = report([clip], tmp_path / "r.html", data_dir=tmp_path / "none").words
    assert "Lip, upper bound" not in words
    assert words.count("There are no pictures, as the data of the run cannot be used: expected") == 2
    assert "Clean accuracy" in words


def spoilt(name: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content)


BAD: dict[str, tuple[Callable[[Path], object], type[Exception], str]] = {
    "no run in it": (lambda f: (f / "config.yaml").unlink(), FileNotFoundError, "no run folder: expected config.yaml"),
    "no folder": (lambda f: shutil.rmtree(f), FileNotFoundError, "found no folder"),
    "unfinished": (lambda f: (f / "result.json").unlink(), FileNotFoundError, "not finished: finish it with"),
    "result cut": (spoilt("result.json", '{"accuracy": '), ValueError, "cannot use .*result.json"),
    "result of another kind": (spoilt("result.json", "[1]"), ValueError, "holds no results"),
    "upper bound in words": (
        lambda f: edit_result(f, lambda r: r["lipschitz"].update(upper="high")),
        *(ValueError, "'lipschitz.upper' must be a finite number; got 'high'"),
    ),
    "history empty": (spoilt("metrics.csv", ""), ValueError, "expected columns epoch and loss"),
    "history without rows": (spoilt("metrics.csv", "epoch,loss\n"), ValueError, "a row an epoch"),
    "history cut": (spoilt("metrics.csv", "epoch,loss,value\n1,2.0,\n2,1."), ValueError, "line 3 must hold 3 finite"),
    "history in words": (spoilt("metrics.csv", "epoch,loss\n1,low\n"), ValueError, "line 2 must hold 2 finite"),
    "history not text": (
        lambda f: (f / "metrics.csv").write_bytes(b"\xff\xfe\x00"),
        ValueError,
        "cannot use .*metrics",
    ),
    "weights cut": (spoilt("model.safetensors", "x"), ValueError, "cannot use .*model.safetensors"),
}


@pytest.mark.parametrize(("spoil", "error", "message"), BAD.values(), ids=BAD)
def test_bad_run_is_one_sentence_and_the_old_page_stays(
    spoil: Callable[[Path], object], error: type[Exception], message: str, clip: Path, tmp_path: Path
) -> None:
    spoil(clip)
    (tmp_path / "r.html").write_text("old")
    with pytest.raises(error, match=message) as caught:
        write_report([clip], tmp_path / "r.html", progress=False)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "r.html").read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} <= {"clip", "r.html"}


def test_no_run_and_the_same_run_twice_are_refused(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs one run folder or more; got none"):
        write_report([], tmp_path / "r.html")
    with pytest.raises(ValueError, match=r"named once; got .* twice"):
        write_report([clip, clip / ".." / "clip"], tmp_path / "r.html")
    with pytest.raises(TypeError, match="must be a list of run folders"):
        write_report(str(clip), tmp_path / "r.html")


def test_out_that_cannot_be_written_is_refused_before_anything_is_computed(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cheaplip.report.page.load", lambda *_: pytest.fail("a network was loaded"))
    with pytest.raises(ValueError, match="which is a folder: name a file"):
        write_report([clip], tmp_path)
    with pytest.raises(ValueError, match=r"config.yaml is no folder: choose another file by --out"):
        write_report([clip], clip / "config.yaml" / "r.html")
    with pytest.raises(ValueError, match="would be a file of a run"):
        write_report([clip], clip / "result.json")
    assert runs.finished(clip)


def test_page_that_fails_half_way_leaves_the_old_one_whole(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "new" / "r.html"
    monkeypatch.setattr("cheaplip.report.page.view_of", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report([clip], out, progress=False)
    assert not out.parent.exists()


def images(shape: tuple[int, ...], classes: int | None = 10) -> Data:
    """Random images in a box that is not [0, 1]."""
    draw = torch.Generator().manual_seed(0)
    x = 2 * torch.rand(40, *shape, generator=draw) - 1
    y = torch.rand(40, 1) if classes is None else torch.arange(40) % classes
    split = Split(x, y)
    return Data("random", split, split, split, split, classes=classes, shape=shape, box=(-1.0, 1.0))


def linear(size: int, factor: float = 3.0) -> torch.nn.Module:
    """A network that is nowhere less steep than elsewhere: f(x) = 3 x."""
    layer = torch.nn.Linear(size, size, bias=False)
    layer.weight = torch.nn.Parameter(factor * torch.eye(size), requires_grad=False)
    return torch.nn.Sequential(torch.nn.Flatten(), layer)


def films_of(model: torch.nn.Module, data: Data) -> list[steepest.Film]:
    settings = TrainSettings(lipschitz=LipschitzSettings(pairs=4))
    return steepest.films(model, data, settings, torch.device("cpu"), lambda text: None)


def test_films_show_the_quotients_of_the_network() -> None:
    films = films_of(linear(16), images((1, 4, 4), 16))
    assert [film.title for film in films].count("two different samples") == 2
    for film in films:
        assert [frame.update for frame in film.frames] == list(range(31))
        assert {frame.quotient_text for frame in film.frames} == {"3.000"}


def test_film_climbs_and_begins_with_its_steepest_frame_in_view() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    for film in films_of(net.requires_grad_(False), images((1, 4, 4))):
        quotients = [frame.quotient for frame in film.frames]
        assert quotients[film.best] == max(quotients) > 1.2 * quotients[0]


def test_larger_images_in_colour_lose_frames_and_not_the_page() -> None:
    data = images((3, 40, 40), None)
    films = films_of(torch.nn.Sequential(torch.nn.AvgPool2d(8), torch.nn.Flatten(), torch.nn.Linear(75, 2)), data)
    assert all(2 < len(film.frames) < 31 and film.frames[0].update == 0 for film in films)
    assert all(film.frames[-1].update == 30 for film in films)
    total = sum(len(picture.uri) for film in films for frame in film.frames for picture in frame.pictures)
    assert total < 1.3 * steepest.ROOM


def test_examples_keep_their_radius_and_say_what_broke() -> None:
    data, model = images((1, 4, 4), 16), linear(16)
    y = model(data.test.x).argmax(1)  # all right
    split = Split(data.test.x, y)
    sure = Data("sure", split, split, split, split, classes=16, shape=(1, 4, 4), box=(-1.0, 1.0))
    found = adversarial.examples(model, sure, 0.5, 0, torch.device("cpu"))
    assert len(found.found) == 6
    assert all(float(example.size_text) <= 0.5 for example in found.found)
    for example in found.found:
        assert example.broken == (example.pictures[0].text != example.pictures[2].text)
    assert all(example.pictures[0].text.startswith("class ") for example in found.found)
    named = adversarial.examples(model, replace(sure, name="fashion-mnist"), 0.5, 0, torch.device("cpu"))
    assert [example.pictures[0].text for example in named.found] == [
        class_words("fashion-mnist", int(example.pictures[0].text.split()[1])) for example in found.found
    ]
    assert all(f"taken for {example.pictures[0].text} with" in example.pictures[0].alt for example in named.found)
    wrong = Split(data.test.x, (y + 1) % 16)
    none = Data("none", wrong, wrong, wrong, wrong, classes=16, shape=(1, 4, 4), box=(-1.0, 1.0))
    assert adversarial.examples(model, none, 0.5, 0, torch.device("cpu")).found == []


def test_equal_images_have_a_change_without_colour() -> None:
    within = pictures.Range(0.0, 1.0, 64)
    for channels in (1, 3):
        uri, magnified = pictures.change_of(torch.zeros(channels, 4, 4), within)
        assert magnified == 1.0
        assert uri != pictures.change_of(torch.eye(4).expand(channels, 4, 4), within)[0]


def test_bar_appears_for_those_who_wait(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with waiting.Waiting(2, shown=True) as quick:
        quick.advance("quick work")
    assert "quick work" not in capsys.readouterr().err
    monkeypatch.setattr(waiting, "PATIENCE", -1.0)
    with waiting.Waiting(2, shown=True) as slow:
        slow.advance("slow work")
    assert "slow work" in capsys.readouterr().err
    with waiting.Waiting(2, shown=False) as hidden:
        hidden.advance("hidden work")
    assert capsys.readouterr().err == ""
