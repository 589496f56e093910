"""What a model does with the number of samples: it may give shapes, and nothing that is computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, final

from torch import Tensor, fx

from cheaplip.lipschitz.network.naming import is_about, name_of

# The shape of a value; a number or numbers that hold the number of samples; a tensor that is as long; something else.
Kind: TypeAlias = Literal["shape", "size", "long", "computed"]

_SHAPING = {"view", "reshape", "expand", "broadcast_to", "repeat", "tile", "unflatten"}
_LONG = {*_SHAPING, "zeros", "ones", "new_zeros", "new_ones", "zeros_like", "ones_like"}


@final
class Sizes:
    """Follows the number of samples through the calls of a model.

    Args:
        value: what a call gave.
        joins: names of the calls whose constants are looked at sample by sample.
    """

    def __init__(self, value: Callable[[fx.Node], Any], joins: set[str]) -> None:
        self.value = value
        self.joins = joins
        self.kinds: dict[fx.Node, Kind] = {}

    def follow(self, n: fx.Node, depends: set[fx.Node]) -> None:
        """Remember of a call that gives no numbers of the network whether the number of samples is in what it gives.

        Args:
            n: the call.
            depends: the calls before it that do give numbers of the network.
        """
        name = name_of(n.target)
        kinds = {self.kinds[source] for source in n.all_input_nodes if source in self.kinds}
        if is_about(n):
            kind = self._about(n, name) if kinds or depends.intersection(n.all_input_nodes) else None
        else:
            kind = self._made(n, name, kinds) if kinds else None
        if kind is not None:
            self.kinds[n] = kind

    def _about(self, n: fx.Node, name: str) -> Kind | None:
        if name == "getattr":
            return "shape" if n.args[1] == "shape" else None
        if name == "size":
            which = n.args[1] if len(n.args) > 1 else n.kwargs.get("dim")
            return "shape" if which is None else _picked(which, self.value(n.all_input_nodes[0]).dim())
        if name in ("numel", "nelement"):
            return "computed"
        return "long" if name in _LONG else None

    def _made(self, n: fx.Node, name: str, kinds: set[Kind]) -> Kind | None:
        if name == "getitem" and self.kinds.get(n.all_input_nodes[0]) == "shape":
            return _picked(n.args[1], len(self.value(n.all_input_nodes[0])))
        if "computed" in kinds:
            return "computed"
        if isinstance(self.value(n), Tensor):
            return "long" if name in _LONG else "computed"
        return "size" if isinstance(self.value(n), tuple) and name in ("add", "getitem") else "computed"

    def check(self, n: fx.Node, name: str) -> None:
        """Raise where a call on values of the network uses the number of samples for more than a shape."""
        kinds = {self.kinds[source] for source in n.all_input_nodes if source in self.kinds}
        allowed = kinds <= {"shape", "size"} if name in _SHAPING else kinds <= {"long"} and name in self.joins
        if kinds and not allowed:
            raise ValueError(
                "it uses how many samples there are, which may only give shapes, as in x.view(x.shape[0], -1)"
            )


def _picked(which: Any, length: int) -> Kind | None:
    """Return whether an entry or a part of a shape holds the number of samples, which is the first."""
    if isinstance(which, int):
        return "size" if which % length == 0 else None
    plain = isinstance(which, slice) and not any(isinstance(end, fx.Node) for end in (which.start, which.stop))
    if plain and not isinstance(which.step, fx.Node):
        return "size" if 0 in range(length)[which] else None
    return "computed"
