"""Of several attacks the nearest adversarial image is kept, and only if it is one."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from oracles import rand
from torch import Tensor, nn

from cheaplip.attacks import Attack, Bisection, Closest, Threat, closest, named
from cheaplip.modes import Model

FLOAT = torch.float32
BOX = (0.0, 1.0)


@dataclass(frozen=True)
class Steps:
    """Moves the first ``count`` coordinates to 1."""

    count: int
    norm: float = 2.0
    eps: float | None = None

    @property
    def threat(self) -> Threat:
        return Threat(self.norm, self.eps, BOX)

    def __call__(self, model: Model, x: Tensor, y: Tensor) -> Tensor:
        moved = x.clone()
        moved[:, : self.count] = 1.0
        return moved


class Sum(nn.Module):
    """Class 1 from 1.5 on."""

    def forward(self, x: Tensor) -> Tensor:
        total = x.sum(1)
        return torch.stack([0 * total + 1.5, total], 1)


def test_the_nearest_that_is_adversarial_is_kept() -> None:
    x, y = torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64)
    x[2, 0] = 1.0
    near = Closest((Steps(3), Steps(2), Steps(1)))(Sum(), x, y)
    assert near.sum(1).tolist() == [2.0, 2.0, 2.0]
    none = Closest((Steps(1),))(Sum(), x, y)
    assert torch.equal(none, x)


@pytest.mark.parametrize(
    "attacks", [(), (Steps(1), Steps(1, norm=1.0)), (Steps(1, eps=1.0),)], ids=["none", "two norms", "a radius"]
)
def test_attacks_that_do_not_fit_each_other_are_refused(attacks: tuple[Attack, ...]) -> None:
    with pytest.raises(ValueError, match="same norm and box"):
        Closest(attacks)


@pytest.mark.parametrize("suffix", ["", "-linf", "-l1"])
def test_the_named_one_is_no_farther_than_bisection_alone(suffix: str) -> None:
    torch.manual_seed(0)
    net, x = nn.Linear(6, 5).requires_grad_(False), rand(20, 6, dtype=FLOAT)
    y = net(x).argmax(1)
    attack = named("distance" + suffix)
    norm = attack.threat.norm
    assert norm is not None
    torch.manual_seed(1)
    far = torch.linalg.vector_norm(attack(net, x, y) - x, norm, dim=1)
    torch.manual_seed(1)
    own = torch.linalg.vector_norm(Bisection(norm)(net, x, y) - x, norm, dim=1)
    broken = own > 0
    assert (far[broken] <= own[broken]).all()


def test_without_a_box_it_is_bisection_alone() -> None:
    assert [type(attack) for attack in closest(box=None).attacks] == [Bisection]
