"""Averaged weights: by hand, warmed up, and given back."""

import pytest
import torch
from torch import nn

from tasks.core.averaging import Average, copied


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0]))
        self.register_buffer("statistic", torch.tensor([10.0]))
        self.register_buffer("count", torch.tensor(0))


def moved(net: Net, weight: float, statistic: float, count: int) -> Net:
    net.load_state_dict(
        {"weight": torch.tensor([weight]), "statistic": torch.tensor([statistic]), "count": torch.tensor(count)}
    )
    return net  # fmt: skip


def test_the_average_by_hand() -> None:
    net = Net()
    average = Average(0.5, copied(net), n_steps=1000)  # past the warm-up
    average.follow(moved(net, 3.0, 20.0, 7))
    assert average.weights["weight"].tolist() == [2.0]  # 0.5 · 1 + 0.5 · 3
    assert average.weights["statistic"].tolist() == [15.0]
    assert average.weights["count"].tolist() == 7  # a count is no mean
    average.follow(moved(net, 0.0, 15.0, 8))
    assert average.weights["weight"].tolist() == [1.0]


def test_the_first_steps_count_more() -> None:
    net = Net()
    average = Average(0.99, copied(net))
    average.follow(moved(net, 2.0, 10.0, 1))  # decay 2 / 11
    assert average.weights["weight"].item() == pytest.approx(2 / 11 * 1 + 9 / 11 * 2)
    average.follow(moved(net, 0.0, 10.0, 2))  # decay 3 / 12
    assert average.weights["weight"].item() == pytest.approx(3 / 12 * (20 / 11))


def test_the_module_gets_its_own_weights_back() -> None:
    net = moved(Net(), 3.0, 20.0, 7)
    average = Average(0.5, {"weight": torch.tensor([1.5]), "statistic": torch.tensor([2.5]), "count": torch.tensor(4)})
    with average.in_place_of(net):
        assert (net.weight.item(), net.statistic.item(), net.count.item()) == (1.5, 2.5, 4)
    assert (net.weight.item(), net.statistic.item(), net.count.item()) == (3.0, 20.0, 7)
    assert average.weights["weight"].item() == 1.5
