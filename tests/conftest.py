"""What all tests share: one thread, the same draws each time, and the MNIST files where there are any."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: for the processes that tests start

import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)

# A slow machine is no failure, hence no deadline and no complaint about slow draws.
settings.register_profile(
    "cheaplip",
    derandomize=True,
    deadline=None,
    max_examples=25,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("cheaplip")

MNIST_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """The data folder with MNIST/raw in it; a test that asks for it is skipped where there is none."""
    for folder in map(Path, filter(None, (os.environ.get("CHEAPLIP_DATA"), "data"))):
        if all((folder / "MNIST" / "raw" / name).is_file() for name in MNIST_FILES):
            return folder.resolve()
    pytest.skip("needs the MNIST files: set CHEAPLIP_DATA or run `cheaplip data fetch --data-dir data`")


@pytest.fixture(autouse=True)
def _forgotten_modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Forget the modules that a test wrote and imported, lest another one's of the same name be taken for its own."""
    yield
    scratch = str(tmp_path_factory.getbasetemp())
    for name, module in list(sys.modules.items()):
        if str(vars(module).get("__file__")).startswith(scratch):
            del sys.modules[name]
