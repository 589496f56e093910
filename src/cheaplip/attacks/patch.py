"""Adversarial patches: one picture that turns any image it is laid on, wherever it lies."""

from __future__ import annotations

import dataclasses
import io
import json
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cheaplip.attacks.losses import check_call
from cheaplip.attacks.placing import SHAPES, AreaRange, area_range, lay
from cheaplip.attacks.protocol import PlainBox, Threat, plain_box
from cheaplip.attacks.queries import queries_of
from cheaplip.checks import number, whole_number
from cheaplip.counting import wilson
from cheaplip.files import whole
from cheaplip.modes import Model
from cheaplip.norms import Box, box_tensors

FORMAT = "cheaplip patch 1"


@final
@dataclass(frozen=True, eq=False)
class Patch:
    """A picture that is laid on images at a random place, size and angle; as an attack, on every image once.

    An image under it counts as broken when it is misclassified; how many are taken for the target class tells
    :func:`success`. Made by :func:`cheaplip.attacks.train_patch`.

    Args:
        picture: ``(channels, side, side)``, 1 or 3 channels, values in the box.
        target: the class that it was made for.
        shape: ``"round"``, the disc in the picture, or ``"square"``.
        area: how much of an image it covers, as a share: a number, or the smallest and the largest; above 0, at most 1.
        rotation: the largest angle to either side, in degrees, 0 to 180.
        box: ``(low, high)``, numbers or one number per channel, in which images lie.
        seed: from which it was made.
        generator: where places are drawn; None for torch's global generator.

    Raises:
        ValueError: for a value out of range; when called, for images of other channels or smaller than 2 pixels.

    Reference: Brown et al. 2017, "Adversarial Patch".

    Example:
        >>> patch = Patch(torch.ones(1, 5, 5), target=3, area=0.1, generator=torch.Generator().manual_seed(0))
        >>> covered = patch(torch.nn.Identity(), torch.zeros(2, 1, 20, 20), torch.zeros(2))
        >>> [round(float(share), 1) for share in covered.mean((1, 2, 3))]
        [0.1, 0.1]
    """

    picture: Tensor
    target: int
    _: KW_ONLY
    shape: str = "round"
    area: float | AreaRange = (0.02, 0.25)
    rotation: float = 45.0
    box: Box = (0.0, 1.0)
    seed: int = 0
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        whole_number(self.target, "target", 0)
        whole_number(self.seed, "seed", 0)
        if self.shape not in SHAPES:
            raise ValueError(f'shape must be "round" or "square"; got {self.shape!r}')
        put(self, "area", area_range(self.area))
        if not 0 <= number(self.rotation, "rotation") <= 180:
            raise ValueError(f"rotation must be an angle from 0 to 180 degrees; got {self.rotation!r}")
        put(self, "box", boxed(self.box))
        p = self.picture
        if not isinstance(p, Tensor) or not p.is_floating_point() or p.dim() != 3 or p.shape[0] not in (1, 3):
            got = tuple(p.shape) if isinstance(p, Tensor) else type(p).__name__
            raise ValueError(f"picture must be floating, (channels, side, side) with 1 or 3 channels; got {got}")
        if p.shape[1] != p.shape[2] or p.shape[1] < 2:
            raise ValueError(f"picture must be square, 2 pixels wide or more; got {tuple(p.shape)}")
        if not bool(Threat(box=self.box).admits(p[None], p[None]).all()):
            raise ValueError(
                f"picture must be finite and in the box {self.box}; got values from {p.min()} to {p.max()}"
            )

    def __repr__(self) -> str:
        low, high = area_range(self.area)
        return f"Patch(target={self.target}, shape={self.shape!r}, area=({low:g}, {high:g}), seed={self.seed})"

    @property
    def threat(self) -> Threat:
        """No bound in a norm: the box alone."""
        return Threat(None, None, self.box)

    @property
    def label(self) -> str:
        """What tables call it."""
        low, high = (100 * share for share in area_range(self.area))
        size = f"{low:g} %" if low == high else f"{low:g} to {high:g} %"
        return f"patch towards class {self.target}, {size} of the area"

    def __call__(self, model: Model, x: Tensor, y: Tensor) -> Tensor:
        """Return the images with the patch on each; model and labels are not looked at."""
        return self.lay(x.detach() if isinstance(x, Tensor) else x, self.generator)

    def lay(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return images with the patch on each, at places that the generator draws."""
        return lay(self.picture, x, self.shape, self.area, self.rotation, generator)

    def on(self, area: float | AreaRange) -> Patch:
        """Return the same patch at another size."""
        return dataclasses.replace(self, area=area)

    def showing(self, picture: Tensor) -> Patch:
        """Return a patch of the same shape, size and places that shows something else: a control.

        Args:
            picture: ``(channels, height, width)``, in the box; resized to the patch's.
        """
        if not isinstance(picture, Tensor) or picture.dim() != 3 or 0 in picture.shape or picture.is_complex():
            got = tuple(picture.shape) if isinstance(picture, Tensor) else type(picture).__name__
            raise ValueError(f"picture must be real numbers, (channels, height, width); got {got}")
        if picture.device != self.picture.device:
            raise ValueError(f"picture must lie on {self.picture.device}, as the patch does; got {picture.device}")
        side = self.picture.shape[-1]
        resized = F.interpolate(picture[None].to(self.picture), (side, side), mode="bilinear", align_corners=False)
        return dataclasses.replace(self, picture=resized[0])

    def noise(self, seed: int = 0) -> Patch:
        """Return a patch of the same shape, size and places that shows uniform noise: a control."""
        generator = torch.Generator().manual_seed(whole_number(seed, "seed", 0))
        drawn = torch.rand(self.picture.shape, generator=generator, dtype=self.picture.dtype)
        low, high = box_tensors(self.box, drawn[None])
        return dataclasses.replace(self, picture=low + (high - low) * drawn)

    def save(self, path: str | Path) -> Path:
        """Write the patch to a file of NumPy arrays (``.npz``), whole or not at all."""
        about = {name: getattr(self, name) for name in ("target", "shape", "area", "rotation", "box", "seed")}
        with whole(path) as temporary, temporary.open("wb") as file:
            np.savez(file, picture=self.picture.cpu().numpy(), about=np.array(json.dumps({"format": FORMAT} | about)))
        return Path(path)

    @staticmethod
    def load(path: str | Path) -> Patch:
        """Read a patch; no code is run.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it holds no patch or a damaged one.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"expected the file of a patch, found none at {path}: make one with Patch.save")
        try:
            with np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False) as content:
                picture, about = torch.from_numpy(content["picture"]), json.loads(str(content["about"]))
            if about.pop("format") != FORMAT:
                raise ValueError(f"it is not of the format {FORMAT}")
            for name in ("area", "box"):
                about[name] = tuple(tuple(part) if isinstance(part, list) else part for part in about[name])
            return Patch(picture, **about)
        except Exception as error:  # whatever zip, numpy or json make of a damaged file
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"{path} holds no patch, or a damaged one: {reason}") from error


