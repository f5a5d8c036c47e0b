"""Settled models: the same outputs from plainer originals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from adamas.compress.masks import Mask
from adamas.compress.ptq import PTQ
from adamas.compress.quantizers import QuantizedWeight
from adamas.deploy.settle import settled
from adamas.packed.tensors import Grid
from adamas.threat import Linf
from tests.helpers import SmallNet

IMAGES = torch.rand(16, 1, 8, 8)


def layer(weight: list[list[float]], *steps: nn.Module) -> nn.Module:
    made = nn.Linear(len(weight[0]), len(weight), bias=False)
    with torch.no_grad():
        made.weight.copy_(torch.tensor(weight))
    for step in steps:
        parametrize.register_parametrization(made, "weight", step)
    return made


def mask(*rows: list[int]) -> Mask:
    made = Mask(torch.zeros(len(rows), len(rows[0])))
    made.mask.copy_(torch.tensor(rows, dtype=torch.bool))
    return made


def test_what_a_mask_hides_is_gone_and_the_mask_hides_what_is_zero():
    copy, grids = settled(layer([[1.0, -2], [0, 4]], mask([1, 0], [1, 1])))
    assert copy.parametrizations.weight.original.tolist() == [[1, 0], [0, 4]] == copy.weight.tolist()
    assert copy.parametrizations.weight[0].mask.tolist() == [[True, False], [False, True]] and grids == {}
    assert not copy.parametrizations.weight.original.signbit().any()


def test_quantized_weights_lie_on_their_grid_by_hand():
    copy, grids = settled(layer([[1.04, 2.2, -3.0], [0.3, 0.2, 0.0]], QuantizedWeight(3)))
    assert torch.equal(copy.parametrizations.weight.original, torch.tensor([[1.0, 2, -3], [0.3, torch.tensor(0.1) * 2, 0]]))
    assert grids == {"parametrizations.weight.original": Grid(3, True)}


@pytest.mark.parametrize("steps", ["mask first", "mask last", "two masks"])
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("bits", [2, 5, 8, 16])
def test_effective_weights_stay_in_any_order_of_steps(steps, per_channel, bits):
    quantizer, first, second = QuantizedWeight(bits, per_channel), Mask(torch.zeros(9, 50)), Mask(torch.zeros(9, 50))
    first.mask.copy_(torch.rand(9, 50) < 0.3)
    second.mask.copy_(torch.rand(9, 50) < 0.3)
    order = {"mask first": [first, quantizer], "mask last": [quantizer, first], "two masks": [first, quantizer, second]}[steps]
    made = layer(torch.randn(9, 50).tolist(), *order)
    copy, grids = settled(made)
    assert torch.equal(copy.weight, made.weight) and len(grids) == 1
    original = copy.parametrizations.weight.original
    assert int(original.count_nonzero()) <= int(made.weight.count_nonzero()) + (0 if steps == "mask first" else 9)
    last = order.index(second if steps == "two masks" else first)
    assert torch.equal(copy.parametrizations.weight[last].mask, made.weight != 0)


def test_a_step_that_cannot_be_settled_is_left_as_it_was():
    class Square(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight.square()

    made = layer([[1.5, -2], [0, 4]], mask([1, 0], [1, 1]), Square())
    copy, _ = settled(made)
    assert torch.equal(copy.weight, made.weight)
    assert all(torch.equal(copy.state_dict()[name], tensor) for name, tensor in made.state_dict().items())


def test_a_network_is_left_as_found_and_its_copy_computes_the_same():
    model = SmallNet()
    method = PTQ()
    method.attach(model)
    method.calibrate(model, [(IMAGES, torch.zeros(16))], Linf(eps=0.1))
    before = {name: tensor.clone() for name, tensor in model.eval().state_dict().items()}
    copy, grids = settled(model)
    assert len(grids) == 4 and torch.equal(copy(IMAGES).view(torch.int32), model(IMAGES).view(torch.int32))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    biases = [layer.parametrizations.bias.original for layer in (model[0], copy[0])]
    digits = [int((bias.view(torch.int32) & 0x7FFFFF).ne(0).sum()) for bias in biases]
    low = [int((bias.view(torch.int32) & 0xFF).ne(0).sum()) for bias in biases]
    assert digits[0] == 8 and low[0] > 0 and low[1] == 0  # the last byte is zero, so it costs nothing
