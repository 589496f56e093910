"""One look for all pictures, and picture files that are the same for the same content.

Matplotlib is loaded where something is drawn, so that commands that draw nothing start sooner.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cheaplip.files import whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

# Okabe and Ito: colour-blind people tell them apart. Say the same again by markers, dashes or words.
BLUE, ORANGE, GREEN, PINK = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
SKY, YELLOW, GREY, BLACK = "#56b4e9", "#e69f00", "#808080", "#1a1a1a"
CYCLE = (BLUE, ORANGE, GREEN, PINK, SKY, YELLOW, GREY)
KINDS = ("png", "svg", "pdf")
_STYLE: Any = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "savefig.dpi": 150,
    "svg.fonttype": "none",
    "svg.hashsalt": "cheaplip",
}


@contextmanager
def styled() -> Iterator[None]:
    """Draw in cheaplip's look inside the block; matplotlib's settings are as before afterwards.

    Example:
        >>> from matplotlib.figure import Figure
        >>> with styled():
        ...     axes = Figure().subplots()
        >>> axes.spines["top"].get_visible()
        False
    """
    import matplotlib
    from cycler import cycler

    with matplotlib.rc_context(_STYLE | {"axes.prop_cycle": cycler(color=CYCLE)}):
        yield


def picture(figure: Figure, kind: str = "png", **arguments: Any) -> bytes:
    """Return a figure as the content of a file; the same figure gives the same bytes.

    Args:
        figure: what to draw.
        kind: ``"png"``, ``"svg"`` or ``"pdf"``.
        arguments: further ones of :meth:`matplotlib.figure.Figure.savefig`.

    Raises:
        ValueError: for another kind.
    """
    if kind not in KINDS:
        raise ValueError(f"a picture is one of {', '.join(KINDS)}; got {kind!r}")
    stamp = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
    buffer = io.BytesIO()
    with styled():
        figure.savefig(buffer, format=kind, metadata=stamp, **arguments)
    return buffer.getvalue()


def save(figure: Figure, path: Path, *, make: bool = True) -> Path:
    """Write a figure, in the format that the file's name ends in, whole or not at all.

    Args:
        figure: the figure.
        path: the file.
        make: create its folder; False where it must be there.

    Example:
        >>> import tempfile
        >>> from matplotlib.figure import Figure
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(Figure(), Path(folder) / "empty.svg").stat().st_size > 0
        True
    """
    content = picture(figure, path.suffix.removeprefix("."))
    with whole(path, make=make) as temporary:
        temporary.write_bytes(content)
    return path


def frame(figure: Figure, dpi: float = 100) -> Image.Image:
    """Return a figure as one frame of an animation."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure.set_dpi(dpi)
    canvas: Any = FigureCanvasAgg(figure)
    with styled():
        canvas.draw()
    return Image.frombytes("RGBA", canvas.get_width_height(), bytes(canvas.buffer_rgba())).convert("RGB")


def animate(frames: Sequence[Image.Image], path: Path, *, seconds: float = 0.1, last: float = 2.0) -> Path:
    """Write frames as a GIF that runs forever, whole or not at all.

    Args:
        frames: one or more, of the same size.
        path: the file.
        seconds: how long each frame is seen, at least 0.02.
        last: how long the last one is seen.

    Raises:
        ValueError: for no frames.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = animate([Image.new("RGB", (4, 4), c) for c in ("red", "blue")], Path(folder) / "two.gif")
        ...     with Image.open(path) as image:
        ...         image.n_frames
        2
    """
    from PIL import Image

    if not frames:
        raise ValueError("an animation needs one or more frames; got none")
    # One palette for all frames, lest colours flicker.
    step = max(1, len(frames) // 8)
    shown = frames[::step]
    strip = Image.new("RGB", (frames[0].width, frames[0].height * len(shown)))
    for k, image in enumerate(shown):
        strip.paste(image, (0, k * image.height))
    palette = strip.quantize(256, dither=Image.Dither.NONE)
    flat = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in frames]
    for image in flat:  # quantisation makes white a little grey
        colours = image.getpalette() or []
        triples = (colours[k : k + 3] for k in range(0, len(colours), 3))
        image.putpalette([part for triple in triples for part in ([255] * 3 if min(triple) >= 250 else triple)])
    durations = [round(1000 * seconds)] * (len(flat) - 1) + [round(1000 * last)]
    with whole(path) as temporary:
        flat[0].save(temporary, format="GIF", save_all=True, append_images=flat[1:], duration=durations, loop=0)
    return path
