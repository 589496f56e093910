"""LipSDP-Neuron: the tightest bound with one multiplier a unit, solved by an interior-point method and then proven."""

from __future__ import annotations
