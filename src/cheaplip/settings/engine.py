"""The settings of all commands that run many jobs: where these run, and how many at a time."""

from __future__ import annotations

from typing import Annotated, Literal

from cheaplip.settings.about import About

Jobs = Annotated[
    int | None, About("runs at a time, one thread each; null: one per core, of Ray's cluster with engine ray", low=1)
]
EngineName = Annotated[
    Literal["local", "ray"], About("local: processes of this machine; ray: workers of Ray (needs the extra [ray])")
]
Address = Annotated[
    str | None,
    About("of a Ray cluster that runs, HOST:PORT or auto; null: RAY_ADDRESS, else a Ray of its own on this machine"),
]


def check_engine(engine: str, address: str | None) -> None:
    """Raise ValueError where an address is given to the engine that has none."""
    if address is not None and engine != "ray":
        raise ValueError(
            f"address is of engine ray; got {address!r} for engine {engine}: leave it out, or give --engine ray"
        )
