"""A search's effort follows from the network's size alone, so that a default search ends in time and repeats."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cheaplip.lipschitz import lower
from cheaplip.lipschitz.effort import PAIRS, STEPS, effort, work


class Counted(nn.Module):
    """A network that counts how many samples it is given."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.inner, self.seen = nn.Sequential(*layers), 0

    def forward(self, x: Tensor) -> Tensor:
        """Count, and call the layers."""
        self.seen += len(x)
        return self.inner(x)  # type: ignore[no-any-return]


def test_small_networks_get_all_and_large_ones_less_in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    full, x = 10**4, torch.zeros(3, 1, 8, 8)
    monkeypatch.setattr("cheaplip.lipschitz.effort.FULL", full)
    small = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    assert work(small, x) < full
    assert effort(small, x) == (PAIRS, STEPS)
    for width in (8, 16):
        net = nn.Conv2d(1, width, 5, padding=2)
        large = nn.Sequential(net, nn.Conv2d(width, width, 3, padding=1))
        pairs, steps = effort(large, x)
        assert work(large, x) == pytest.approx(64 * (25 * width + 9 * width**2 + 2 * 16 * width))
        assert pairs * steps == pytest.approx(PAIRS * STEPS * full / work(large, x), rel=0.2)


def test_any_network_gets_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cheaplip.lipschitz.effort.FULL", 1)
    assert effort(nn.Linear(1000, 1000), torch.zeros(2, 1000)) == (4, 4)


def test_default_effort_is_that_of_the_rule_and_given_numbers_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cheaplip.lipschitz.effort.FULL", 300)
    torch.manual_seed(0)
    net = Counted(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 3)).eval()
    x = torch.rand(20, 1, 8, 8)
    pairs, steps = effort(net, x)
    assert pairs < PAIRS
    by_rule, same = lower(net, x), lower(net, x, pairs=pairs, steps=steps)
    assert by_rule.value == same.value
    net.seen = 0
    lower(net, x, pairs=4, steps=4)
    few, net.seen = net.seen, 0
    lower(net, x, pairs=8, steps=8)
    assert few < net.seen < 8 * few


def test_counting_leaves_a_model_alone_and_says_what_is_wrong_with_it() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout())
    before = {name: value.clone() for name, value in net.state_dict().items()}
    lower(net, torch.rand(9, 4), pairs=4, steps=1)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    with pytest.raises(ValueError, match="failed on inputs of shape"):
        lower(net, torch.rand(9, 5))
