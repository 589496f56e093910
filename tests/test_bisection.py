"""The smallest change that PGD finds is the smallest there is where that is known."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import mlp, rand
from torch import nn

from cheaplip.attacks import PGD, Bisection
from cheaplip.attacks.region import Region
from cheaplip.norms import vector_norm

FLOAT = torch.float32


def linear() -> nn.Linear:
    torch.manual_seed(3)
    return nn.Linear(8, 4)


def distances(net: nn.Linear, x: torch.Tensor, y: torch.Tensor, norm: float) -> torch.Tensor:
    """To the nearest point of another class: margin over the dual norm of the difference of weights."""
    with torch.no_grad():
        z = net(x)
        size = {1.0: math.inf, 2.0: 2.0, math.inf: 1.0}[norm]
        gaps = z.gather(1, y[:, None]) - z
        lengths = torch.linalg.vector_norm(net.weight[y][:, None] - net.weight, size, dim=2)
        nearest: torch.Tensor = (gaps / lengths.clamp_min(1e-12)).masked_fill(lengths == 0, math.inf).amin(1)
    return nearest


@pytest.mark.parametrize("norm", [1.0, 2.0, math.inf])
def test_distance_to_a_linear_boundary_is_found(norm: float) -> None:
    net, x = linear(), rand(30, 8, dtype=FLOAT)
    y = net(x).argmax(1)
    x_adv = Bisection(norm, box=None)(net, x, y)
    far, exact = vector_norm(x_adv - x, norm), distances(net, x, y, norm)
    assert (net(x_adv).argmax(1) != y).all()
    assert (far >= exact * (1 - 1e-4)).all()
    assert float((far / exact).median()) < 1.03
    assert float((far / exact).max()) < 1.15


def test_images_stay_in_the_box_and_those_that_are_wrong_stay_as_they_are() -> None:
    net, x = linear(), rand(30, 8, dtype=FLOAT)
    y = net(x).argmax(1)
    y[:5] = (y[:5] + 1) % 4
    x_adv = Bisection()(net, x, y)
    assert torch.equal(x_adv[:5], x[:5])
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert Bisection().threat.admits(x, x_adv).all()


def test_where_nothing_is_adversarial_the_image_comes_back() -> None:
    class Sure(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([10 + x.sum(1), x.sum(1)], 1)

    x, y = rand(4, 3, dtype=FLOAT), torch.zeros(4, dtype=torch.int64)
    assert torch.equal(Bisection()(Sure(), x, y), x)
    assert Bisection()(Sure(), x[:0], y[:0]).shape == (0, 3)


def test_it_is_no_weaker_than_pgd_by_more_than_a_little() -> None:
    net, x = mlp(8, 30, 4, dtype=FLOAT), rand(60, 8, dtype=FLOAT)
    net = net.requires_grad_(False)
    y = net(x).argmax(1)
    near = Bisection(generator=torch.Generator().manual_seed(0))(net, x, y)
    far = vector_norm(near - x)
    for eps in (float(far.quantile(0.3)), float(far.median())):
        left = int((net(PGD(eps, generator=torch.Generator().manual_seed(0))(net, x, y)).argmax(1) == y).sum())
        assert int((far > eps).sum()) <= left + 1


def test_same_generator_same_bits() -> None:
    net, x = mlp(8, 30, 4, dtype=FLOAT), rand(10, 8, dtype=FLOAT)
    y = net(x).argmax(1)
    one, two = (Bisection(generator=torch.Generator().manual_seed(5))(net, x, y) for _ in range(2))
    assert torch.equal(one, two)


@pytest.mark.parametrize("norm", [1.0, 2.0, math.inf])
def test_every_image_has_a_ball_of_its_own(norm: float) -> None:
    x, eps = rand(20, 8, dtype=FLOAT), torch.linspace(0.05, 2.0, 20)
    region = Region(x, norm, eps, (0.0, 1.0))
    for points in (region.start(torch.Generator().manual_seed(0)), region.project_(x + 5 * torch.randn_like(x))):
        assert (vector_norm(points - x, norm) <= eps * (1 + 1e-5)).all()
        assert points.min() >= -1e-6  # drawn back from the box, with rounding
    single = Region(x[3:4], norm, float(eps[3]), (0.0, 1.0))
    there = x[3:4] + 1.0
    torch.testing.assert_close(region.keep(torch.tensor([3])).project_(there.clone()), single.project_(there.clone()))


@pytest.mark.parametrize(
    ("wrong", "words"), [({"norm": 3}, "norm"), ({"rounds": 0}, "rounds"), ({"steps": 0}, "steps")]
)
def test_wrong_argument_is_named(wrong: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Bisection(**wrong)  # type: ignore[arg-type]
