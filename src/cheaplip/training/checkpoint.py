"""All that a resumed run needs, in one file written whole."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch

from cheaplip.files import whole
from cheaplip.training.checks import holds_a_training
from cheaplip.training.history import History
from cheaplip.training.inside import checked
from cheaplip.training.ranks import Ranks
from cheaplip.training.shares import gathered, own
from cheaplip.training.state import Settings, differing, settings_of

FILE, METRICS = "checkpoint.pt", "metrics.csv"
INSIDE = "inside"


@final
@dataclass
class Best:
    """The weights kept so far, and why."""

    state: dict[str, Any] | None = None
    score: float = float("-inf")
    epoch: int = 0
    eligible: bool = False

    def offer(self, model: Any, score: float, epoch: int, eligible: bool) -> None:
        """Keep the model's state if it is better: an eligible epoch beats all that are not."""
        if (eligible, score) > (self.eligible, self.score) or self.state is None:
            state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
            self.state, self.score, self.epoch, self.eligible = state, score, epoch, eligible

    def give_back(self, model: Any) -> None:
        """Put the kept weights into the model, if there are any."""
        if self.state is not None:
            model.load_state_dict(self.state)


@final
@dataclass
class Checkpoint:
    """What is saved after each epoch, or inside one where training was stopped, and restored on resumption.

    Args:
        folder: where to, or None to save nothing.
        parts: objects with a ``state_dict``, by name; None is left out.
        ranks: the processes of the run; the first writes.
        history: the rows so far.
        best: the weights kept so far.
        configured: penalties and controls by name, whose settings a resumed run must share.
        measured: whether ``lower`` and ``select`` have run on the last row.
        inside: how far the epoch after the last row is, see :mod:`cheaplip.training.inside`; None at its start.
    """

    folder: Path | None
    parts: dict[str, Any]
    ranks: Ranks
    configured: dict[str, Any] = field(default_factory=dict)
    history: History = field(default_factory=History)
    best: Best = field(default_factory=Best)
    measured: bool = True
    inside: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Leave out what is not there."""
        self.parts = {name: part for name, part in self.parts.items() if part is not None}
        self.settings = self._settings()

    def _settings(self) -> Settings:
        optimizer = self.parts.get("optimizer")
        kind = {} if optimizer is None else {"optimizer": type(getattr(optimizer, "optimizer", optimizer)).__qualname__}
        every = [settings_of(part, name) for name, part in self.configured.items()]
        return kind | {key: value for settings in every for key, value in settings.items()}

    def begin(self, resume: bool) -> None:
        """Go on where the folder's checkpoint stopped, if there is one; else see that one can be written.

        Raises:
            ValueError: if there is one and ``resume`` is False, or it is damaged or of another run; if the folder
                cannot be written to.
        """
        if self.folder is None:
            return
        try:
            there = (self.folder / FILE).exists()
            if there and not resume:
                raise ValueError(
                    f"{self.folder} already holds a checkpoint: pass resume=True, or choose another folder"
                )
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ValueError(
                f"cannot write checkpoints into {self.folder}: {reason}; choose a folder that is writable"
            ) from error
        if there:
            self._restore(self._read(self.folder / FILE))

    def save(self) -> None:
        """Write the checkpoint, then the history for people to read on the way, each whole or not at all.

        Raises:
            ValueError: if the folder is gone or cannot be written to, or the disk is full; the checkpoint before stays.
        """
        if self.folder is None:
            return
        now = self._settings()
        # A setting that differs from the beginning is a counter, and compared no more.
        for name in [*differing(self.settings, now), *(self.settings.keys() - now.keys())]:
            self.settings.pop(name)
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {"rows": self.history.rows, "best": vars(self.best), "random": random_state()}
        state |= {"settings": self.settings, "measured": self.measured}
        state |= {} if self.inside is None else {INSIDE: self.inside}
        state = gathered(state, self.ranks)
        if self.ranks.rank:
            return
        # Through a stream, as torch by itself does not tell what is wrong with the disk.
        with whole(self.folder / FILE, make=False) as temporary, temporary.open("wb") as stream:
            torch.save(state, stream)
        if self.inside is None:
            self.history.save(self.folder / METRICS)

    def refusal(self, reason: str) -> ValueError:
        """Return the error that says why the checkpoint cannot be resumed from."""
        return ValueError(
            f"cannot resume from {(self.folder or Path()) / FILE}: expected a checkpoint of this run, but {reason}; "
            "resume with the settings that it was begun with, or start anew in another folder"
        )

    def _read(self, path: Path) -> Any:
        try:
            # weights_only: nothing in the file is run.
            return torch.load(path, weights_only=True, map_location="cpu")
        except OSError as error:
            raise self.refusal("it cannot be read") from error
        except Exception as error:  # damaged bytes can make the reader raise anything
            raise self.refusal("it is cut short or damaged") from error

    def finish(self) -> History:
        """Put the kept weights into the model, if any were, and return the history, which says of which epoch."""
        self.best.give_back(self.parts["model"])
        self.history.kept = self.best.epoch or len(self.history)
        return self.history

    def _restore(self, state: Any) -> None:
        try:
            state = own(state, self.ranks)
        except ValueError as error:
            raise self.refusal(str(error)) from error
        if not isinstance(state, dict) or (odd := (state.keys() - {INSIDE}) ^ {*self.parts, *_OWN}):
            which = ", ".join(sorted(map(str, odd)))[:200] if isinstance(state, dict) else ""
            raise self.refusal(f"it holds other parts ({which})" if which else "it holds other parts")
        if not holds_a_training(state):
            raise self.refusal("it is damaged")
        for name in differing(state["settings"], self.settings):
            was, now = state["settings"][name], self.settings[name]
            raise self.refusal(f"it was begun with {name} = {was}, and now has {now}")
        for name, part in self.parts.items():
            try:
                part.load_state_dict(state[name])
            except Exception as error:  # whatever a part makes of a state that is not its own
                raise self.refusal(f"its {name} holds other parts or shapes") from error
        try:
            set_random_state(state["random"])
            vars(self.best).update(state["best"])
            self.history.rows[:], self.measured = state["rows"], state["measured"]
            self.inside = checked(state[INSIDE]) if INSIDE in state else None
        except (RuntimeError, TypeError, ValueError, KeyError) as error:
            raise self.refusal("it is damaged") from error
        # What a run dropped as a counter stays dropped.
        self.settings = {name: value for name, value in self.settings.items() if name in state["settings"]}


_OWN = ("rows", "best", "random", "settings", "measured")


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
