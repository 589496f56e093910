"""LipSDP: the solver against closed forms, a general solver and its own proof, and certificates that do not hold."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import cheaplip as cl
from cheaplip.lipschitz import Certificate
from cheaplip.lipschitz.problem import problem_of
from cheaplip.lipschitz.sdp.eclipse import multipliers_by_layer
from cheaplip.lipschitz.sdp.interior import Solution, few_threads, solve
from cheaplip.lipschitz.sdp.sectors import Sectors, is_proven, least_square, proven_square, sectors_of
from cheaplip.lipschitz.system import System, Units


def chain(widths: list[int], low: float = 0.0, high: float = 1.0, seed: int = 0) -> System:
    draw = torch.Generator().manual_seed(seed)

    def matrix(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, generator=draw, dtype=torch.float64) / math.sqrt(columns)

    units = []
    for k in range(1, len(widths) - 1):
        n = widths[k]
        least, most = (torch.full((n,), side, dtype=torch.float64) for side in (low, high))
        weights = (*[None] * (k - 1), matrix(n, widths[k - 1]))
        units.append(Units(f"{k}", weights, torch.zeros(n, dtype=torch.float64), least, most, torch.relu))
    last = (*[None] * len(units), matrix(widths[-1], widths[-2]))
    return System(widths[0], tuple(units), last, torch.zeros(widths[-1], dtype=torch.float64))


def solved(system: System, gap: float = 1e-6) -> tuple[Sectors, Solution]:
    sectors = sectors_of(system)
    first = multipliers_by_layer(sectors)
    assert first is not None
    return sectors, solve(sectors, first, gap=gap)


@pytest.mark.parametrize("slopes", [(0.0, 1.0), (0.0, 0.25), (-0.129, 1.129), (0.1, 1.0), (-0.5, 1.0), (-1.0, 1.0)])
@pytest.mark.parametrize("widths", [[6, 5, 4], [3, 8, 7, 2], [12, 6, 6, 6, 3]])
def test_solver_agrees_with_a_general_one(widths: list[int], slopes: tuple[float, float]) -> None:
    cvxpy = pytest.importorskip("cvxpy", reason="cvxpy is for this comparison alone")
    sectors, solution = solved(chain(widths, *slopes, seed=len(widths)))
    assert solution.gap <= 1e-6
    n, units = sectors.inputs, len(sectors)
    square, multipliers = cvxpy.Variable(), cvxpy.Variable(units, nonneg=True)
    unit = np.eye(n + units)
    terms = []
    for i in range(units):
        a = unit[n + i] - float(sectors.low[i]) * sectors.weight[i].numpy()
        b = unit[n + i] - float(sectors.high[i]) * sectors.weight[i].numpy()
        terms.append(multipliers[i] * (np.outer(a, b) + np.outer(b, a)) / 2)
    inputs = np.diag([1.0] * n + [0.0] * units)
    matrix = square * inputs + sum(terms) - (sectors.output.T @ sectors.output).numpy()
    problem = cvxpy.Problem(cvxpy.Minimize(square), [matrix >> 0])
    problem.solve(solver="CLARABEL")
    assert solution.square == pytest.approx(problem.value, rel=1e-4)


@pytest.mark.parametrize("slopes", [(0.0, 1.0), (-0.2, 1.1)])
def test_what_is_proven_is_the_solution_and_not_below_it(slopes: tuple[float, float]) -> None:
    sectors, solution = solved(chain([20, 12, 12, 4], *slopes), gap=1e-4)
    proven = proven_square(sectors, solution.multipliers)
    least = least_square(sectors, solution.multipliers)
    assert least <= proven <= least * (1 + 1e-8)
    assert proven <= solution.square * (1 + 1e-8)
    assert is_proven(sectors, proven, solution.multipliers)
    # The dual's value is below every proven one.
    assert proven >= solution.square * (1 - solution.gap) * (1 - 1e-9)


@pytest.mark.parametrize(
    "nudge",
    [
        lambda square, multipliers: (square * (1 - 1e-7), multipliers),
        lambda square, multipliers: (square, multipliers * (1 + 1e-3)),
        lambda square, multipliers: (square, multipliers * (1 - 1e-3)),
        lambda square, multipliers: (square, torch.cat([multipliers[:1] * 0.9, multipliers[1:]])),
        lambda square, multipliers: (square, -multipliers),
        lambda square, multipliers: (square, multipliers * math.nan),
        lambda square, multipliers: (math.nan, multipliers),
        lambda square, multipliers: (math.inf, multipliers),
    ],
)
def test_near_miss_is_not_proven(nudge: object) -> None:
    sectors, solution = solved(chain([20, 12, 12, 4]), gap=1e-8)
    square = proven_square(sectors, solution.multipliers)
    assert is_proven(sectors, square, solution.multipliers)
    assert not is_proven(sectors, *nudge(square, solution.multipliers))  # type: ignore[operator]


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000), exponent=st.integers(-6, 6))
def test_fewer_inputs_in_their_place_change_nothing(seed: int, exponent: int) -> None:
    system = chain([40, 6, 5, 3], seed=seed)
    first = system.units[0]
    weight = first.weights[0]
    assert weight is not None
    rows = torch.logspace(0, exponent, len(weight), dtype=torch.float64)[:, None] * weight
    system = dataclasses.replace(system, units=(dataclasses.replace(first, weights=(rows,)), *system.units[1:]))
    reduced = sectors_of(system)
    assert reduced.inputs == 6
    whole = dataclasses.replace(
        reduced,
        inputs=40,
        weight=torch.cat([torch.cat([rows, torch.zeros(5, 40).double()]), reduced.weight[:, 6:]], 1),
        output=torch.cat([torch.zeros(3, 40).double(), reduced.output[:, 6:]], 1),
    )
    first_multipliers = multipliers_by_layer(reduced)
    assert first_multipliers is not None
    square, exact = (least_square(part, first_multipliers) for part in (reduced, whole))
    assert exact * (1 - 1e-9) <= square == pytest.approx(exact, rel=1e-6)


def test_units_that_cannot_change_are_left_out() -> None:
    system = chain([5, 4, 3, 2])
    first = system.units[0]
    weight = first.weights[0]
    assert weight is not None
    dead = dataclasses.replace(first, high=first.high * torch.tensor([1.0, 0.0, 1.0, 1.0]).double())
    silent = dataclasses.replace(first, weights=(weight * torch.tensor([[1.0], [0.0], [1.0], [1.0]]).double(),))
    squares = []
    for layer in (dead, silent):
        sectors, solution = solved(dataclasses.replace(system, units=(layer, system.units[1])))
        assert len(sectors) == 6
        assert sectors.kept.tolist() == [True, False, *[True] * 5]
        squares.append(solution.square)
    assert squares[0] == pytest.approx(squares[1], rel=1e-5)


def test_deadline_returns_what_is_proven_by_then() -> None:
    sectors = sectors_of(chain([30, 20, 20, 5]))
    first = multipliers_by_layer(sectors)
    assert first is not None
    early, late = solve(sectors, first, deadline=0.0), solve(sectors, first)
    assert early.steps == 0
    assert proven_square(sectors, early.multipliers) > proven_square(sectors, late.multipliers) > 0


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    with few_threads(10):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))


def certificate_of(net: nn.Module, **arguments: object) -> Certificate:
    certificate = cl.lipschitz.upper(net, torch.zeros(1, 3, 3), **arguments).certificate  # type: ignore[arg-type]
    assert certificate is not None
    return certificate


@pytest.mark.parametrize("method", ["product", "eclipse", "sdp"])
@pytest.mark.parametrize("domain", ["all", "box"])
def test_certificate_is_saved_loaded_and_proves_again(tmp_path: Path, method: str, domain: str) -> None:
    net = network()
    certificate = certificate_of(net, method=method, domain=domain)
    again = cl.lipschitz.load(certificate.save(tmp_path / "cert.npz"))
    bound = cl.lipschitz.check(again, net)
    assert (bound.value, bound.domain, bound.proven) == (certificate.value, domain, True)
    assert bound.value == cl.lipschitz.upper(net, torch.zeros(1, 3, 3), method=method, domain=domain).value


def test_methods_are_ordered() -> None:
    values = [certificate_of(network(), method=method).value for method in ("sdp", "eclipse", "product")]
    assert values == sorted(values)
    assert certificate_of(network(), domain="box").value <= values[0]


def nudged_weight(net: nn.Sequential) -> None:
    next(net[3].parameters()).data.mul_(1.001)


def nudged_box(net: nn.Sequential) -> None:
    net[4] = nn.ELU(1.5)


@pytest.mark.parametrize("change", [nudged_weight, nudged_box])
@pytest.mark.parametrize("method", ["product", "eclipse", "sdp"])
def test_certificate_of_another_network_is_refused(method: str, change: object) -> None:
    net = network()
    certificate = certificate_of(net, method=method)
    change(net)  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"does not prove|of another model"):
        cl.lipschitz.check(certificate, net)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: dataclasses.replace(c, value=c.value * (1 - 1e-9)),
        lambda c: dataclasses.replace(c, box=None),
        lambda c: dataclasses.replace(c, box=(0.0, 3.0)),
        lambda c: dataclasses.replace(c, parts=()),
        lambda c: dataclasses.replace(c, p=1.0),
        lambda c: dataclasses.replace(c, parts=(dataclasses.replace(c.parts[0], end=c.parts[0].end - 1),)),
        lambda c: dataclasses.replace(
            c, value=c.value * 0.999, parts=(dataclasses.replace(c.parts[0], value=c.parts[0].value * 0.999),)
        ),
        lambda c: dataclasses.replace(
            c, parts=(dataclasses.replace(c.parts[0], multipliers=c.parts[0].multipliers[1:]),)
        ),
        lambda c: dataclasses.replace(
            c, parts=(dataclasses.replace(c.parts[0], multipliers=1.01 * c.parts[0].multipliers),)
        ),
        lambda c: dataclasses.replace(c, parts=(dataclasses.replace(c.parts[0], multipliers=None),)),
    ],
)
def test_certificate_that_was_tampered_with_is_refused(change: object) -> None:
    net = network()
    list(net[1].parameters())[1].data += torch.linspace(-3, 3, 8)  # so that some units never change in the box
    certificate = certificate_of(net, domain="box")
    assert certificate.parts[0].multipliers is not None
    assert cl.lipschitz.check(certificate, net).value == certificate.value
    with pytest.raises(ValueError, match="certificate"):
        cl.lipschitz.check(change(certificate), net)  # type: ignore[operator]


def test_damaged_certificate_is_one_clear_sentence(tmp_path: Path) -> None:
    file = certificate_of(network()).save(tmp_path / "cert.npz")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"cert\.npz is no certificate of cheaplip, or damaged"):
        cl.lipschitz.load(file)
    with pytest.raises(FileNotFoundError, match="there is no certificate"):
        cl.lipschitz.load(tmp_path / "none.npz")


def test_certificate_with_objects_in_it_is_not_run(tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", about=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="no certificate"):
        cl.lipschitz.load(tmp_path / "bad.npz")


def test_residual_network_is_one_part() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 6), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            inner: Tensor = self.two(torch.relu(self.one(x)))
            return x + inner

    torch.manual_seed(0)
    net = Residual()
    problem = problem_of(net, (4,), 2.0, None)
    assert problem.parts(100) == [(0, len(problem.graph.nodes) - 1, True)]
    tight, loose = (cl.lipschitz.upper(net, torch.zeros(1, 4), method=m).value for m in ("sdp", "product"))
    assert cl.lipschitz.lower(net, torch.rand(20, 4)).value <= tight < loose
