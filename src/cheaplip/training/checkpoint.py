"""All that a resumed run needs, in one file written whole."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cheaplip.files import whole
from cheaplip.training.history import History

FILE = "checkpoint.pt"


@dataclass
class Best:
    """The weights kept so far, and why."""

    state: dict[str, Any] | None = None
    score: float = float("-inf")
    epoch: int = 0
    eligible: bool = False

    def offer(self, model: nn.Module, score: float, epoch: int, eligible: bool) -> None:
        """Keep the model's weights if they are better: an eligible epoch beats all that are not."""
        if (eligible, score) > (self.eligible, self.score) or self.state is None:
            state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
            self.state, self.score, self.epoch, self.eligible = state, score, epoch, eligible

    def give_back(self, model: nn.Module) -> None:
        """Put the kept weights into the model, if there are any, and the model in eval mode."""
        if self.state is not None:
            model.load_state_dict(self.state)
        model.eval()


@dataclass
class Checkpoint:
    """What is saved after each epoch and restored on resumption.

    Args:
        folder: where to, or None to save nothing.
        parts: objects with a ``state_dict``, by name; None is left out.
        history: the rows so far.
        best: the weights kept so far.
    """

    folder: Path | None
    parts: dict[str, Any]
    history: History = field(default_factory=History)
    best: Best = field(default_factory=Best)

    def __post_init__(self) -> None:
        """Leave out what is not there."""
        self.parts = {name: part for name, part in self.parts.items() if part is not None}

    def begin(self, resume: bool) -> None:
        """Go on where the folder's checkpoint stopped, if there is one.

        Raises:
            ValueError: if there is one and ``resume`` is False, or it is damaged or of another run.
        """
        if self.folder is None or not (self.folder / FILE).exists():
            return
        if not resume:
            raise ValueError(f"{self.folder} already holds a checkpoint: pass resume=True, or choose another folder")
        self._restore(self.folder / FILE)

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        if self.folder is None:
            return
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {"rows": self.history.rows, "best": vars(self.best), "random": random_state()}
        with whole(self.folder / FILE) as temporary:
            torch.save(state, temporary)

    def _restore(self, path: Path) -> None:
        try:
            # weights_only: nothing in the file is run.
            state = torch.load(path, weights_only=True, map_location="cpu")
            if set(state) != {*self.parts, "rows", "best", "random"}:
                raise ValueError("it was written by a run with other parts")
            for name, part in self.parts.items():
                _load(part, state[name])
            self.history.rows[:] = state["rows"]
            vars(self.best).update(state["best"])
            set_random_state(state["random"])
        except (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, pickle.UnpicklingError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(
                f"cannot resume from {path}: expected a checkpoint of this run, but {reason}; "
                "resume with the settings that it was begun with, or start anew in another folder"
            ) from error


def _load(part: Any, state: dict[str, Any]) -> None:
    load: Callable[..., Any] = part.load_state_dict
    load(state)


def random_state() -> dict[str, Any]:
    """Return the state of torch's global generators."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Set the state of torch's global generators."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
