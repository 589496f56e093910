"""Lower bounds on Lip(f): search hard for a steep pair, and show it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cheaplip.lipschitz.bound import Bound
from cheaplip.modes import Model, frozen, modules_of, unwrap
from cheaplip.norms import Box, Norm
from cheaplip.pairs import Measurement, Pairs, Start


def lower(
    model: Model,
    x: Tensor,
    *,
    p_in: Norm = 2,
    p_out: Norm = 2,
    box: Box | None = None,
    pairs: int = 64,
    steps: int = 200,
    seed: int = 0,
) -> Bound:
    """Search for the steepest pair of inputs: a lower bound on the Lipschitz constant, with its witness.

    Algorithm 1 is run long, from many data points and their noisy copies, and the steepest pair ever seen is
    measured once more by itself.

    Args:
        model: a module or any callable of its input; it is evaluated as in eval mode.
        x: data to start from, ``(n, *input)``, floating, finite.
        p_in: the norm of inputs: 1, 2, inf or a callable ``(n, *shape) -> (n,)``.
        p_out: the norm of outputs, likewise.
        box: ``(low, high)`` to stay in, numbers or one per channel; None searches all space.
        pairs: how many pairs climb at a time.
        steps: how many moves they make; the cost is one forward and one input backward of ``2 * pairs`` points each.
        seed: the seed of the starts.

    Returns:
        The bound; ``witness`` is the pair, ``proven`` is True up to the rounding of one evaluation.

    Raises:
        ValueError: if ``x`` does not fit the model, or all outputs are NaN or infinite.
        TypeError: if ``x`` or an output is no floating tensor.

    Reference: Bungert et al. 2021, equation 5 and Algorithm 1.

    Example:
        >>> bound = lower(lambda x: 3 * x, torch.rand(10, 2))
        >>> round(bound.value, 3), bound.proven
        (3.0, True)
    """
    for name, count in (("pairs", pairs), ("steps", steps)):
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"{name} must be a whole number of at least 1; got {count!r}")
    u, v = Start(x, noise=0.1, seed=seed).draw(pairs)
    climbing = Pairs(u, v, p_in=p_in, p_out=p_out, box=box)
    best: list[Any] = [-1.0, None]

    def remember(measured: Measurement) -> None:
        steepest = measured.steepest
        if measured.values[steepest] > best[0]:
            pair = torch.stack([climbing.u[steepest], climbing.v[steepest]]).clone()
            best[:] = [measured.values[steepest], pair]

    inner = unwrap(model)
    with frozen(modules_of(model)):
        for _ in range(steps):
            measured = climbing.measure(inner, climb=True)
            remember(measured)
            climbing.move(measured)
        remember(climbing.measure(inner))
        pair = best[1]
        # Alone, since in a batch of other pairs the last bits may differ.
        witness = Pairs(pair[:1], pair[1:], p_in=p_in, p_out=p_out, min_distance=0.0)
        value = witness.measure(inner).values[0]
    return Bound(value, "pairs", True, "all" if box is None else "box", (pair[0], pair[1]))
