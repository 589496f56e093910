"""A certificate of an upper bound: what it takes to prove it again, and nothing that has to be believed."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from cheaplip.files import whole
from cheaplip.norms import Box

FORMAT = 1


@final
@dataclass(frozen=True)
class Part:
    """A proven part of a network, from one node of its graph to another.

    Args:
        start: the node before the part.
        end: its last node.
        value: the bound of its Lipschitz constant.
        multipliers: λ of LipSDP, one a unit that can change; None where the bound is the product of its layers.
    """

    start: int
    end: int
    value: float
    multipliers: Tensor | None = field(default=None, repr=False)


@final
@dataclass(frozen=True)
class Certificate:
    """The proof of an upper bound: parts of a network that follow each other, whose bounds multiply.

    Args:
        value: the bound.
        p: the norm, 1, 2 or inf.
        method: how it was found.
        box: where it holds; None for all space.
        shape: of one input.
        parts: from the input to the output.
    """

    value: float
    p: float
    method: str
    box: Box | None
    shape: tuple[int, ...]
    parts: tuple[Part, ...]

    def save(self, file: str | Path) -> Path:
        """Write the certificate to a ``.npz`` file, whole or not at all.

        Args:
            file: where to; one that is there is replaced.

        Example:
            >>> import tempfile
            >>> certificate = Certificate(2.0, 2.0, "layer product", None, (3,), (Part(0, 1, 2.0),))
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     load(certificate.save(Path(folder) / "cert.npz")) == certificate
            True
        """
        file = Path(file)
        about = {
            "format": FORMAT,
            "value": self.value,
            "p": str(self.p),
            "method": self.method,
            "box": None if self.box is None else [torch.as_tensor(side).tolist() for side in self.box],
            "shape": list(self.shape),
            "parts": [[part.start, part.end, part.value] for part in self.parts],
        }
        arrays = {f"multipliers_{k}": part.multipliers.numpy() for k, part in enumerate(self.parts)
                  if part.multipliers is not None}  # fmt: skip
        with whole(file) as temporary, temporary.open("wb") as stream:
            np.savez(stream, allow_pickle=False, about=np.array(json.dumps(about)), **arrays)
        return file


def load(file: str | Path) -> Certificate:
    """Read a certificate; nothing in the file is run.

    Args:
        file: by :meth:`Certificate.save`.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is no certificate, or damaged.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"there is no certificate {file}")
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            about = json.loads(str(arrays["about"]))
            found = {name: torch.from_numpy(arrays[name]) for name in arrays.files if name != "about"}
        return _made(about, found)
    except Exception as error:  # whatever zip, numpy or json make of a damaged file
        raise ValueError(f"{file} is no certificate of cheaplip, or damaged: {type(error).__name__}") from error


def _made(about: dict[str, Any], arrays: dict[str, Tensor]) -> Certificate:
    if about["format"] != FORMAT:
        raise ValueError("another format")
    parts = []
    for k, (start, end, value) in enumerate(about["parts"]):
        multipliers = arrays.get(f"multipliers_{k}")
        if multipliers is not None and (multipliers.dtype != torch.float64 or multipliers.dim() != 1):
            raise ValueError("multipliers must be float64 numbers in a row")
        parts.append(Part(int(start), int(end), float(value), multipliers))
    low_high = about["box"]
    box = None if low_high is None else (low_high[0], low_high[1])
    numbers = (float(about["value"]), float(about["p"]))
    if not 0 <= numbers[0] <= math.inf or numbers[1] not in (1, 2, math.inf):
        raise ValueError("value or norm out of range")
    return Certificate(*numbers, str(about["method"]), box, tuple(map(int, about["shape"])), tuple(parts))
