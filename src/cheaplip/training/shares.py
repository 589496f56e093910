"""A checkpoint of several processes: one file, with what each has of its own."""

from __future__ import annotations

import io
from typing import Any

import torch

from cheaplip.training.ranks import Ranks

# The key under which the shares of all processes but the first lie, and whose names are of one process alone.
SHARES = "shares"
_OWN = ("penalty_", "loader_", "random", "settings", "inside")


def gathered(state: dict[str, Any], ranks: Ranks) -> dict[str, Any]:
    """Return a state with the shares of all processes; each of them has to call this.

    Example:
        >>> from types import SimpleNamespace
        >>> gathered({"rows": []}, SimpleNamespace(count=1))
        {'rows': []}
    """
    if ranks.count == 1:
        return state
    stream = io.BytesIO()
    torch.save({name: part for name, part in state.items() if name.startswith(_OWN)}, stream)
    blobs = ranks.gather(stream.getvalue())
    return state | {SHARES: [torch.frombuffer(bytearray(blob), dtype=torch.uint8) for blob in blobs[1:]]}


def own(state: Any, ranks: Ranks) -> Any:
    """Return this process's state out of one with the shares of all.

    Raises:
        ValueError: if it was saved by another number of processes, or is damaged.

    Example:
        >>> from types import SimpleNamespace
        >>> own({"rows": [], "shares": [None]}, SimpleNamespace(count=1, rank=0))
        Traceback (most recent call last):
        ValueError: it was begun with 2 processes, and now has 1
    """
    if not isinstance(state, dict):
        return state
    shares = state.get(SHARES, [])
    if not isinstance(shares, list):
        raise ValueError("it is damaged")
    if len(shares) + 1 != ranks.count:
        raise ValueError(f"it was begun with {_processes(len(shares) + 1)}, and now has {ranks.count}")
    state = {name: part for name, part in state.items() if name != SHARES}
    if ranks.rank == 0:
        return state
    try:
        # weights_only: nothing in it is run.
        mine = torch.load(io.BytesIO(bytes(shares[ranks.rank - 1].numpy())), weights_only=True, map_location="cpu")
        return state | {name: mine[name] for name in state if name.startswith(_OWN)}
    except Exception as error:  # damaged bytes can make the reader raise anything
        raise ValueError("it is damaged") from error


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"
