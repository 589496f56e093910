"""The options of all commands: made from the settings, so that each is written down once."""

from __future__ import annotations

import difflib
import re
from argparse import ArgumentError
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from jsonargparse import SUPPRESS, ArgumentParser

from cheaplip.settings import (
    About,
    BoundsSettings,
    ReproduceSettings,
    Setting,
    SweepSettings,
    TrainSettings,
    expected,
    settings_of,
)

# As cheaplip.experiments has them, which would load torch.
EXPERIMENTS = ("table1", "figure1", "figure2", "toy", "path")
_TRAIN = tuple(settings_of(TrainSettings))
_DEVICE = next(setting for setting in _TRAIN if setting.name == "device")
_NAMES = (
    "clean, noise, noise-clamped, pgd-paper and pgd-paper-box (weak), pgd, nes, nes-labels, distance, patch, certified "
    "(a proof); with the extra [attacks] autoattack-fast, autoattack, apgd-ce, apgd-t, square, fab-t, ddn, cw, "
    "deepfool, hopskipjump, boundary; most with -linf or -l1 behind for these norms"
)
_EVALUATE = (
    Setting("attacks", str, "noise,pgd-paper,pgd", About(f"joined by commas: {_NAMES}")),
    Setting(
        "eps",
        str | None,
        None,
        About("radii of all attacks, in input units, joined by commas; null: 2, -linf 0.1, -l1 12"),
    ),
    Setting("limit", int | None, None, About("attack the first N test images; null: all", low=1)),
    Setting("seed", int, 0, About("of noise and random starts", low=0)),
    Setting("data_dir", str | None, None, About("the data folder; null: that of the run")),
    _DEVICE,
)
_SWEEP = (
    Setting("config", str | None, None, About("a YAML file: settings as those of train, grid: and cases: (above)")),
    *settings_of(SweepSettings),
)
_REPORT = (
    Setting("out", str, "report.html", About("the page; one that is there is replaced")),
    Setting("data_dir", str | None, None, About("the data folder; null: that of each run")),
    _DEVICE,
)
_DATA = (
    Setting("data", str | None, None, About("mnist or fashion-mnist; null: both")),
    Setting("data_dir", str | None, None, About("the data folder; null: CHEAPLIP_DATA, ./data or the user's cache")),
)
_OPTIONS = {
    "train": _TRAIN,
    "evaluate": _EVALUATE,
    "bounds": tuple(settings_of(BoundsSettings)),
    "reproduce": tuple(settings_of(ReproduceSettings)),
    "sweep": _SWEEP,
    "report": _REPORT,
    "compare": (),
    "data": _DATA,
}
# Of each command: how it is called, and what it does.
_COMMANDS = {
    "train": (
        "[--config FILE] [--data NAME] [--out DIR] [options]",
        "Train a network and leave a run folder: settings, history, weights and results.",
    ),
    "evaluate": (
        "RUN [--attacks NAMES] [--eps RADII] [--limit N] [options]",
        "Attack the network of a run; what is found joins the run's result.json.",
    ),
    "bounds": (
        "RUN|pkg.mod:factory [--p 2] [--domain all|box] [--claim L] [--save FILE] [--check FILE] [options]",
        "Enclose the Lipschitz constant of a run's network, or of your own, between a pair of inputs that attains the "
        "lower bound and a proof of the upper one; status 3: a claim is refuted.",
    ),
    "reproduce": (
        "table1|figure1|figure2|toy|path [--data NAME] [--seeds N] [--jobs N] [--engine ray] [--out DIR] [options]",
        "Make a table or figure of the paper; a command that was stopped is given again to go on.",
    ),
    "sweep": (
        "--config FILE [--jobs N] [--engine local|ray] [--address A] [--out DIR]",
        "Train a run for each combination of settings that FILE lists, such as `grid: {target: [0.9, 0.95]}` behind "
        "settings as those of train; `cases:` lists settings that belong together. A command that was stopped, or "
        "whose grid has grown, is given again to go on.",
    ),
    "compare": (
        "RUN RUN [RUN ...]",
        "Put runs side by side, and say which differences are more than chance (McNemar's test).",
    ),
    "report": (
        "RUN [RUN ...] --out report.html [options]",
        "Show one run, or compare several, on one page that needs no other file.",
    ),
    "data": (
        "list|fetch|verify [--data NAME] [--data-dir DIR]",
        "List the data sets, fetch their files, or verify these by their SHA-256.",
    ),
}
_WHAT = "Cheap Lipschitz training of neural networks (CLIP, arXiv 2103.12531)."
_GROUPS = {
    "": "settings",
    "lipschitz": "pairs of the penalty lipschitz",
    "jacobian": "the penalty jacobian",
    "alp": "the penalty alp",
    "trades": "the penalty trades",
    "control": "how λ is driven to the target",
}
# The sentences of jsonargparse that say which option has a wrong value, or is unknown.
_WRONG_VALUE = re.compile(r'Parser key "(?P<name>[\w.]+)":.*?value: (?P<value>.*)$', re.DOTALL)
_UNKNOWN = re.compile(
    r"does not accept (?:option|nested key) '(?P<key>[^']+)'|[Uu]nrecognized arguments: --(?P<option>[\w.-]+)"
)


