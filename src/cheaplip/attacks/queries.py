"""A model seen from outside: points go in, answers come out, and every one is counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from cheaplip.attacks.losses import check_images
from cheaplip.modes import Model

ACCESS = ("scores", "labels")


@final
class Queries:
    """What a closed-box attack gets instead of the model: a plain callable without parameters or gradients.

    Made by :func:`queries_of`. It hides the model, so that an attack cannot look inside by accident.

    Args:
        ask: maps points ``(n, *shape)`` to what the model answers.
        access: ``"scores"`` for logits ``(n, classes)``, ``"labels"`` for class numbers ``(n,)``, int64.

    Raises:
        ValueError: for another access; when asked, for a model that answers NaN or in another shape.

    Example:
        >>> queries = Queries(torch.nn.Linear(3, 2), "labels")
        >>> queries(torch.rand(5, 3), torch.tensor([0, 0, 0, 1, 1])).dtype, queries.count, queries.per_image.tolist()
        (torch.int64, 5, [3, 2])
    """

    __slots__ = ("_answer", "_per_image", "access", "count")

    def __init__(self, ask: Callable[[Tensor], Tensor], access: str) -> None:
        if not callable(ask) or isinstance(ask, type):
            raise TypeError(f"the model must be a module or a function of images; got {type(ask).__name__}")
        if access not in ACCESS:
            raise ValueError(f'access must be "scores" or "labels"; got {access!r}')
        self.access = access
        self.count = 0
        self._per_image = torch.zeros(0, dtype=torch.int64)

        # A closure, so that no attribute leads to the model.
        def answer(points: Tensor, images: Tensor | None) -> Tensor:
            z = ask(points, images) if isinstance(ask, Queries) else ask(points)
            return (_labels if access == "labels" else _scores)(z, points)

        self._answer = answer

    def __call__(self, points: Tensor, images: Tensor | None = None) -> Tensor:
        """Ask about points, and count them.

        Args:
            points: ``(n, *shape)``.
            images: which image of the attacked batch each point is asked for, int64 ``(n,)``, for :attr:`per_image`;
                None where point k is asked for image k.
        """
        check_images(points)
        with torch.no_grad():
            answers = self._answer(points.detach(), images).detach()
        self.count += len(points)
        rows = torch.arange(len(points)) if images is None else images.cpu()
        asked = torch.bincount(rows, minlength=len(self._per_image))
        asked[: len(self._per_image)] += self._per_image
        self._per_image = asked
        return answers

    @property
    def per_image(self) -> Tensor:
        """How many points were asked for each image, int64, as far as the attack said for which image it asked."""
        return self._per_image.clone()


def queries_of(model: Model | Queries, access: str) -> Queries:
    """Return a model as a closed box.

    Args:
        model: a module or callable that answers logits ``(n, classes)``, or, for labels, class numbers ``(n,)``;
            or a closed box, which comes back as it is if its access is the one asked for.
        access: ``"scores"`` or ``"labels"``.

    Raises:
        ValueError: for another access, or scores of a box that answers labels alone.

    Example:
        >>> queries = queries_of(torch.nn.Linear(3, 2), "scores")
        >>> queries_of(queries, "scores") is queries, hasattr(queries, "weight")
        (True, False)
    """
    if not isinstance(model, Queries):
        return Queries(model, access)
    if model.access == access:
        return model
    if access == "scores":
        raise ValueError("this attack needs scores, but the closed box answers labels alone: attack with labels")
    return Queries(model, access)


def _scores(z: Tensor, points: Tensor) -> Tensor:
    if not isinstance(z, Tensor) or z.dim() != 2 or len(z) != len(points) or z.shape[1] < 2:
        raise ValueError(f"the model must answer logits ({len(points)}, classes), classes >= 2; got {_shape(z)}")
    if bool(z.isnan().any()):
        raise ValueError("the model answers NaN: check its weights, the data, and roots and divisions inside it")
    return z


def _labels(z: Tensor, points: Tensor) -> Tensor:
    if isinstance(z, Tensor) and z.dim() == 1 and len(z) == len(points) and not z.is_floating_point():
        return z.long()
    return _scores(z, points).argmax(1)


def _shape(z: object) -> str:
    return str(tuple(z.shape)) if isinstance(z, Tensor) else type(z).__name__
