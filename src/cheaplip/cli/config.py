"""Files of settings, checked before the parser sees them: what is wrong with one is told in one sentence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any


def check_configs(arguments: Sequence[str]) -> None:
    """Check all files that ``--config`` of ``cheaplip train`` and ``sweep`` names.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if one is no YAML, holds no mapping, or says a key twice.

    Example:
        >>> check_configs(["train", "--config", "no/such.yaml"])
        Traceback (most recent call last):
        FileNotFoundError: expected a YAML file of settings, found no file no/such.yaml: check what follows --config
    """
    if arguments[:1] not in (["train"], ["sweep"]):
        return
    option = "--config"
    named = [word.removeprefix(f"{option}=") for word in arguments if word.startswith(f"{option}=")]
    for name in [*named, *(after for before, after in pairwise(arguments) if before == option)]:
        read_config(Path(name))


def read_config(path: Path) -> dict[str, Any]:
    """Return what a YAML file of settings says; raises as :func:`check_configs` does."""
    import yaml

    expected = "expected a YAML file of settings"
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise FileNotFoundError(f"{expected}, found no file {path}: check what follows --config") from None
    except OSError as error:
        raise ValueError(f"cannot read {path} ({error.strerror or error}): {expected}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 (byte {error.start}): {expected}, saved as UTF-8 text") from error
    try:
        root, values = yaml.compose(text, Loader=yaml.SafeLoader), yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no YAML that can be used: {_reason(error)}") from error
    if not isinstance(values, dict):
        got = "nothing" if values is None else f"a {type(values).__name__}"
        raise ValueError(f"{path} must hold settings by name, such as `epochs: 20`; got {got}")
    for key, line in _repeated(root, set()):
        raise ValueError(f"{path} says {key!r} twice, the second time in line {line}: keep one of them")
    return values


def _reason(error: Exception) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    text = " ".join(str(problem or error).split()) or type(error).__name__
    return text if mark is None else f"line {mark.line + 1}: {text}"


def _repeated(node: Any, seen: set[int]) -> Iterator[tuple[str, int]]:
    """Yield the keys that stand twice in one mapping, and where; an alias may lead back to what holds it."""
    if id(node) in seen or not isinstance(node.value, list):
        return
    seen.add(id(node))
    keys: set[str] = set()
    for entry in node.value:
        for part in entry if isinstance(entry, tuple) else (entry,):
            yield from _repeated(part, seen)
        if isinstance(entry, tuple):
            key = str(entry[0].value)
            if key in keys:
                yield key, entry[0].start_mark.line + 1
            keys.add(key)
