"""Sizes counted by hand on small models."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from adamas.compress.ptq import PTQ
from adamas.cost import Cost, cost, macs
from adamas.models.resnet import ResNet18, ResNet20
from adamas.threat import Linf
from adamas.weights import bake
from tests.helpers import SmallNet


class FourBits(nn.Module):
    """Zeroes the first column; has a parameter of its own that no exported file holds."""

    bits = 4

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, weight: Tensor) -> Tensor:
        return weight * torch.tensor([0.0, *[1.0] * (weight.shape[1] - 1)]) * self.scale.mean()


def test_a_dense_model_by_hand():
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Flatten(), nn.Linear(3 * 4 * 5, 7, bias=False))
    params = 3 * 2 * 9 + 3 + 60 * 7
    expected_macs = 4 * 5 * 3 * 2 * 9 + 60 * 7
    expected = Cost(params, params, 32 * params, 4 * params, expected_macs, 32 * (3 * 2 * 9 + 60 * 7), input_channels=2)
    assert cost(model, (2, 4, 5)) == expected


def test_a_sparse_quantized_model_by_hand():
    layer = nn.Linear(10, 5)
    nn.init.ones_(layer.bias)
    parametrize.register_parametrization(layer, "weight", FourBits())
    counted = cost(nn.Sequential(nn.Flatten(), layer), (1, 2, 5))
    weight_bits = min(50 * 4, 50 + 45 * 4) + 32 * 5  # dense codes, and a scale per output
    assert (counted.params, counted.nonzeros, counted.macs) == (55, 50, 50)
    assert (counted.paper_bits, counted.packed_bytes) == (45 * 4 + 5 * 32, (weight_bits + 160) // 8)


def test_a_bitmap_is_used_where_it_is_smaller():
    layer = nn.Linear(100, 10, bias=False)
    with torch.no_grad():
        layer.weight[1:] = 0
    counted = cost(nn.Sequential(nn.Flatten(), layer), (1, 10, 10))
    assert (counted.nonzeros, counted.paper_bits, counted.packed_bytes) == (100, 3200, (1000 + 3200) // 8)


def test_counting_is_the_same_before_and_after_baking():
    model = SmallNet()
    for layer in (model[0], model[3], model[9]):
        parametrize.register_parametrization(layer, "weight", parametrize_zeros())
    before, after = cost(model, (1, 8, 8)), cost(bake(model), (1, 8, 8))
    assert before == after and before.params == sum(p.numel() for p in SmallNet().parameters())


def parametrize_zeros() -> nn.Module:
    """Half of the values zero, by a parameter of its own."""

    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.threshold = nn.Parameter(torch.zeros(1))

        def forward(self, weight: Tensor) -> Tensor:
            return weight * (weight > self.threshold)

    return Half()


def test_shared_weights_count_once():
    layer = nn.Linear(4, 4)
    assert cost(nn.Sequential(nn.Flatten(), layer, nn.Sequential(layer)), (1, 2, 2)).params == 20
    twin = nn.Linear(4, 4)
    twin.weight = layer.weight
    assert cost(nn.Sequential(nn.Flatten(), layer, twin), (1, 2, 2)).params == 24


def test_a_published_count():
    model = ResNet18().build((3, 32, 32), 10)
    assert macs(model, (3, 32, 32)) == pytest.approx(555.4e6, rel=0.005)  # 0.56 G, as the literature prints it


def test_counting_leaves_the_model_as_found():
    model = SmallNet().train()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    cost(model, (1, 8, 8))
    assert model.training and all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_a_fixed_selection_of_channels_is_no_parameter_even_when_quantized(digits):
    model = ResNet20(depth=8, width=4).build((1, 8, 8), 10)
    plain = cost(model, (1, 8, 8)).params
    method = PTQ()
    method.attach(model)
    method.calibrate(model, digits.train.batches(64, seed=0), Linf())
    folded = sum(p.numel() for name, p in model.named_parameters())
    assert cost(model, (1, 8, 8)).params == folded < plain  # batch norms are folded, nothing is added
