"""Long runs, the short form: nothing piles up in a few hundred steps; see soak/long_run.py."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def soak() -> Any:
    place = Path(__file__).parent / "soak" / "long_run.py"
    spec = importlib.util.spec_from_file_location("long_run", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["long_run"] = module  # where its dataclass looks for its own names
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("through_fit", [False, True], ids=["joint", "fit"])
def test_tensors_files_and_objects_stay_as_many(soak: Any, through_fit: bool) -> None:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc, as on Linux")
    looks = list(soak.fitted(8) if through_fit else soak.joint(240, 8))
    late = looks[len(looks) // 2 :]
    assert len({look.tensors for look in late}) == 1
    assert len({look.handles for look in late}) == 1
    # Each epoch adds a row to the history, a dictionary of floats, which the collector does not know.
    assert late[-1].objects - late[0].objects <= 4 * len(late)


def test_growth_is_told_from_rest(soak: Any) -> None:
    still = [soak.Look(10 * k, 1e-3, 10**8, 5, 20, 1000) for k in range(1, 51)]
    growing = [soak.Look(10 * k, 1e-3, 10**8 + 10**5 * k, 5, 20, 1000) for k in range(1, 51)]
    assert soak.growth(still, "memory") == 0
    assert soak.growth(growing, "memory") == pytest.approx(10**5 * 44)
    assert soak.told(still)
    assert not soak.told(growing)