def make_parser() -> ArgumentParser:
    """Return the parser of the whole command line."""
    parser = _parser(prog="cheaplip", version=version("cheaplip"), description=_WHAT)
    commands = parser.add_subcommands(required=False, dest="command", metavar="COMMAND")
    for name, (usage, description) in _COMMANDS.items():
        command = _parser(usage=f"cheaplip {name} {usage}", description=description)
        if name == "train":
            _add_config(command)
        elif name == "evaluate":
            command.add_argument("run", metavar="RUN", help="the run folder")
        elif name == "bounds":
            command.add_argument(
                "target",
                metavar="RUN|pkg.mod:factory",
                help="run folder, or your function that makes a model, whose code is run",
            )
        elif name in ("report", "compare"):
            command.add_argument("runs", metavar="RUN", nargs="+", help="run folders")
        elif name == "reproduce":
            command.add_argument("experiment", choices=EXPERIMENTS, help="the table or figure")
        elif name == "data":
            command.add_argument("action", choices=["list", "fetch", "verify"], help="what to do")
        for setting in _OPTIONS[name]:
            _add(command, setting)
        commands.add_subcommand(name, command, help=description)
    return parser


def _parser(**arguments: Any) -> ArgumentParser:
    return ArgumentParser(exit_on_error=False, allow_abbrev=False, print_config="--print-config", **arguments)


def _add_config(parser: ArgumentParser) -> None:
    parser.add_argument("--config", action="config", metavar="FILE", help="a YAML file of settings, as in a run folder")
    # What config.yaml of a run folder says beside the settings.
    for name in ("input", "versions"):
        parser.add_argument(f"--{name}", type=dict[str, Any] | None, default=None, help=SUPPRESS)
    for name, title in _GROUPS.items():
        parser.add_argument_group(title, name=name or "top")


def _add(parser: ArgumentParser, setting: Setting) -> None:
    name, about = setting.name, setting.about
    group = (parser.groups or {}).get(name.rpartition(".")[0] or "top", parser)
    option = f"--{name.replace('_', '-')}"
    text = about.text + (f" ({about.range})" if about.range else "")
    if setting.kind is bool and setting.default is False:
        group.add_argument(option, action="store_true", help=text)
    else:
        group.add_argument(option, type=setting.kind, default=setting.default, help=text)


def _hint(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"


def explain(error: ArgumentError, arguments: list[str]) -> str:
    """Return one line on what is wrong with a command line or a file of settings."""
    command = arguments[0] if arguments and arguments[0] in _OPTIONS else ""
    options = {setting.name: setting for setting in _OPTIONS.get(command, ())}
    text = re.sub(r'^Parser key "([^"]+)":|(?<=required: )\w+\.', r"\1", " ".join(str(error).split()))
    if wrong := _WRONG_VALUE.search(str(error)):
        setting = options.get(wrong["name"].removeprefix(f"{command}."))
        if setting is not None:
            text = f"{setting.name} must be {expected(setting.kind, setting.about)}; got {wrong['value'].strip()!r}"
    elif arguments and not command and not arguments[0].startswith("-"):
        text = f"unknown command {arguments[0]!r}, {_hint(arguments[0], _COMMANDS)}"
    elif unknown := _UNKNOWN.search(text):
        name = unknown["key"] or unknown["option"]
        near = difflib.get_close_matches(name.replace("-", "_"), options, n=1)
        if unknown["key"]:
            text = f"unknown setting {name!r}" + (f", did you mean {near[0]!r}?" if near else "")
        else:
            hint = f", did you mean --{near[0].replace('_', '-')}?" if near else ""
            text = f"unknown option --{name}{hint}"
    return f"{text}; see `{' '.join(filter(None, ['cheaplip', command, '--help']))}`"
