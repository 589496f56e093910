"""The exact constant: every region that is there counts, none that is not; between its two numbers lies the truth."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import Tensor, nn

from cheaplip.lipschitz.piecewise import Exact, exact, search
from cheaplip.lipschitz.system import Pieces, System, Units

NORMS = [1, 2, math.inf]
Function = Callable[[Tensor], Tensor]
KINDS: dict[str, tuple[list[float], list[float], Function]] = {
    "relu": ([0.0], [0.0, 1.0], torch.relu),
    "leaky": ([0.0], [-0.5, 1.0], nn.LeakyReLU(-0.5)),
    "steep": ([0.0], [2.5, 1.0], nn.PReLU(init=2.5, dtype=torch.float64).requires_grad_(False)),
    "hardtanh": ([-1.0, 1.0], [0.0, 1.0, 0.0], nn.Hardtanh()),
    "relu6": ([0.0, 6.0], [0.0, 1.0, 0.0], nn.ReLU6()),
    "abs": ([0.0], [-1.0, 1.0], torch.abs),
}
Rows = list[list[float]]


def tensor(values: Rows | list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def units(kind: str, weights: tuple[Tensor | None, ...], offset: Tensor) -> Units:
    breaks, slopes, function = KINDS[kind]
    n = len(offset)
    pieces = Pieces(tensor([breaks] * n), tensor([slopes] * n))
    return Units("act", weights, offset, pieces.slopes.amin(1), pieces.slopes.amax(1), function, pieces)


def chain(*layers: tuple[Rows, list[float]], kind: str = "relu") -> System:
    """A network of dense layers given by weights and offsets, the last one without units."""
    inner = tuple(
        units(kind, (*[None] * k, tensor(weight)), tensor(offset)) for k, (weight, offset) in enumerate(layers[:-1])
    )
    weight, offset = layers[-1]
    return System(len(layers[0][0][0]), inner, (*[None] * len(inner), tensor(weight)), tensor(offset))


def drawn(widths: list[int], seed: int, *, kinds: list[str], whole: bool = False, skips: float = 0.0) -> System:
    """A network with random weights, maybe small integers, and maybe with paths that skip layers."""
    draw = torch.Generator().manual_seed(seed)

    def matrix(*shape: int) -> Tensor:
        numbers = torch.randn(*shape, generator=draw, dtype=torch.float64)
        return numbers.round() if whole else numbers

    def matrices(rows: int, k: int) -> tuple[Tensor | None, ...]:
        there = [j == k or float(torch.rand((), generator=draw)) < skips for j in range(k + 1)]
        return tuple(matrix(rows, widths[j]) if there[j] else None for j in range(k + 1))

    inner = [units(kinds[k % len(kinds)], matrices(width, k), matrix(width)) for k, width in enumerate(widths[1:-1])]
    return System(widths[0], tuple(inner), matrices(widths[-1], len(inner)), matrix(widths[-1]))


def jacobians(system: System, points: Tensor) -> Tensor:
    points = points.clone().requires_grad_()
    outputs = (system(points) + 0 * points.sum()).unbind(1)
    return torch.stack([torch.autograd.grad(y.sum(), points, retain_graph=True)[0] for y in outputs], 1)


def steepest(system: System, p: float, points: Tensor) -> float:
    return float(torch.linalg.matrix_norm(jacobians(system, points), p).max())


def scattered(inputs: int, box: tuple[Tensor, Tensor] | None) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    if box is not None:
        return box[0] + (box[1] - box[0]) * torch.rand(3000, inputs, generator=draw, dtype=torch.float64)
    radii = torch.logspace(-3, 4, 3000, dtype=torch.float64)[:, None]
    return radii * torch.randn(3000, inputs, generator=draw, dtype=torch.float64)


def enumerated(system: System, p: float, box: tuple[Tensor, Tensor] | None, *, feasible: bool = True) -> float:
    """Return the largest norm over all patterns, or all that a linear programme finds room for."""
    best = 0.0
    layers = [
        itertools.product(range(unit.pieces.slopes.shape[1]), repeat=len(unit)) for unit in system.units if unit.pieces
    ]
    for pattern in itertools.product(*layers):
        values, rows = [np.eye(system.inputs, system.inputs + 1)], []
        for layer, pieces in zip(system.units, pattern, strict=True):
            z = total(layer.weights, values, layer.offset)
            assert layer.pieces is not None
            breaks, slopes = layer.pieces.breaks.numpy(), layer.pieces.slopes.numpy()
            x = slopes[range(len(z)), pieces][:, None] * z
            for i, piece in enumerate(pieces):
                if piece > 0:
                    rows.append(z[i] - np.eye(len(z[i]))[-1] * breaks[i, piece - 1])
                if piece < breaks.shape[1]:
                    rows.append(np.eye(len(z[i]))[-1] * breaks[i, piece] - z[i])
                at = breaks[i, max(piece - 1, 0)]
                x[i, -1] += float(layer.function(torch.full((len(z),), at).double())[i]) - slopes[i, piece] * at
            values.append(x)
        norm = float(np.linalg.norm(total(system.weights, values, system.offset)[:, :-1], p))
        if norm > best and (not feasible or has_room(np.array(rows).reshape(-1, system.inputs + 1), box)):
            best = norm
    return best


def total(weights: tuple[Tensor | None, ...], values: list[np.ndarray], offset: Tensor) -> np.ndarray:
    total = np.zeros((len(offset), values[0].shape[1]))
    total[:, -1] = offset.numpy()
    return sum((w.numpy() @ value for w, value in zip(weights, values, strict=True) if w is not None), total)


def has_room(rows: np.ndarray, box: tuple[Tensor, Tensor] | None) -> bool:
    lengths = np.linalg.norm(rows[:, :-1], axis=1)
    if (rows[lengths == 0, -1] < 0).any():
        return False
    rows, lengths = rows[lengths > 0], lengths[lengths > 0]
    n = rows.shape[1] - 1
    if box is not None:
        sides = np.vstack([np.eye(n), -np.eye(n)])
        offsets = np.concatenate([-box[0].numpy(), box[1].numpy()])
        rows = np.vstack([rows, np.append(sides, offsets[:, None], 1)])
        lengths = np.append(lengths, np.ones(2 * n))
    slack = linprog(
        np.append(np.zeros(n), -1.0),
        np.append(-rows[:, :-1], lengths[:, None], 1),
        rows[:, -1],
        bounds=[*[(None, None)] * n, (None, 1.0)],
    )
    return bool(slack.x[-1] > 1e-7)


def assert_is(result: Exact, value: float) -> None:
    """The search is complete, and both numbers are the value but for rounding."""
    assert result.complete
    assert result.lower <= value * (1 + 1e-15)
    assert result.upper >= value * (1 - 1e-15)
    assert result.upper - result.lower <= 1e-9 * value


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.data())
def test_between_all_points_and_all_patterns(data: st.DataObject) -> None:
    widths = data.draw(st.sampled_from([[1, 3], [2, 5, 2], [1, 3, 2, 1], [2, 3, 3, 2], [3, 2, 2, 1], [2, 2, 2, 2, 1]]))
    kinds = data.draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=3))
    whole, seed = data.draw(st.booleans()), data.draw(st.integers(0, 10**6))
    system = drawn(widths, seed, kinds=kinds, whole=whole, skips=data.draw(st.sampled_from([0.0, 0.5])))
    p = data.draw(st.sampled_from(NORMS))
    box = (-torch.ones(widths[0]).double(), torch.ones(widths[0]).double()) if data.draw(st.booleans()) else None
    result = exact(system, p=p, box=box)
    truth = enumerated(system, p, box)
    assert result.complete
    assert steepest(system, p, scattered(widths[0], box)) <= result.upper
    assert result.lower <= truth * (1 + 1e-12) <= result.upper + 1e-9
    assert result.upper - result.lower <= 1e-9 * max(1.0, truth)


@pytest.mark.parametrize("p", NORMS)
def test_the_absolute_value_has_constant_one(p: float) -> None:
    assert_is(exact(chain(([[1.0], [-1.0]], [0.0, 0.0]), ([[1.0, 1.0]], [0.0])), p=p), 1.0)


@pytest.mark.parametrize("p", NORMS)
def test_a_linear_map_has_its_norm(p: float) -> None:
    matrix = tensor([[1.0, -2.0, 0.5], [3.0, 0.25, -1.0]])
    linear = System(3, (), (matrix,), tensor([1.0, 2.0]))
    assert_is(exact(linear, p=p), float(torch.linalg.matrix_norm(matrix, p)))
    assert_is(exact(System(3, (), (None,), tensor([1.0, 2.0])), p=p), 0.0)


def test_what_relu_leaves_over_has_constant_one() -> None:
    one = torch.eye(3, dtype=torch.float64)
    assert_is(exact(System(3, (units("relu", (one,), tensor([0.0, 1.0, -2.0])),), (one, -one), tensor([0.0] * 3))), 1.0)


@pytest.mark.parametrize("kind", ["relu", "abs", "hardtanh"])
def test_orthogonal_weights_have_constant_one(kind: str) -> None:
    draw = torch.Generator().manual_seed(0)
    rotations = [torch.linalg.qr(torch.randn(3, 3, generator=draw, dtype=torch.float64))[0] for _ in range(3)]
    system = chain(*((rotation.tolist(), [0.0] * 3) for rotation in rotations), kind=kind)
    assert_is(exact(system), 1.0)


@pytest.mark.parametrize("lp", [False, True])
@pytest.mark.parametrize(("gap", "value"), [(1.0, 2.0), (0.0, 2.0), (-1e-6, 3.0)])
def test_a_pattern_that_is_nowhere_does_not_count(
    monkeypatch: pytest.MonkeyPatch, gap: float, value: float, lp: bool
) -> None:
    # 2 relu(x) - relu(-x - gap): both are on only where -gap > x > 0.
    monkeypatch.setattr(search, "CORNERED", 0 if lp else 8)
    system = chain(([[1.0], [-1.0]], [0.0, -gap]), ([[2.0, -1.0]], [0.0]))
    assert enumerated(system, 2, None, feasible=False) == 3
    assert_is(exact(system, box=(tensor([-5.0]), tensor([5.0]))), value)
    assert_is(exact(system), value)


def test_forms_that_meet_in_a_point_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    # a, b and -a - b are never all positive, but may all be zero.
    system = chain(([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]], [0.0] * 3), ([[1.0, 1.0, -1.0]], [0.0]))
    assert enumerated(system, math.inf, None, feasible=False) == 4
    assert_is(exact(system, p=math.inf), 3.0)
    monkeypatch.setattr(search, "CORNERED", 0)
    assert_is(exact(system, p=math.inf, box=(-torch.ones(2), torch.ones(2))), 3.0)


def test_a_region_too_thin_for_any_tolerance_counts() -> None:
    # Of width 1e-200; and two lines that turn away from each other by 1e-16, between which there is a cone.
    assert_is(exact(chain(([[1.0], [-1.0]], [0.0, 1e-200]), ([[1.0, -1.0]], [0.0]))), 2.0)
    wedge = [[1.0, 1.0], [-1.0, -1.0 + 2**-53]]
    assert_is(exact(chain((wedge, [0.0, 0.0]), ([[1.0, -1.0]], [0.0])), p=math.inf), 4.0 - 2**-53)


def test_a_region_too_thin_for_linear_programmes_counts_above_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "CORNERED", 0)
    system = chain(([[1.0], [-1.0]], [0.0, 1e-200]), ([[1.0, -1.0]], [0.0]))
    result = exact(system, box=(tensor([-1.0]), tensor([1.0])))
    assert result.lower == pytest.approx(1.0)
    assert result.upper == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("kind", "value"), [("relu", 3.0), ("leaky", 2.5), ("steep", 8.5), ("hardtanh", 4.0), ("relu6", 3.0), ("abs", 2.0)]
)
def test_every_kind_of_unit(kind: str, value: float) -> None:
    # 3 φ(x) - φ(-x): its slope is 3 φ'(x) + φ'(-x).
    assert_is(exact(chain(([[1.0], [-1.0]], [0.0, 0.0]), ([[3.0, -1.0]], [0.0]), kind=kind)), value)


def test_dead_doubled_and_unused_units_change_nothing() -> None:
    plain = chain(([[1.0, 2.0], [0.5, -1.0]], [0.3, -0.2]), ([[1.0, -2.0]], [0.0]))
    rows = [[1.0, 2.0], [1.0, 2.0], [0.5, -1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [7.0, 7.0]]
    more = chain((rows, [0.3, 0.3, -0.2, 0.0, 1.0, -1.0, 0.0]), ([[0.5, 0.5, -2.0, 9.0, 9.0, 9.0, 0.0]], [0.0]))
    truth = enumerated(plain, 2, None)
    assert_is(exact(plain), truth)
    assert_is(exact(more), truth)
    assert_is(exact(more, box=(-torch.ones(2), torch.ones(2))), truth)


def test_a_box_sees_only_what_is_in_it() -> None:
    system = chain(([[1.0], [1.0]], [-1.0, 0.0]), ([[5.0, 1.0]], [0.0]))  # slopes 0, 1 and 6, from 0 and 1 on
    for low, high, value in [(-2.0, 0.0, 0.0), (-2.0, 1.0, 1.0), (0.5, 1.1, 6.0), (-math.inf, 1.0, 1.0)]:
        assert_is(exact(system, box=(tensor([low]), tensor([high]))), value)
    assert_is(exact(system), 6.0)


@pytest.mark.parametrize("p", NORMS)
def test_many_inputs(p: float) -> None:
    system = drawn([40, 3, 3, 2], 0, kinds=["relu"])
    everywhere, inside = exact(system, p=p), exact(system, p=p, box=(-torch.ones(40), torch.ones(40)))
    assert_is(everywhere, enumerated(system, p, None))
    assert_is(inside, enumerated(system, p, (-torch.ones(40), torch.ones(40))))


def test_corners_and_linear_programmes_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    system, box = drawn([4, 5, 4, 2], 3, kinds=["relu", "hardtanh"], skips=0.5), (-torch.ones(4), torch.ones(4))
    by_corners = exact(system, box=box)
    monkeypatch.setattr(search, "CORNERED", 0)
    assert_is(exact(system, box=box), by_corners.lower)


@pytest.mark.parametrize("inputs", [1, 2])
def test_a_dense_grid_finds_the_same(inputs: int) -> None:
    system, side = drawn([inputs, 8, 6, 2], 1, kinds=["relu", "leaky"]), torch.linspace(-1, 1, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(*[side] * inputs).view(-1, inputs)
    assert_is(exact(system, box=(-torch.ones(inputs), torch.ones(inputs))), steepest(system, 2, grid))


def test_the_point_is_in_the_steepest_region() -> None:
    for seed in range(3):
        system = drawn([3, 6, 5, 2], seed, kinds=["relu"])
        result = exact(system)
        assert steepest(system, 2, result.point[None]) == pytest.approx(result.lower, rel=1e-9)


def test_without_time_the_upper_bound_still_holds() -> None:
    system = drawn([3, 8, 8, 2], 0, kinds=["relu"])
    hurried, patient = exact(system, seconds=0), exact(system)
    assert not hurried.complete
    assert hurried.lower <= patient.lower <= patient.upper <= hurried.upper


def test_numbers_of_wild_scale() -> None:
    for small, large in [(1e-200, 1e250), (1e-250, 1e200), (1e-200, 1e-200), (1e-8, 1e8)]:
        result = exact(chain(([[small], [-small]], [0.0, 0.0]), ([[large, large]], [0.0])))
        assert result.upper > 0
        assert result.lower <= max(small * large, 0.0) <= result.upper <= max(2.3e-308, small * large * 1.001)
    assert exact(chain(([[1e200]], [0.0]), ([[1e200]], [0.0]))).upper == math.inf


def test_pieces_without_width_are_nowhere() -> None:
    one, inf = tensor([[1.0]]), math.inf
    pieces = Pieces(tensor([[-inf, -1.0, 0.0, 0.0, 2.0, inf]]), tensor([[9.0, 0.0, 0.0, 8.0, 1.0, 1.0, 7.0]]))
    padded = Units("act", (one,), tensor([0.0]), tensor([0.0]), tensor([9.0]), torch.relu, pieces)
    assert_is(exact(System(1, (padded,), (None, one), tensor([0.0]))), 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"p": 3}, "p must be 1, 2, inf"),
        ({"p": torch.linalg.norm}, "p must be 1, 2 or inf"),
        ({"seconds": -1}, "seconds must be a finite number of at least 0"),
        ({"box": (torch.zeros(2), torch.ones(2))}, r"box must be two tensors of shape \(1,\)"),
        ({"box": (torch.ones(1), torch.ones(1))}, "the first below the second"),
        ({"box": (torch.full((1,), math.nan), torch.ones(1))}, "the first below the second"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        exact(chain(([[1.0]], [0.0]), ([[1.0]], [0.0])), **arguments)  # type: ignore[arg-type]


def test_smooth_units_and_nan_are_refused() -> None:
    one, zero = tensor([[1.0]]), tensor([0.0])
    smooth = System(1, (Units("act", (one,), zero, zero, zero + 1, torch.tanh),), (None, one), zero)
    with pytest.raises(ValueError, match="'act' is not"):
        exact(smooth)
    with pytest.raises(ValueError, match="must be finite; got NaN or infinity"):
        exact(chain(([[math.nan]], [0.0]), ([[1.0]], [0.0])))
