"""Exact values from Python and from the command line: the interval closes, and what can be saved is."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

import cheaplip as cl
from cheaplip import runs
from cheaplip.cli import main
from cheaplip.lipschitz import bounds, check, load
from cheaplip.lipschitz.witness import quotients
from cheaplip.settings import BoundsSettings


def small() -> nn.Module:
    """A factory of the name that the tests import: 12 units."""
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)).eval()


def smooth() -> nn.Module:
    """A factory of a network without linear regions."""
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))


SMALL = f"{__name__}:small"


@pytest.mark.parametrize(("p", "domain"), [(2, "all"), (math.inf, "box")])
def test_exact_value_is_met_by_a_pair_in_the_steepest_region(p: float, domain: str) -> None:
    net = small()
    interval = bounds(net, torch.rand(20, 4), p=p, method="exact", domain=domain)
    assert interval.lower <= interval.upper <= interval.lower * (1 + 1e-6)
    u, v = interval.pair
    assert domain == "all" or all(float(point.min()) >= 0 and float(point.max()) <= 1 for point in (u, v))
    assert float(quotients(net, u[None], v[None], p_in=p, p_out=p)) >= interval.lower
    assert interval.certificate is None
    assert "exact, " in interval.method


def test_command_prints_the_exact_value_and_saves_the_best_certificate_there_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bounds", SMALL, "--shape", "4", "--method", "exact", "--steps", "3", "--out", str(tmp_path)]
    assert main([*words, "--save", str(tmp_path / "cert.npz")]) == 0
    out = capsys.readouterr().out
    first = next(line for line in out.splitlines() if line.startswith("upper "))
    assert " exact, " in first
    assert "cert.npz proves Lip <= " in out
    assert "(LipSDP-Neuron): an exact value has no certificate" in out
    assert (tmp_path / "bounds.png").exists()
    assert check(load(tmp_path / "cert.npz"), small()).value > float(first.split()[1])


def test_claim_that_only_the_exact_value_proves_leaves_no_certificate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = BoundsSettings(shape="4", method="exact", steps=3, out=str(tmp_path))
    found = runs.bound(SMALL, settings, progress=False)
    assert found.upper is not None
    assert found.certified is not None
    assert found.proofs[-1].exact
    between, above = (found.upper.value + found.certified.value) / 2, 2 * found.certified.value
    words = ["bounds", SMALL, "--shape", "4", "--method", "exact", "--steps", "3", "--out", str(tmp_path)]
    assert main([*words, "--claim", str(between)]) == 0
    out = capsys.readouterr().out
    assert "\nproven: Lip <= " in out
    assert "there is no certificate of that: an exact value has none" in out
    assert not (tmp_path / "certificate.npz").exists()
    assert main([*words, "--claim", str(above)]) == 0
    assert cl.lipschitz.load(tmp_path / "certificate.npz").value == found.certified.value


def test_search_that_is_cut_short_says_so_and_stays_a_bound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bounds", SMALL, "--shape", "4", "--method", "exact", "--steps", "3", "--out", str(tmp_path)]
    assert main([*words, "--seconds", "0"]) == 0
    out = capsys.readouterr().out
    assert "branch and bound, not finished, 0 linear regions" in out
    assert "the linear regions were searched for 0 s, not to the end" in out


def test_network_without_linear_regions_is_refused_in_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bounds", f"{__name__}:smooth", "--shape", "4", "--method", "exact"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "every unit must be piecewise linear for an exact value; '1' is not: use another method" in told
