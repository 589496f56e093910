"""The command line: what it prints, its exit status, and one line for everything that a user may get wrong."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import cheaplip
from cheaplip import runs
from cheaplip.cli import main
from cheaplip.settings import TrainSettings, settings_of

FAST = ["train", "--model", "mlp:64-16-10:relu", "--lipschitz.pairs", "8"]
PACKAGE = Path(cheaplip.__file__).parent


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "cheaplip", *arguments]


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main([*FAST, "--epochs", "2", "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished run that a test may spoil."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def fails(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str, status: int = 2) -> None:
    """Run a command that must fail with this one line."""
    capsys.readouterr()
    assert main(arguments) == status
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("cheaplip: ")
    assert told.err.count("\n") == 1
    assert message in told.err


def test_train_prints_its_results_and_where_they_lie(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FAST, "--epochs", "1", "--seed", "3"]) == 0
    out, result = capsys.readouterr().out, runs.read_result(here / "runs" / "digits-lipschitz-3")
    assert f"accuracy, train   {result['accuracy']['train']:.4f}" in out
    assert f"accuracy, clean   {result['accuracy']['clean']:.4f}" in out
    assert f"Lip, lower bound  {result['lipschitz']['lower']:.4g}" in out
    assert f"λ                 {result['weight']:.4g}" in out
    assert out.endswith("the run lies in runs/digits-lipschitz-3\n")


def test_config_file_of_a_run_repeats_it_bit_by_bit(finished_run: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    assert main(["train", "--config", str(finished_run / "config.yaml"), "--out", str(again)]) == 0
    weights = (again / "model.safetensors").read_bytes()
    assert weights == (finished_run / "model.safetensors").read_bytes()
    assert (again / "config.yaml").read_bytes() == (finished_run / "config.yaml").read_bytes()


def test_command_line_overrides_the_config_file(finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("epochs: 3\nseed: 5\nlipschitz:\n  min_distance: 1e-2\ncontrol: {step: 0.5}\n")
    arguments = ["--config", str(tmp_path / "mine.yaml"), "--epochs", "1", "--control.step", "0.25", "--target", "null"]
    assert main([*FAST, *arguments, "--out", str(tmp_path / "run")]) == 0
    settings = runs.read_config(tmp_path / "run").settings
    assert (settings.epochs, settings.seed, settings.target) == (1, 5, None)
    assert (settings.lipschitz.min_distance, settings.lipschitz.pairs, settings.control.step) == (0.01, 8, 0.25)


def test_evaluate_prints_and_merges_the_attacks(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["evaluate", str(run), "--attacks", "noise,pgd-paper", "--eps", "0.5,1", "--limit", "20"]
    assert main(arguments) == 0
    out, entries = capsys.readouterr().out, runs.read_result(run)["robust"]
    assert [(e["attack"], e.get("eps"), e["images"]) for e in entries] == [
        *(("noise", None, 20), ("pgd-paper", 0.5, 20), ("pgd-paper", 1.0, 20)),
    ]
    for entry in entries:
        radius = f", ε = {entry['eps']:g} (weak)" if "eps" in entry else ""
        (line,) = [line for line in out.splitlines() if line.startswith(f"accuracy, {entry['attack']}{radius}  ")]
        low, high = entry["interval"]
        assert line.split("  ")[-3:] == [f"{entry['accuracy']:.4f}", f"{low:.4f} to {high:.4f}", "20"]


def test_result_json_is_plain_json_without_nan(finished_run: Path) -> None:
    def refuse(word: str) -> None:
        pytest.fail(f"{word} is no JSON")

    json.loads((finished_run / "result.json").read_text("utf-8"), parse_constant=refuse)


def test_data_list_names_all_sets_and_their_licences(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("digits", "mnist", "fashion-mnist", "regression", "CC BY-SA 3.0"))


def test_data_verify_tells_whole_files_from_altered_ones(
    mnist_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "verify", "--data", "mnist", "--data-dir", str(mnist_dir)]) == 0
    assert capsys.readouterr().out.count("ok") == 4
    shutil.copytree(mnist_dir / "MNIST", tmp_path / "MNIST", copy_function=shutil.copyfile)
    labels = tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte.gz"
    content = bytearray(gzip.decompress(labels.read_bytes()))
    content[100] ^= 1
    labels.write_bytes(gzip.compress(bytes(content)))
    assert main(["data", "verify", "--data-dir", str(tmp_path)]) == 2
    told = capsys.readouterr()
    assert "t10k-labels-idx1-ubyte.gz is altered" in told.err
    assert told.out.count("ok") == 3
    fails(capsys, ["train", "--data", "mnist", "--data-dir", str(tmp_path)], "was altered")


def test_data_verify_and_train_tell_missing_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = ["--data-dir", str(tmp_path)]
    fails(capsys, ["data", "verify", *at], "found no files to verify")
    fails(capsys, ["train", "--data", "mnist", *at], "train-images-idx3-ubyte.gz")
    assert main(["data", "verify", "--data", "mnist", *at]) == 2
    assert capsys.readouterr().out.count("missing") == 4


def test_train_tells_damaged_data_files_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{part}-ubyte.gz").write_bytes(gzip.compress(b"\0\0\x08\x01"))
    fails(capsys, ["train", "--data", "mnist", "--data-dir", str(tmp_path)], "is cut short")


def test_data_fetch_leaves_whole_files_alone(mnist_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "fetch", "--data", "mnist", "--data-dir", str(mnist_dir)]) == 0
    assert capsys.readouterr().out == f"mnist: {mnist_dir}\n"
    fails(capsys, ["data", "fetch", "--data", "cifar"], "only mnist and fashion-mnist")


BAD = {
    "unknown command": (["trian"], "unknown command 'trian', did you mean 'train'?"),
    "other unknown command": (["evalute", "run"], "unknown command 'evalute', did you mean 'evaluate'?"),
    "command far from all": (
        ["xyzzy"],
        "unknown command 'xyzzy', expected one of train, evaluate, bounds, reproduce, sweep, compare, report, data",
    ),
    "config that is a folder": (["train", "--config", "."], "cannot read . (Is a directory): expected a YAML file"),
    "unknown option": (["train", "--targt", "0.9"], "unknown option --targt, did you mean --target?"),
    "unknown option in a group": (["train", "--lipschitz.pears=3"], "did you mean --lipschitz.pairs?"),
    "underscored option": (["train", "--batch_size", "1"], "unknown option --batch_size, did you mean --batch-size?"),
    "abbreviated option": (["train", "--epo", "1"], "unknown option --epo"),
    "option without a value": (["train", "--data"], "argument --data: expected one argument"),
    "stray word": (["train", "digits"], "unrecognized arguments: digits"),
    "target above one": (["train", "--target", "1.5"], "target must be an accuracy between 0 and 1"),
    "target below zero": (["train", "--target", "-0.5"], "target must be a number above 0, or null; got -0.5"),
    "target that is no number": (["train", "--target", "high"], "target must be a number above 0, or null; got 'high'"),
    "negative weight": (["train", "--weight", "-1"], "weight must be a number of at least 0; got -1.0"),
    "weight NaN": (["train", "--weight", "nan"], "weight must be a number of at least 0; got 'nan'"),
    "no epoch": (["train", "--epochs", "0"], "epochs must be a whole number of at least 1; got 0"),
    "half an epoch": (["train", "--epochs", "0.5"], "epochs must be a whole number of at least 1; got '0.5'"),
    "unknown choice": (["train", "--select", "best"], "select must be one of last, robust; got 'best'"),
    "unknown penalty": (
        ["train", "--penalty", "l1"],
        "penalty must be lipschitz, weight, layers, bound, jacobian",
    ),
    "classes missing": (
        ["train", "--data", "regression", "--penalty", "weight+trades"],
        "penalty trades needs data with classes; regression is a regression: take another, such as jacobian",
    ),
    "bound of a convolution": (["train", "--model", "cnn", "--penalty", "bound"], "(Conv2d) is not understood"),
    "unknown data": (["train", "--data", "cifar"], "the data must be digits, mnist"),
    "unknown factory": (["train", "--data", "no.such:thing"], "No module named 'no'"),
    "unknown model": (["train", "--model", "resnet"], "the model must be mlp:784-64-64-10"),
    "model that does not fit": (["train", "--model", "mlp:784-10"], "takes 784 inputs, but shape (1, 8, 8) has 64"),
    "model of other outputs": (["train", "--model", "mlp:64-9"], "gives 9 outputs for 10 classes"),
    "no such config": (["train", "--config=none.yaml"], "found no file none.yaml: check what follows --config"),
    "evaluate without a run": (["evaluate"], "see `cheaplip evaluate --help`"),
    "evaluate no run": (["evaluate", "none"], "expected a run folder, found no folder none"),
    "data without an action": (["data"], "see `cheaplip data --help`"),
    "data with another action": (["data", "drop"], "invalid choice: 'drop'"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_told_in_one_line_and_leaves_nothing(
    arguments: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fails(capsys, arguments, message)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epoch: 3", "unknown setting 'epoch', did you mean 'epochs'?"),
        ("lipschitz: {pears: 3}", "unknown setting 'lipschitz.pears', did you mean 'lipschitz.pairs'?"),
        ("lipschitz: 3", "lipschitz must be a mapping of settings; got 3"),
        ("epochs: many", "epochs must be a whole number of at least 1; got 'many'"),
        ("target: 2", "target must be an accuracy between 0 and 1"),
        ("a: [", "mine.yaml is no YAML that can be used: line 1: "),
        ("[" * 9999, "mine.yaml is no YAML that can be used: "),
        ("- 1", "mine.yaml must hold settings by name, such as `epochs: 20`; got a list"),
        ("", "mine.yaml must hold settings by name, such as `epochs: 20`; got nothing"),
        ("epochs: 1\nseed: 2\nepochs: 3", "mine.yaml says 'epochs' twice, the second time in line 3"),
        ("lipschitz:\n  pairs: 1\n  pairs: 2", "mine.yaml says 'pairs' twice, the second time in line 3"),
        ("input: &a {input: *a}", "input Does not validate"),
        (b"data: dig\xeets", "mine.yaml is not UTF-8 (byte 9)"),
        ("data: !!python/object/apply:pathlib.Path.touch [mark]", "mine.yaml is no YAML that can be used: line 1: "),
    ],
)
def test_bad_config_file_is_told_in_one_line(
    content: str | bytes, message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "mine.yaml").write_bytes(content.encode() if isinstance(content, str) else content)
    fails(capsys, ["train", "--config", "mine.yaml"], message)
    assert [path.name for path in here.iterdir()] == ["mine.yaml"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--attacks", "pdg"], "unknown attack 'pdg': did you mean 'pgd'?"),
        (["--attacks", "xyz"], "unknown attack 'xyz': choose among noise, noise-clamped"),
        (["--attacks", "pgd,"], "--attacks must be a list joined by commas"),
        (["--attacks", "pgd,pgd"], "each attack may be named once"),
        (["--eps", "1,x"], "--eps must be numbers above 0"),
        (["--eps", "-1"], "eps must be a finite number above 0; got -1.0"),
        (["--eps", "1,1"], "different radii"),
        (["--eps", "nan", "--attacks", "noise"], "eps must be a finite number above 0; got nan"),
        (["--limit", "0"], "limit must be"),
        (["--limit", "all"], "limit must be a whole number of at least 1, or null; got 'all'"),
        (["--device", "tpu"], "device must be one of auto, cpu, cuda"),
    ],
)
def test_bad_attack_is_told_in_one_line_and_changes_nothing(
    arguments: list[str], message: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    fails(capsys, ["evaluate", str(run), *arguments], message)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


@pytest.mark.parametrize("name", ["config.yaml", "model.safetensors", "result.json"])
def test_damaged_run_is_told_in_one_line(name: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / name).write_bytes(b"\0" + (run / name).read_bytes())
    fails(capsys, ["evaluate", str(run)], f"cannot use {run / name}")
    (run / name).unlink()
    fails(capsys, ["evaluate", str(run)], name)


def test_radii_that_differ_in_the_last_digits_stay_apart(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run), "--attacks", "pgd-paper", "--eps", "1.0000001,1", "--limit", "5"]) == 0
    assert [entry["eps"] for entry in runs.read_result(run)["robust"]] == [1.0000001, 1.0]
    assert "ε = 1.0000001 (weak)" in capsys.readouterr().out


def test_factory_that_raises_is_bad_input(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "own_that_raises.py").write_text("def net():\n    raise RuntimeError('no luck')\n")
    monkeypatch.syspath_prepend(str(here))
    for option in ("--model", "--data"):
        fails(capsys, ["train", option, "own_that_raises:net"], "own_that_raises:net raised RuntimeError: no luck")


def test_cuda_where_there_is_none_is_bad_input(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    fails(capsys, ["train", "--device", "cuda"], "torch finds none here: use device auto or cpu")


def test_out_that_holds_a_run_or_cannot_be_written_is_bad_input(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fails(capsys, [*FAST, "--out", str(run)], "already holds a run")
    (tmp_path / "file").write_text("")
    fails(capsys, [*FAST, "--out", str(tmp_path / "file" / "run")], "is no folder: choose another folder")
    fails(capsys, [*FAST, "--out", str(tmp_path / "file")], "is no folder: choose another folder")


def test_resume_says_what_it_finds(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*FAST, "--out", str(run), "--resume"]
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    assert main([*arguments, "--epochs", "2"]) == 0
    assert "is finished: nothing is left to do" in capsys.readouterr().out
    fails(capsys, [*arguments, "--epochs", "4"], "holds a run with epochs = 2, got 4")
    fails(capsys, [*arguments, "--epochs", "2", "--control.step", "0.5"], "control.step = ")
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_help_of_train_names_every_setting_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split()).partition(" settings: ")[2]
    for setting in settings_of(TrainSettings):
        _, found, after = text.partition(f"--{setting.name.replace('_', '-')} ")
        default = "null" if setting.default is None else setting.default
        assert found, setting.name
        assert f"default: {default})" in after.partition(" --")[0], setting.name


@pytest.mark.parametrize("name", ["evaluate", "data"])
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: cheaplip {name} ")
    assert "default: null" in out


def test_no_argument_prints_help_and_version_its_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: cheaplip COMMAND")
    assert all(f"\n    {name} " in out for name in ("train", "evaluate", "data"))
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"cheaplip {cheaplip.__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["train", "--epochs", "0"]])
def test_command_line_is_parsed_without_torch(arguments: list[str]) -> None:
    # The package itself is left out, as `import cheaplip` may load torch: what counts is all that the parser adds.
    code = f"import sys, types; p = types.ModuleType('cheaplip'); p.__path__ = [{str(PACKAGE)!r}]; "
    code += f"sys.modules['cheaplip'] = p; from cheaplip.cli import main; main({arguments!r}); "
    code += "print(sorted({'torch', 'numpy', 'lightning_fabric', 'sklearn', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_bad_input_of_the_process_is_one_line_and_status_two(tmp_path: Path) -> None:
    done = subprocess.run(command("train", "--epochs", "0"), capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "cheaplip: epochs must be a whole number of at least 1; got 0\n"


def test_output_that_knows_no_greek_is_no_failure(tmp_path: Path) -> None:
    done = subprocess.run(
        command("train", "--help"),
        capture_output=True,
        cwd=tmp_path,
        check=False,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"?" in done.stdout


def test_reader_that_has_enough_ends_the_command_quietly(tmp_path: Path) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen(command("data", "list"), stdout=pipe, stderr=pipe, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "jsonargparse", None)
    monkeypatch.delitem(sys.modules, "cheaplip.cli.parser", raising=False)
    fails(capsys, ["train"], 'pip install "cheaplip[cli]"')


def test_unexpected_error_has_a_traceback_and_status_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(settings: TrainSettings) -> Path:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(runs, "train", fail)
    assert main(["train"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith("cheaplip: unexpected RuntimeError: out of memory\n")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_training_says_how_to_go_on(
    number: signal.Signals, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(settings: TrainSettings) -> Path:
        os.kill(os.getpid(), number)
        time.sleep(10)
        raise AssertionError("the signal did not come")

    monkeypatch.setattr(runs, "train", stopped)
    handler = signal.getsignal(signal.SIGTERM)
    fails(capsys, ["train", "--out", "a b", "--resume"], "go on with cheaplip train --out 'a b' --resume", status)
    assert signal.getsignal(signal.SIGTERM) is handler


def test_interrupted_process_resumes_to_the_bits_of_an_undisturbed_one(tmp_path: Path) -> None:
    def arguments(folder: str) -> list[str]:
        return [*FAST, "--epochs", "25", "--lipschitz.steps", "4", "--out", str(tmp_path / folder)]

    # A group of its own, as in a terminal; a shell's background process would ignore the signal.
    process = subprocess.Popen(
        command(*arguments("a")), stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=tmp_path
    )
    try:
        waited = time.monotonic()
        while not (tmp_path / "a" / "checkpoint.pt").exists() and process.poll() is None:
            assert time.monotonic() - waited < 120
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        err = process.communicate(timeout=120)[1]
    finally:
        process.kill()
    assert process.returncode == 130
    assert err.startswith("cheaplip: stopped by Ctrl-C; what is done is saved: go on with cheaplip train ")
    assert err.count("\n") == 1
    assert not runs.finished(tmp_path / "a")
    assert main([*arguments("a"), "--resume"]) == 0
    assert main(arguments("b")) == 0
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b"))
    assert first == second
