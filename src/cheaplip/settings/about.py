"""What a setting means, its type and its range; settings from dictionaries and back."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, final, get_args, get_origin, get_type_hints

Kind = TypeVar("Kind")


@final
@dataclass(frozen=True)
class About:
    """What a setting means, with its unit, and the range of a number.

    Args:
        text: one line.
        low: the smallest value that is allowed.
        above: allowed values are larger.
        below: allowed values are smaller.
    """

    text: str
    low: float | None = None
    above: float | None = None
    below: float | None = None

    @property
    def range(self) -> str:
        """The range in words, empty if there is none."""
        parts = (("at least", self.low), ("above", self.above), ("below", self.below))
        return " and ".join(f"{word} {bound:g}" for word, bound in parts if bound is not None)

    def allows(self, value: float) -> bool:
        """Tell whether a number is finite and in the range."""
        return (
            abs(value) <= sys.float_info.max  # whole numbers may be larger than any float
            and (self.low is None or value >= self.low)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )


@final
@dataclass(frozen=True)
class Setting:
    """One setting, for a command line or a page.

    Args:
        name: its name; that of a group stands before a dot.
        kind: its type.
        default: its default.
        about: what it means.
    """

    name: str
    kind: Any
    default: Any
    about: About


def settings_of(kind: type[Any], prefix: str = "") -> Iterator[Setting]:
    """Yield all settings of a dataclass of settings and of the groups in it.

    Example:
        >>> @dataclass
        ... class Settings:
        ...     rate: Annotated[float, About("of learning", above=0)] = 0.1
        >>> next(settings_of(Settings)).name
        'rate'
    """
    hints = get_type_hints(kind, include_extras=True)
    default = kind()
    for entry in fields(kind):
        name, hint = prefix + entry.name, hints[entry.name]
        if is_dataclass(hint) and isinstance(hint, type):
            yield from settings_of(hint, f"{name}.")
        else:
            plain, about = get_args(hint)
            yield Setting(name, plain, getattr(default, entry.name), about)


def from_mapping(kind: type[Kind], values: Mapping[str, Any], prefix: str = "") -> Kind:
    """Make a dataclass of settings from nested dictionaries; what is left out takes its default.

    Raises:
        ValueError: for an unknown key or a value out of range.
        TypeError: for a value of another type.

    Example:
        >>> @dataclass
        ... class Settings:
        ...     rate: Annotated[float, About("of learning", above=0)] = 0.1
        >>> from_mapping(Settings, {"rat": 3})
        Traceback (most recent call last):
        ValueError: unknown setting 'rat': expected one of rate
    """
    if not isinstance(values, Mapping):
        raise TypeError(f"{prefix.rstrip('.') or 'settings'} must be a mapping of settings; got {values!r}")
    hints = get_type_hints(kind)
    given = {}
    for name, value in values.items():
        if name not in hints:
            raise ValueError(f"unknown setting {f'{prefix}{name}'!r}: expected one of {', '.join(hints)}")
        given[name] = from_mapping(hints[name], value, f"{prefix}{name}.") if is_dataclass(hints[name]) else value
    return kind(**given)


def check(settings: Any, prefix: str = "") -> None:
    """Raise unless each value of a dataclass of settings has its type and is in its range."""
    for name, hint in get_type_hints(type(settings), include_extras=True).items():
        value = getattr(settings, name)
        kind, about = get_args(hint) if get_origin(hint) is Annotated else (hint, About(""))
        if not _fits(value, kind):
            raise TypeError(f"{prefix}{name} must be {expected(kind, about)}; got {value!r}")
        if isinstance(value, (int, float)) and get_origin(kind) is not Literal and not about.allows(value):
            raise ValueError(f"{prefix}{name} must be {expected(kind, about)}; got {value!r}")


def _fits(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind) and not isinstance(value, bool)
    if get_origin(kind) in (Union, types.UnionType):
        return any(_fits(value, choice) for choice in get_args(kind))
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def expected(kind: Any, about: About) -> str:
    """Say in words what a value of this type and range must be.

    Example:
        >>> expected(float | None, About("the rate", above=0))
        'a number above 0, or null'
    """
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    if get_origin(kind) in (Union, types.UnionType):
        inner = next(choice for choice in get_args(kind) if choice is not type(None))
        return f"{expected(inner, about)}, or null"
    word = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(kind, "settings")
    within = f" of {about.range}" if about.range.startswith("at least") else f" {about.range}"
    return (word + within).rstrip()
