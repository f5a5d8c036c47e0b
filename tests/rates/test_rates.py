"""How a budget is divided: by hand, and against lists published for VGG-16 and ResNet-18."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adamas.rates.erk import ERK
from adamas.rates.globally import Global
from adamas.rates.lamp import LAMP, lamp
from adamas.rates.learned import Learned
from adamas.rates.size import Size
from adamas.rates.uniform import Uniform

WIDTHS = (64, 64, 128, 128, 256, 256, 256, *[512] * 6)
VGG16 = [
    *(torch.empty(after, before, 3, 3) for before, after in zip((3, *WIDTHS), WIDTHS, strict=False)),
    *(torch.empty(shape) for shape in ((256, 2048), (256, 256), (10, 256))),
]


def kept(shares: list[float], weights: list[Tensor]) -> float:
    sizes = [weight.numel() for weight in weights]
    return sum(share * size for share, size in zip(shares, sizes, strict=True)) / sum(sizes)


def test_the_published_network_has_the_published_number_of_weights():
    assert sum(weight.numel() for weight in VGG16) == 15_302_848


def test_erdos_renyi_kernels_as_published():
    published = [0.5868, 0.0505, 0.0373, 0.0247, 0.0184, 0.0122, 0.0122, 0.0091, *[0.0061] * 5, 0.0610, 0.1085, 1]
    shares = ERK()(VGG16, VGG16, 0.01)
    assert shares == pytest.approx(published, abs=2e-4) and kept(shares, VGG16) == pytest.approx(0.01)


def test_the_hardware_loss_alone_already_gives_rates_as_measured_on_the_published_dynamics():
    measured = [
        0.313, 0.138, 0.087, 0.052, 0.030, 0.018, 0.018, 0.010, *[0.0063] * 5, 0.019, 0.094, 0.305,
    ]  # fmt: skip
    assert Size()(VGG16, VGG16, 0.01) == pytest.approx(measured, abs=6e-4)
    measured = [0.33, 0.31, 0.30, 0.27, 0.23, 0.18, 0.18, 0.12, *[0.078] * 5, 0.19, 0.30, 0.33]
    assert Size()(VGG16, VGG16, 0.1) == pytest.approx(measured, abs=6e-3)


def test_uniform_and_global():
    weights = [torch.tensor([1.0, 2, 3, 4]), torch.tensor([[30.0, 0], [40, 0]])]
    assert Uniform()(weights, weights, 0.3) == [0.3, 0.3]
    assert Global()(weights, weights, 0.5) == [0.5, 0.5]
    assert Global()(weights, weights, 0.25) == [0, 0.5]


def test_lamp_by_hand():
    """Squares 1, 4, 16: 1/21, 4/20, 16/16; the largest weight of every layer comes first."""
    assert lamp(torch.tensor([[-1.0, 4], [2, 0]])).tolist() == [[pytest.approx(1 / 21), 1], [pytest.approx(0.2), 0]]
    weights = [torch.tensor([-1.0, 4, 2]), torch.tensor([1e-3, 2e-3, 0])]
    assert LAMP()(weights, [-weight for weight in weights], 0.5) == pytest.approx([1 / 3, 2 / 3])
    assert lamp(torch.zeros(3)).tolist() == [0, 0, 0]


def test_learned_rates_start_by_another_rule_at_another_keep():
    weights = [torch.empty(50, 40), torch.empty(10, 50)]
    assert Learned()(weights, weights, 0.01) == [0.1, 0.1] and Learned()(weights, weights, 0.2) == [0.2, 0.2]
    assert Learned(start=ERK(), start_keep=0.3)(weights, weights, 0.01) == ERK()(weights, weights, 0.3)
