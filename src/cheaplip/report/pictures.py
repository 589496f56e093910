"""Inputs of a network as pictures in the page itself."""

from __future__ import annotations

import base64
import io
from typing import NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cheaplip.data import Data, class_words

# From darker through unchanged to brighter: blue, white, orange, which colour-blind people tell apart.
_DARKER, _SAME, _BRIGHTER = (0, 82, 136), (250, 250, 248), (196, 78, 0)
_LEVELS = 24  # of each: the eye sees no steps, and the picture stays small


@final
class Shown(NamedTuple):
    """A picture, and words for those who cannot see it.

    Attributes:
        uri: the picture, as a data URI.
        alt: what it shows.
        text: what stands below it.
        note: a second, smaller line.
    """

    uri: str
    alt: str
    text: str
    note: str


@final
class Range(NamedTuple):
    """The values that are drawn black and white, and how large a picture may be.

    Attributes:
        low: drawn black.
        high: drawn white.
        side: the most pixels along a side; larger pictures are made smaller.
    """

    low: float
    high: float
    side: int


def is_image(shape: tuple[int, ...]) -> bool:
    """Tell whether inputs of a shape can be shown: ``(channels, height, width)``, grey or in colours.

    Example:
        >>> is_image((1, 28, 28)), is_image((1,)), is_image((16, 28, 28))
        (True, False, False)
    """
    return len(shape) == 3 and shape[0] in (1, 3) and min(shape[1:]) > 1


def range_of(data: Data, side: int) -> Range:
    """Return the range of the data's values: its box, or what its test set holds."""
    low, high = (float(end) for end in data.test.x.aminmax()) if data.box is None else data.box
    return Range(low, high if high > low else low + 1.0, side)


def picture_of(x: Tensor, within: Range) -> str:
    """Return one image ``(channels, height, width)`` as a data URI.

    Example:
        >>> picture_of(torch.zeros(1, 2, 2), Range(0.0, 1.0, 64))[:22]
        'data:image/png;base64,'
    """
    share = (x.detach().float().cpu() - within.low) / (within.high - within.low)
    return _uri(_pixels(share.clamp(0.0, 1.0) * 255), within.side)


def change_of(delta: Tensor, within: Range) -> tuple[str, float]:
    """Return a difference of two images as a data URI, and how many times it was magnified to fill the range.

    Grey images: blue where it is below zero, white at zero, orange above. Colours: zero is grey.

    Example:
        >>> round(change_of(torch.full((1, 2, 2), 0.25), Range(0.0, 1.0, 64))[1], 3)
        4.0
    """
    delta = delta.detach().float().cpu()
    largest = float(delta.abs().max())
    magnified = (within.high - within.low) / largest if largest > 0 else 1.0
    share = delta / largest if largest > 0 else delta
    if len(delta) == 3:
        return _uri(_pixels((share + 1) * 127.5), within.side), magnified
    indices = _pixels(share * _LEVELS + _LEVELS)
    image = Image.fromarray(indices)
    image.putpalette([channel for level in range(2 * _LEVELS + 1) for channel in _colour(level / _LEVELS - 1)])
    return _uri(image, within.side), magnified


def opinion(logits: Tensor, data: str) -> tuple[str, float]:
    """Return what a network takes an input for, and its confidence, the softmax of the logits ``(classes,)``.

    Args:
        logits: of the input.
        data: the name of the data set, whose classes may have names.

    Example:
        >>> opinion(torch.tensor([0.0, 0.0, 50.0]), "digits")
        ('class 2', 1.0)
    """
    chances = logits.detach().double().cpu().softmax(0)
    best = int(chances.argmax())
    return class_words(data, best), float(chances[best])


def _pixels(values: Tensor) -> NDArray[np.uint8]:
    """Return ``(channels, height, width)`` as an array of bytes, ``(height, width)`` or ``(height, width, 3)``."""
    pixels: NDArray[np.uint8] = values.round().to(torch.uint8).numpy()
    return pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)


def _colour(place: float) -> tuple[int, int, int]:
    """Return a colour between darker at -1, the same at 0 and brighter at 1."""
    end, share = (_DARKER if place < 0 else _BRIGHTER), abs(place)
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(_SAME, end, strict=True))
    return red, green, blue


def _uri(image: Image.Image | NDArray[np.uint8], side: int) -> str:
    image = image if isinstance(image, Image.Image) else Image.fromarray(np.ascontiguousarray(image))
    if max(image.size) > side:
        image = image.convert("RGB") if image.mode == "P" else image
        image.thumbnail((side, side), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
