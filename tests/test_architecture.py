"""The shape of the project: who imports whom, how large things grow, what an import loads, what ships."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "cheaplip"

# A module may import what stands before it. A new one gets its place here and in the docs.
ORDER = (
    *(
        "files",
        "checks",
        "counting",
        "sources",
        "factories",
        "drawing",
        "norms",
        "modes",
        "pairs",
        "attacks",
        "lipschitz",
        "penalties",
        "evaluation",
        "training",
    ),
    *("data", "models", "settings", "runs", "experiments", "report", "cli", "__main__"),
)
ALONE = {"control", "reference"}  # import nothing of cheaplip
# May `import cheaplip`, whose names reach up to runs.
ON_THE_SURFACE = {"experiments", "report", "cli", "__main__"}

WRITTEN = {".cff", ".css", ".csv", ".html", ".json", ".md", ".py", ".toml", ".txt", ".yaml", ".yml", ""}
FOLDERS = (".ci", "benchmarks", "docs", "examples", "src", "tests")
MODULES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = sorted([*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "examples").glob("*.py")])
TEXTS = sorted(
    path
    for place, pattern in [
        (ROOT, "[!.]*.*"),
        (ROOT, "Makefile"),
        *((ROOT / name, "**/*") for name in FOLDERS),
    ]
    for path in place.glob(pattern)
    if path.is_file() and path.suffix in WRITTEN and path.name != ".DS_Store" and ".egg-info" not in str(path)
)


def each(paths: list[Path]) -> pytest.MarkDecorator:
    """Run a test once per file, named by the file."""
    return pytest.mark.parametrize("path", paths, ids=[str(path.relative_to(ROOT)) for path in paths])


def imported(source: str, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of all that `source` in `package` imports, inside functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            stem = (*above, *filter(None, [node.module]))
            yield from ((node.lineno, ".".join((*stem, alias.name))) for alias in node.names)


def homes_imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and first-level home of what a file imports from cheaplip; a public name's home is "cheaplip"."""
    package = ("cheaplip", *path.relative_to(PACKAGE).parent.parts)
    for line, name in imported(path.read_text("utf-8"), package):
        top, *below = name.split(".")
        if top == "cheaplip":
            is_home = below and ((PACKAGE / below[0]).is_dir() or (PACKAGE / f"{below[0]}.py").is_file())
            yield line, below[0] if is_home else "cheaplip"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import cheaplip.norms as n", "cheaplip.norms"),
        ("from cheaplip.norms import f", "cheaplip.norms.f"),
        ("from cheaplip import norms", "cheaplip.norms"),
        ("from . import lower", "cheaplip.lipschitz.lower"),
        ("from .lower import f", "cheaplip.lipschitz.lower.f"),
        ("from .. import norms", "cheaplip.norms"),
        ("from ..norms import f", "cheaplip.norms.f"),
        ("def f():\n    from ..norms import f", "cheaplip.norms.f"),
    ],
)
def test_every_form_of_import_is_seen(source: str, expected: str) -> None:
    assert [name for _, name in imported(source, ("cheaplip", "lipschitz"))] == [expected]


@each([path for path in MODULES if path != PACKAGE / "__init__.py"])  # what __init__ may load is tested below
def test_module_imports_only_from_its_left(path: Path) -> None:
    me = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert me in {*ALONE, *ORDER}, f"{me} has no place in the import order: give it one in ORDER and in the docs"
    allowed = {me} if me in ALONE else {me, *ALONE, *ORDER[: ORDER.index(me)]}
    if me in ON_THE_SURFACE:
        allowed.add("cheaplip")
    wrong = [f"line {line} imports {other}" for line, other in homes_imported(path) if other not in allowed]
    assert not wrong, f"{path.relative_to(ROOT)} may import {sorted(allowed)} of cheaplip: {wrong}"


@each(MODULES)
def test_every_class_is_final_but_protocols(path: Path) -> None:
    classes = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.ClassDef)]
    concrete = [node for node in classes if "Protocol" not in map(ast.unparse, node.bases)]
    assert [node.name for node in concrete if "final" not in map(ast.unparse, node.decorator_list)] == []


@each([*MODULES, *SCRIPTS])
def test_file_has_at_most_250_lines(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 250


@each([*MODULES, *SCRIPTS])
def test_function_has_at_most_45_lines_without_its_docstring(path: Path) -> None:
    too_long = {}
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            if ast.get_docstring(node) is not None:
                lines -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
            if lines > 45:
                too_long[node.name] = lines
    assert not too_long


@each(MODULES)
def test_class_inherits_at_most_a_protocol_of_the_package(path: Path) -> None:
    name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for _, cls in inspect.getmembers(importlib.import_module(name), inspect.isclass):
        if cls.__module__ != name:
            continue
        ours = [base for base in cls.__mro__[1:] if base.__module__.partition(".")[0] == "cheaplip"]
        assert len(ours) <= 1, f"{cls} inherits from {ours}: inheritance goes no deeper than two"
        assert all(getattr(base, "_is_protocol", False) for base in ours), f"{cls} extends {ours}, which is final"


def test_import_loads_no_third_party_package_beyond_torch_and_numpy() -> None:
    code = "import json, sys, torch; before = set(sys.modules); import cheaplip; "
    code += "print(json.dumps(sorted(set(sys.modules) - before)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert "cheaplip" in loaded
    others = {name for name in loaded - sys.stdlib_module_names if not name.startswith("_")}
    assert others <= {"cheaplip", "numpy", "torch"}


@each(TEXTS)
def test_file_names_no_misspelt_symbol_and_no_path_of_one_machine(path: Path) -> None:
    text = path.read_text("utf-8")
    assert "lam" + "da" not in text.lower(), "the weight of a penalty is `weight` in code, λ in prose"
    found = re.search(r"(?<![\w.:/~})\]$-])/(?:home|mnt|root|work|Users)/\w|\b[A-Z]:\\Users", text)
    assert found is None, f"a path of one machine: {text[found.start() :].splitlines()[0]}"


def read_pyproject() -> dict[str, Any]:
    """pyproject.toml as a dictionary; Python 3.10 has no reader for it."""
    toml = pytest.importorskip("tomllib")
    settings: dict[str, Any] = toml.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    return settings


def test_wheel_holds_the_type_marker_and_every_data_file_of_the_package() -> None:
    patterns = read_pyproject()["tool"]["setuptools"]["package-data"]["cheaplip"]
    declared = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    present = {path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}}
    assert PACKAGE / "py.typed" in declared
    assert present <= declared, "add what is missing to package-data in pyproject.toml"


def test_every_declared_dependency_is_pinned_for_the_tests() -> None:
    project = read_pyproject()["project"]
    pin = re.compile(r"^([\w.-]+)==[\w.]+(?: ; .*)?$", re.MULTILINE)
    pins = set(pin.findall((ROOT / "constraints.txt").read_text("utf-8")))
    extras = itertools.chain.from_iterable(project["optional-dependencies"].values())
    names = {re.split(r"[^\w.-]", wanted)[0].lower() for wanted in [*project["dependencies"], *extras]}
    assert not names - pins - {"cheaplip"}, "write the missing versions down in constraints.txt"


def test_citation_names_the_version_of_the_package() -> None:
    version = read_pyproject()["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
