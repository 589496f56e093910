"""What a network is made of: its layers, how they are joined, and what is known about each."""

from __future__ import annotations

from cheaplip.lipschitz.network.graph import Graph, Node
from cheaplip.lipschitz.network.reading import read
from cheaplip.lipschitz.network.registry import register

__all__ = ["Graph", "Node", "read", "register"]
