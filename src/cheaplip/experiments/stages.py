"""Networks trained at one λ after another: the file that such a run keeps, with a stage for each λ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from cheaplip.experiments.jobs import Job, Place, run_all
from cheaplip.experiments.outcome import check_claimed, read_json, write_json
from cheaplip.settings import ReproduceSettings

# No number of ours comes near, and pictures can be drawn of all below.
LARGEST = 1e300


@final
@dataclass(frozen=True)
class Staged:
    """A run at one λ after another, and its file.

    Args:
        title: what the bar calls it.
        path: of its file, JSON; written after each stage, to tell how far it is. A run that was stopped begins anew.
        about: what the run is: names and values that its file must hold, ``conditions`` among them.
        weights: λ of its stages, in their order.
        numbers: the names of the numbers of a stage, by λ; each must be finite.
        curve: how many points its drawn function has.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = Staged("a", Path(folder) / "a.json", {"seed": 0}, (1.0, 0.1), lambda weight: ["risk"], curve=1)
        ...     first, second = ({"weight": weight, "risk": 0.0, "curve": [0.5]} for weight in run.weights)
        ...     _ = run.write([first])
        ...     print(run.done(), run.read())
        ...     _ = run.write([first, second])
        ...     print(run.done(), run.kept() == {"seed": 0, "stages": [first, second]})
        1 None
        2 True
    """

    title: str
    path: Path
    about: Mapping[str, Any]
    weights: Sequence[float]
    numbers: Callable[[float], Sequence[str]]
    curve: int

    def job(self, call: Callable[..., Any], *arguments: Any) -> Job:
        """Return the job that trains it, from the beginning.

        Args:
            call: a function of a module; it writes the file.
            arguments: of the function.
        """
        return Job(self.title, call, arguments, len(self.weights), self.done)

    def write(self, stages: Sequence[Mapping[str, Any]]) -> Path:
        """Write the stages that are done."""
        return write_json(self.path, {**self.about, "stages": list(stages)})

    def done(self) -> int:
        """Return for how many λ it is trained."""
        try:
            stages = read_json(self.path).get("stages")
        except ValueError:
            return 0
        return len(stages) if isinstance(stages, list) else 0

    def read(self) -> dict[str, Any] | None:
        """Return what its file holds, or None where there is none, or one half done, damaged or of another run."""
        try:
            run = read_json(self.path)
        except ValueError:
            return None
        if {name: run.get(name) for name in self.about} != dict(self.about):
            return None
        stages = run.get("stages")
        whole = isinstance(stages, list) and len(stages) == len(self.weights)
        return run if whole and all(map(self._is_stage, run["stages"], self.weights)) else None

    def kept(self) -> dict[str, Any]:
        """Return what its file holds, now that it is trained.

        Raises:
            ValueError: if it is not what was written.
        """
        run = self.read()
        if run is None:
            raise ValueError(f"{self.path} was altered while the experiment ran: give the command again")
        return run

    def _is_stage(self, stage: Any, weight: float) -> bool:
        if not isinstance(stage, Mapping) or stage.get("weight") != weight:
            return False
        curve = stage.get("curve")
        if not isinstance(curve, list) or len(curve) != self.curve:
            return False
        numbers = [*curve, *(stage.get(name) for name in self.numbers(weight))]
        return all(isinstance(number, float) and abs(number) < LARGEST for number in numbers)


def train_all(
    plan: Sequence[tuple[Any, ...]],
    staged: Callable[..., Staged],
    train: Callable[..., Any],
    settings: ReproduceSettings,
    folder: Path,
    *,
    title: str,
    progress: bool,
) -> tuple[list[Path], list[dict[str, Any]]]:
    """Train the runs of a plan that are not done yet, each from its beginning; return all files and what they hold.

    Args:
        plan: the arguments of ``staged`` and ``train`` after the folder, for each run.
        staged: gives a run by its arguments.
        train: a function of a module that trains it and writes its file.
        settings: where the runs are done.
        folder: of the experiment.
        title: what the bar is called.
        progress: show a bar.

    Raises:
        ValueError: if files or folder were altered or moved meanwhile.
    """
    runs = [staged(folder, *of) for of in plan]
    jobs = [run.job(train, folder, *of) for run, of in zip(runs, plan, strict=True) if run.read() is None]
    run_all(jobs, Place.of(settings, folder), title=title, progress=progress)
    check_claimed(folder)
    return [run.path for run in runs], [run.kept() for run in runs]