@final
@dataclass(frozen=True)
class Success:
    """How many images a patch turned to its target class.

    Args:
        hits: how many are taken for the target class.
        images: how many there were, all of other classes.

    Example:
        >>> Success(80, 100).rate
        0.8
    """

    hits: int
    images: int

    @property
    def rate(self) -> float:
        """The share."""
        return self.hits / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % interval, by Wilson's score."""
        return wilson(self.hits, self.images)


def success(model: Model, patch: Patch, x: Tensor, y: Tensor, *, seed: int = 0, batch_size: int = 1000) -> Success:
    """Count the images of other classes that a model takes for the patch's target with the patch on them.

    Args:
        model: a classifier, in eval mode; asked for labels alone.
        patch: the patch; each image gets it once.
        x: images ``(n, channels, height, width)`` that it was not trained on.
        y: their labels, ``(n,)``; those of the target class are left out.
        seed: of places, sizes and angles; the same for every patch.
        batch_size: how many images at a time.

    Raises:
        ValueError: if no image is of another class.
    """
    y = check_call(model, x, y)
    if not isinstance(patch, Patch):
        raise TypeError(f"patch must be a Patch; got {type(patch).__name__}")
    whole_number(seed, "seed", 0)
    whole_number(batch_size, "batch_size")
    rows = (y != patch.target).nonzero().squeeze(1)
    if not len(rows):
        raise ValueError(f"success needs images of other classes than the target {patch.target}; got none")
    queries, generator = queries_of(model, "labels"), torch.Generator().manual_seed(seed)
    hits = 0
    for part in rows.split(batch_size):  # type: ignore[no-untyped-call]
        hits += int((queries(patch.lay(x[part], generator)) == patch.target).sum())
    return Success(hits, len(rows))


def boxed(box: Box | None) -> PlainBox:
    """Return the box of a patch, which must have one."""
    plain = plain_box(box)
    if plain is None:
        raise ValueError("a patch needs a box, the range of values that its picture may have; got None")
    return plain
