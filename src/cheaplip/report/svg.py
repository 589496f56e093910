"""Matplotlib's SVG made fit for a page: inline, in the page's colours, with words for those who cannot see it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from markupsafe import Markup
from matplotlib.figure import Figure

from cheaplip.drawing import BLACK, CYCLE, GREY, picture

# What figures are drawn in, and the page's own colour that takes its place.
INK, AXIS, GRID, PAPER = BLACK, "#9a9a9b", "#d6d6d7", "#fefefd"
SERIES = tuple(colour for colour in CYCLE if colour != GREY)
VARIABLES = {INK: "soft", AXIS: "axis", GRID: "rule", PAPER: "card", GREY: "soft"} | {
    colour: f"s{number}" for number, colour in enumerate(SERIES)
}
_COLOUR = re.compile("|".join(VARIABLES))
_SIZE = re.compile(r"([\d.]+)px")


def inline(figure: Figure, key: str, title: str, description: str) -> Markup:
    """Return a figure as an ``<svg>`` element that may stand in a page beside others.

    Args:
        figure: drawn in the colours of this module on a transparent ground.
        key: unique in the page; all ids begin with it.
        title: a few words.
        description: what can be seen, in sentences.
    """
    root = ET.fromstring(picture(figure, "svg", transparent=True))
    for parent in root.iter():
        for child in list(parent):
            # Its rule would hold for the whole page.
            if _plain(child.tag) in ("metadata", "style"):
                parent.remove(child)
    used = {name for element in root.iter() for value in element.attrib.values() for name in _named(value)}
    for element in root.iter():
        element.tag = _plain(element.tag)
        element.attrib = {_plain(name): value for name, value in element.attrib.items()}
        if element.attrib.get("id") not in used:
            element.attrib.pop("id", None)
        for name, value in element.attrib.items():
            element.attrib[name] = _themed(name, value, key)
        element.text, element.tail = (None if text is None or not text.strip() else text
                                      for text in (element.text, element.tail))  # fmt: skip
    box = root.attrib["viewBox"]
    root.attrib = {"viewBox": box, "role": "img", "aria-labelledby": f"{key}-title {key}-desc", "class": "plot"}
    for place, (tag, text) in enumerate((("title", title), ("desc", description))):
        words = ET.Element(tag, {"id": f"{key}-{tag}"})
        words.text = text
        root.insert(place, words)
    return Markup(ET.tostring(root, encoding="unicode"))


def _plain(name: str) -> str:
    """Return a name without its namespace: inside HTML an SVG needs none."""
    return name.rpartition("}")[2]


def _named(value: str) -> list[str]:
    """Return the ids that an attribute refers to."""
    return re.findall(r"url\(#([^)]+)\)", value) + ([value[1:]] if value.startswith("#") else [])


def _themed(name: str, value: str, key: str) -> str:
    if name == "id":
        return f"{key}-{value}"
    if name == "href":
        return f"#{key}-{value[1:]}"
    if name == "style":
        value = "; ".join(filter(None, map(_declaration, value.split(";"))))
    value = re.sub(r"url\(#", f"url(#{key}-", value)
    return _COLOUR.sub(lambda found: f"var(--{VARIABLES[found.group()]})", value)


def _declaration(text: str) -> str:
    """Return one declaration of a style; a font keeps its size alone, the rest is the page's."""
    text = text.strip()
    if text.startswith("font:"):
        size = _SIZE.search(text)
        return f"font-size: {size.group(1)}px" if size else ""
    return "" if text.startswith(("font-family:", "stroke-linejoin: miter")) else text
