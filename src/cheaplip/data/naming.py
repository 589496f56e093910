"""What the classes of data sets are called."""

from __future__ import annotations

NAMES: dict[str, tuple[str, ...]] = {
    "fashion-mnist": (
        *("T-shirt", "trousers", "pullover", "dress", "coat"),
        *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
    )
}


def class_names(data: str, classes: int) -> tuple[str, ...]:
    """Return what the classes of a data set are called; by their numbers where they have no names.

    Args:
        data: the name of the data set.
        classes: how many there are, or how many outputs a network has.

    Example:
        >>> class_names("fashion-mnist", 10)[5], class_names("digits", 10)[5]
        ('sandal', '5')
    """
    named = NAMES.get(data, ())
    return (*named, *map(str, range(len(named), classes)))


def class_words(data: str, number: int) -> str:
    """Return what to call one class in a sentence.

    Args:
        data: the name of the data set.
        number: of the class, from 0.

    Example:
        >>> class_words("fashion-mnist", 5), class_words("digits", 5)
        ('sandal', 'class 5')
    """
    named = NAMES.get(data, ())
    return named[number] if number < len(named) else f"class {number}"
