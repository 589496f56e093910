"""Results as tables on the screen and in files that are written whole; a bar for what takes long."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from rich.console import Console
from rich.progress import Progress
from rich.table import Table as RichTable

Row: TypeAlias = "tuple[str, ...]"


@dataclass(frozen=True)
class Table:
    """A table of text.

    Args:
        title: a line above it.
        heads: the columns' heads; the first column is flush left, the others right.
        rows: as many cells each as there are heads.

    Raises:
        ValueError: for a row of another length.
    """

    title: str
    heads: Row
    rows: tuple[Row, ...]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.heads):
                raise ValueError(f"a row must have {len(self.heads)} cells, one per head; got {len(row)}: {row}")

    def markdown(self) -> str:
        """Return the table in Markdown, its title as a line above.

        Example:
            >>> print(Table("t", ("step", "ms"), (("plain", "1.2"),)).markdown())
            t
            <BLANKLINE>
            | step | ms |
            |:---|---:|
            | plain | 1.2 |
            <BLANKLINE>
        """
        rule = "|".join([":---"] + ["---:"] * (len(self.heads) - 1))
        lines = [f"| {' | '.join(row)} |" for row in (self.heads, *self.rows)]
        return "\n".join([self.title, "", lines[0], f"|{rule}|", *lines[1:], ""])

    def text(self) -> str:
        """Return the table in plain text, for logs and pipes.

        Example:
            >>> print(Table("t", ("step", "ms"), (("plain", "1.2"),)).text())
            t
            step    ms
            plain  1.2
        """
        widths = [max(len(row[k]) for row in (self.heads, *self.rows)) for k in range(len(self.heads))]

        def line(row: Row) -> str:
            cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
            return "  ".join([row[0].ljust(widths[0]), *cells[1:]]).rstrip()

        return "\n".join([self.title, *map(line, (self.heads, *self.rows))])

    def show(self) -> None:
        """Print it: drawn on a terminal, in plain text elsewhere."""
        console = Console()
        if not console.is_terminal:
            print(self.text(), end="\n\n")
            return
        drawn = RichTable(title=self.title, title_justify="left")
        for k, head in enumerate(self.heads):
            drawn.add_column(head, justify="left" if k == 0 else "right")
        for row in self.rows:
            drawn.add_row(*row)
        console.print(drawn)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        ValueError: if that is not possible.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
            Path(name).chmod(0o644)
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror or error}; choose another --out") from error


def check_writable(folder: Path) -> None:
    """Make a folder and raise if no file can be written in it: before long work, not after.

    Raises:
        ValueError: if not.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"cannot write to {folder}: {error.strerror or error}; choose another --out") from error


@contextmanager
def progress() -> Iterator[Callable[[str, float], None]]:
    """Give a function that shows how far a named piece of work is, from 0 to 1.

    On a terminal it draws a bar, from the calling thread alone, for a thread that draws would take time from what is
    measured; elsewhere it prints the name when the work begins.
    """
    console = Console(stderr=True)
    shown = Progress(console=console, auto_refresh=False, transient=True, disable=not console.is_terminal)
    task = shown.add_task("", total=1.0)
    current, last = "", 0.0

    def tell(name: str, share: float) -> None:
        nonlocal current, last
        if name != current and not console.is_terminal:
            print(f"{name} ...", file=sys.stderr, flush=True)
        if name != current or time.monotonic() - last > 0.2:
            shown.update(task, description=name, completed=share, refresh=True)
            last = time.monotonic()
        current = name

    with shown:
        yield tell
