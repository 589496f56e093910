"""Enclosures from Python: layers, verdicts, what is kept, and pictures."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cheaplip import runs
from cheaplip.lipschitz import Bound, upper
from cheaplip.lipschitz.layers import Layer, layers
from cheaplip.runs.bounding import Enclosure, Proof, outward
from cheaplip.runs.bounding.keeping import merged
from cheaplip.runs.bounding.picture import draw
from cheaplip.settings import BoundsSettings


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.branch, self.after = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.before(x))
        return self.after(x + torch.relu(self.branch(x)))  # type: ignore[no-any-return]


def residual() -> nn.Module:
    """A factory of the name that the tests import."""
    return Residual()


def enclosure(lower: float = 1.0, upper: float = 2.0, *, proven: bool = True, claim: float | None = None) -> Enclosure:
    below = Bound(lower, "pairs", proven=proven, domain="all")
    proof = Proof(Bound(upper, "layer product", proven=True, domain="all"), 0.1)
    rows = [Layer("1", "Linear", (4,), min(upper, 4.0), upper, upper)]
    return Enclosure("mine", 2.0, None, below, 0.1, [proof], layers=rows, claim=claim)


def test_layers_go_from_the_first_constant_to_the_bound_of_the_whole() -> None:
    torch.manual_seed(0)
    net, x = Residual().eval(), torch.zeros(1, 6)
    whole = upper(net, x)
    rows = layers(net, x, whole=whole)
    norm = float(torch.linalg.matrix_norm(net.before.weight.detach().double(), 2))
    assert [row.name for row in rows] == ["before", "relu", "branch", "relu_1", "add", "after"]
    assert rows[0].constant == rows[0].product == rows[0].proven == pytest.approx(norm)
    # Inside the branch there is no one place through which all of the network passes.
    assert [row.product is None for row in rows] == [False, False, True, True, False, False]
    assert rows[-1].proven == whole.value
    assert rows[-1].product == upper(net, x, method="product").value
    assert all(row.lost is None or row.lost >= 1 for row in rows)


def test_beginnings_are_bounded_as_networks_of_their_own() -> None:
    torch.manual_seed(1)
    net, x = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)), torch.zeros(1, 5)
    rows = layers(net, x, method="eclipse")
    assert rows[2].proven == upper(net[:3], x, method="eclipse").value
    hurried = layers(net, x, method="eclipse", seconds=0.0)
    assert hurried[2].proven == hurried[2].product == rows[2].product
    for method, p in (("product", 2), ("auto", 1)):
        assert [row.proven for row in layers(net, x, method=method, p=p)] == [None] * 5


@pytest.mark.parametrize(
    ("claim", "proven", "verdict"),
    [(0.9, True, "refuted"), (1.0, True, "open"), (1.5, True, "open"), (2.0, True, "proven"), (0.9, False, "open")],
)
def test_claim_is_refuted_or_proven_by_proofs_alone(claim: float, proven: bool, verdict: str) -> None:
    assert enclosure(claim=claim, proven=proven).verdict == verdict


def test_without_a_claim_or_a_proof_there_is_no_verdict_and_no_ratio() -> None:
    assert enclosure().verdict is None
    assert enclosure().ratio == 2.0
    assert enclosure(lower=0.0).ratio is None
    alone = replace(enclosure(claim=9.0), proofs=[])
    assert (alone.upper, alone.ratio, alone.verdict) == (None, None, "open")


@given(st.floats(1e-300, 1e300))
def test_printed_bounds_are_rounded_outward(value: float) -> None:
    assert float(outward(value, up=False)) <= value <= float(outward(value, up=True))
    assert float(outward(value, up=True)) <= value * 1.001


def test_printed_infinity_and_short_numbers_stay_as_they_are() -> None:
    assert [outward(value, up=True) for value in (math.inf, 0.0, 3.0, 0.25, 149157.3)] == [
        *("inf", "0", "3", "0.25", "149160"),
    ]


def test_bounds_that_contradict_each_other_are_replaced() -> None:
    old = {"lower": 9.0, "method": "a", "upper": 10.0, "upper_method": "b"}
    new = {"lower": 1.0, "method": "c", "upper": 2.0, "upper_method": "d"}
    assert merged(old, new) == (new, [])
    assert merged({}, new) == (new, [])


def test_same_seed_gives_the_same_interval_and_picture(tmp_path: Path) -> None:
    settings = BoundsSettings(shape="6", seed=3, steps=3, method="eclipse", out=str(tmp_path / "a"))
    target = f"{__name__}:residual"
    first = runs.bound(target, settings, progress=False)
    second = runs.bound(target, replace(settings, out=str(tmp_path / "b")), progress=False)
    picture = (tmp_path / "a" / "bounds.png").read_bytes()
    other = runs.bound(target, replace(settings, seed=4), progress=False)
    assert first.lower == second.lower
    assert first.upper == second.upper
    assert first.upper != other.upper
    assert (tmp_path / "b" / "bounds.png").read_bytes() == picture


def test_random_points_and_pairs_keep_to_the_box_that_is_named(tmp_path: Path) -> None:
    settings = BoundsSettings(shape="6", domain="box", box="-3,-2", steps=3, out=str(tmp_path))
    found = runs.bound(f"{__name__}:residual", settings, progress=False)
    assert found.lower.witness is not None
    assert found.box == (-3.0, -2.0)
    assert all(float(point.min()) >= -3 and float(point.max()) <= -2 for point in found.lower.witness)
    assert found.upper is not None
    assert found.upper.certificate is not None
    assert found.upper.certificate.box == (-3.0, -2.0)


@pytest.mark.parametrize("change", ["as it is", "zero", "infinite", "a hundred layers", "no proof within"])
def test_picture_is_drawn_of_every_enclosure(change: str) -> None:
    found = {
        "as it is": enclosure(claim=5.0),
        "zero": enclosure(0.0, 0.0),
        "infinite": enclosure(1.0, math.inf),
        "a hundred layers": replace(enclosure(), layers=[*enclosure().layers] * 100),
        "no proof within": replace(enclosure(), layers=[Layer("a", "Linear", (3, 4), 2.0), *enclosure().layers]),
    }[change]
    axes = draw(found).axes
    assert [axis.get_title() for axis in axes[1:]] == ["each layer alone", "from the input to this layer"]
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["upper: layer product", "lower: pairs"]
    assert len(axes[1].patches) == len(found.telling)


def test_layers_that_hand_their_input_on_are_left_out_of_the_picture() -> None:
    rows = [
        *(Layer("flat", "Flatten", (4,), 1.0, 1.0), Layer("one", "Linear", (4,), 3.0, 3.0)),
        *(Layer("two", "ReLU", (4,), 1.0, 3.0), Layer("in", "Linear", (4,), 2.0), Layer("add", "add", (4,), 1.0, 9.0)),
    ]
    assert [layer.name for layer in replace(enclosure(), layers=rows).telling] == ["one", "in", "add"]
    assert replace(enclosure(), layers=rows[:1]).telling == rows[:1]
