"""What happened in training, epoch by epoch."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from cheaplip.files import whole

Row = Mapping[str, float]


@final
@dataclass
class History(Sequence[Row]):
    """One row an epoch, and which epoch was kept.

    Columns: ``epoch`` (from 1), ``steps`` (so far), ``loss`` (without penalties), ``accuracy`` (training, a fraction
    of 1, over the epoch's minibatches; absent for regression), ``value`` and ``weight`` of the first penalty
    (``value_2``, ``weight_2`` of the next), ``lower`` (a stronger lower bound of Lip, in the epochs that measured it),
    ``score`` (of ``select``), ``train_accuracy`` (of the weights as they stood then, where it was asked for), ``rate``
    (the learning rate) and ``seconds`` (of training in this epoch).

    Args:
        rows: the rows.
        kept: the number of the epoch whose weights the model has in the end.

    Example:
        >>> history = History([{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}])
        >>> history.column("loss")
        [2.0, 1.0]
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    kept: int = 0

    def __len__(self) -> int:
        """Return the number of epochs."""
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]
        """Return the row of an epoch, counted from 0."""
        return self.rows[index]

    def __iter__(self) -> Iterator[Row]:
        """Iterate over the rows."""
        return iter(self.rows)

    @property
    def columns(self) -> list[str]:
        """The names of all columns, in the order in which they first appeared."""
        return list({name: None for row in self.rows for name in row})

    def column(self, name: str) -> list[float]:
        """Return a column, NaN where a row lacks it.

        Raises:
            KeyError: naming the columns that there are.
        """
        if name not in self.columns:
            raise KeyError(f"no column {name!r} in this history; it has {', '.join(self.columns) or 'none'}")
        return [row.get(name, float("nan")) for row in self.rows]

    def save(self, path: str | Path) -> None:
        """Write the rows as a CSV file, whole or not at all; an absent value is an empty cell.

        Args:
            path: the file; its folder is created.

        Raises:
            ValueError: if the folder cannot be written to.

        Example:
            >>> import tempfile
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     History([{"epoch": 1, "loss": 2.0}]).save(Path(folder) / "metrics.csv")
            ...     (Path(folder) / "metrics.csv").read_text().split()
            ['epoch,loss', '1,2.0']
        """
        with whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns or ["epoch"])
            writer.writeheader()
            writer.writerows(self.rows)
