"""What an evaluation runs in: random states set aside, modules frozen, a bar on the terminal."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn

from cheaplip.modes import evaluating


def device_of(modules: Sequence[nn.Module]) -> torch.device | None:
    """Return where the first parameter or buffer is."""
    return next((p.device for module in modules for p in (*module.parameters(), *module.buffers())), None)


@contextmanager
def seeded(seed: int, device: torch.device | None) -> Iterator[None]:
    """Set the random states of torch, NumPy and Python aside and seed them; of torch on the GPU, if we compute there.

    Args:
        seed: any whole number of at least 0.
        device: where the model is.
    """
    on_gpu = device is not None and device.type == "cuda"
    of_python, of_numpy = random.getstate(), np.random.get_state()  # an attack of the user may draw from these
    try:
        with torch.random.fork_rng(devices=[device] if on_gpu else []):
            # Not torch.manual_seed, which reseeds every GPU of the machine.
            torch.default_generator.manual_seed(seed % 2**63)
            if on_gpu:
                torch.cuda.default_generators[torch.empty(0, device=device).device.index].manual_seed(seed % 2**63)
            random.seed(seed)
            np.random.seed(seed % 2**32)
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)


@contextmanager
def undisturbed(modules: Sequence[nn.Module], seed: int, device: torch.device | None) -> Iterator[None]:
    """Freeze the modules and the random states, and restore both."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(evaluating(*modules))
        stack.enter_context(seeded(seed, device))
        if any(isinstance(layer, nn.RNNBase) for module in modules for layer in module.modules()):
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))  # it has no backward in eval mode
        yield


@contextmanager
def bar(shown: bool, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show how many of ``total`` images are done; yield what is called with each number of further ones."""
    if not shown:
        yield lambda images: None
        return
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        raise ImportError('the progress bar needs rich: pip install "cheaplip[cli]", or set progress=False') from None
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("evaluating", total=total)
        yield lambda images: progress.advance(task, images)
