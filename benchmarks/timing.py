"""Time versions of a step against a base step, side by side in one run; and what memory a step takes at its peak."""

from __future__ import annotations

import gc
import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

Step: TypeAlias = Callable[[], object]


@dataclass(frozen=True)
class Summary:
    """How numbers are spread: the 5 %, 25 %, 50 %, 75 % and 95 % quantiles, the mean, and how many there are."""

    p5: float
    p25: float
    median: float
    p75: float
    p95: float
    mean: float
    count: int

    def to_json(self) -> dict[str, float]:
        """Return the fields as a dictionary."""
        return asdict(self)


def summarise(values: Sequence[float]) -> Summary:
    """Return quantiles (linear between the two nearest values) and mean.

    Args:
        values: finite numbers, at least one.

    Raises:
        ValueError: if there is none, or one is not finite.

    Example:
        >>> summary = summarise([4.0, 1.0, 2.0, 3.0, 5.0])
        >>> summary.p25, summary.median, summary.p75
        (2.0, 3.0, 4.0)
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"a summary needs one finite number or more; got {list(values)}")
    p5, p25, median, p75, p95 = (float(q) for q in np.quantile(array, [0.05, 0.25, 0.5, 0.75, 0.95]))
    return Summary(p5, p25, median, p75, p95, float(array.mean()), array.size)


@dataclass(frozen=True)
class Timings:
    """Seconds per step of one version and of the base step timed right before it, one of each per round."""

    base: tuple[float, ...]
    own: tuple[float, ...]

    def ratios(self) -> list[float]:
        """Return own over base, round by round.

        Example:
            >>> Timings(base=(1.0, 2.0), own=(3.0, 4.0)).ratios()
            [3.0, 2.0]
        """
        return [own / base for own, base in zip(self.own, self.base, strict=True)]

    def ratio_of_totals(self) -> float:
        """Return all own time over all base time: it counts what only some steps do, which a median hides.

        Example:
            >>> Timings(base=(1.0, 2.0), own=(3.0, 6.0)).ratio_of_totals()
            3.0
        """
        return sum(self.own) / sum(self.base)


@contextmanager
def without_gc() -> Iterator[None]:
    """Keep Python's garbage collector from running in the middle of a step; it is switched on again if it was on."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def interleave(
    base: Step,
    others: Mapping[str, tuple[Step, int]],
    *,
    seconds: float,
    warmup: int = 2,
    least: int = 5,
    device: torch.device | str = "cpu",
    tick: Callable[[float], object] | None = None,
) -> dict[str, Timings]:
    """Time steps in turn: base, A, base, B, ..., so that whatever slows the machine slows both of a pair.

    Before each timed call the same step runs once untimed: a training loop finds its own weights in the cache, not
    those of whatever was timed last.
    On the CPU the clock is the processor time of this process, all its threads together: with one thread that is the
    time on a quiet machine, without the slices that other processes take. On a GPU it is wall time, read when idle.

    Args:
        base: the step to compare with.
        others: by name, a step and how many calls of it are timed together (2 if it does its work at every second).
        seconds: of measuring by the clock on the wall, without the warm-up; the round under way is finished.
        warmup: rounds that are not counted.
        least: rounds that are counted even where ``seconds`` is too short for them.
        device: where the steps run.
        tick: called after each round with the share of the work that is done, from 0 to 1.

    Example:
        >>> timed = interleave(lambda: None, {"sum": (lambda: sum(range(100)), 1)}, seconds=0.0, least=3)
        >>> len(timed["sum"].ratios())
        3
    """
    taken: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in others}
    with without_gc():
        start, done = time.perf_counter(), -warmup
        while done < least or time.perf_counter() - start < seconds:
            if done == 0:
                start = time.perf_counter()
            for name, (step, count) in others.items():
                pair = _clock(base, 1, device), _clock(step, count, device)
                if done >= 0:
                    for kept, value in zip(taken[name], pair, strict=True):
                        kept.append(value)
            done += 1
            if tick is not None:
                spent = (time.perf_counter() - start) / seconds if seconds > 0 else 1.0
                tick(max(0.0, min(1.0, spent, done / least)))
    return {name: Timings(tuple(base_times), tuple(own)) for name, (base_times, own) in taken.items()}


def _clock(step: Step, count: int, device: torch.device | str) -> float:
    """Return seconds per call of ``count`` calls, after an untimed one."""
    on_gpu = torch.device(device).type == "cuda"
    now = _wall_time_when_idle if on_gpu else time.process_time
    step()
    start = now()
    for _ in range(count):
        step()
    return (now() - start) / count


def _wall_time_when_idle() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


def peak_bytes(build: Callable[[], Step], device: torch.device | str = "cpu", steps: int = 3) -> int:
    """Return the most bytes of tensors alive at once, from building a step to the end of a few calls of it.

    Counted is what torch's allocator hands out after the call began: weights, gradients, the optimizer's state and
    what passes through. What was there before (the data), and the scratch memory of matrix libraries, is not.

    Args:
        build: makes the step with all that it needs.
        device: on the CPU, torch's profiler tells every allocation; on CUDA, the allocator keeps the maximum.
        steps: calls of the step.

    Example:
        >>> peak_bytes(lambda: lambda: torch.zeros(1000))
        4000
    """
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        _build_and_run(build, steps)
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler would announce itself on standard error
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profiler:
        _build_and_run(build, steps)
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events: list[dict[str, Any]] = json.loads(trace.read_text("utf-8"))["traceEvents"]
    changes = [event for event in events if event.get("name") == "[memory]"]
    changes.sort(key=lambda event: float(event["ts"]))
    return int(max(np.cumsum([event["args"]["Bytes"] for event in changes]), default=0))


def _build_and_run(build: Callable[[], Step], steps: int) -> None:
    step = build()
    for _ in range(steps):
        step()


def machine(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Return what a reader needs to judge times: processors, threads, load, versions.

    Example:
        >>> machine()["threads"] == torch.get_num_threads()
        True
    """
    about: dict[str, Any] = {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cheaplip": version("cheaplip"),
    }
    if hasattr(os, "getloadavg"):
        about["load_before"] = round(os.getloadavg()[0], 2)
    if torch.device(device).type == "cuda":
        about |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    return about


def _cpu_name() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if platform.system() == "Darwin":
        asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    return platform.processor() or platform.machine()
