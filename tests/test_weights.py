"""Effective weights are computed once, and baking changes no output."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from adamas.weights import bake, effective_weights, model_fingerprint, stored
from tests.helpers import Counting, SmallNet


class Doubled(nn.Module):
    """Twice the weight, said to need few bits."""

    def __init__(self, bits: int | None = None):
        super().__init__()
        if bits is not None:
            self.bits = bits

    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


@pytest.fixture
def counted() -> tuple[SmallNet, Counting]:
    model, counting = SmallNet(), Counting()
    parametrize.register_parametrization(model[0], "weight", counting)
    counting.calls = 0
    return model, counting


def test_nested_blocks_share_one_computation_and_gradients_reach_the_originals(counted):
    model, counting = counted
    x = torch.rand(4, 1, 8, 8)
    with effective_weights(model):
        first = model(x)
        with effective_weights(model), torch.no_grad():
            model(x)
        (first.sum() + model(x).sum()).backward()
    assert counting.calls == 1
    assert model[0].parametrizations.weight.original.grad.abs().sum() > 0


def test_after_the_block_a_changed_weight_is_seen(counted):
    model, counting = counted
    for _ in range(2):
        with effective_weights(model):
            assert torch.equal(model[0].weight, model[0].parametrizations.weight.original)
        with torch.no_grad():
            model[0].parametrizations.weight.original.mul_(2)
    assert counting.calls == 2


def test_the_block_ends_when_it_fails(counted):
    model, counting = counted
    with pytest.raises(KeyboardInterrupt), effective_weights(model):
        raise KeyboardInterrupt
    _ = model[0].weight, model[0].weight
    assert counting.calls == 3


def test_baking_leaves_an_ordinary_model_with_the_same_outputs():
    model, x = SmallNet().eval(), torch.rand(4, 1, 8, 8)
    for layer in (model[0], model[3]):
        parametrize.register_parametrization(layer, "weight", Doubled())
    parametrize.register_parametrization(model[0], "bias", Doubled())
    baked = bake(deepcopy(model))  # a deep copy shares the class that holds the parametrized tensor
    assert torch.equal(baked(x), model(x)) and parametrize.is_parametrized(model[0])
    assert baked.state_dict().keys() == SmallNet().state_dict().keys()


def test_bits_are_the_fewest_that_a_parametrization_states():
    layer = nn.Linear(2, 2)
    parametrize.register_parametrization(layer, "weight", Doubled())
    assert stored(layer, "weight")[0][1] == 32
    parametrize.register_parametrization(layer, "weight", Doubled(bits=4))
    parametrize.register_parametrization(layer, "weight", Doubled(bits=8))
    ((weight, bits),) = stored(layer, "weight")
    assert torch.equal(weight, layer.weight) and bits == 4


def test_a_fingerprint_tells_values_apart_and_no_memory_layouts():
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Conv2d(3, 2, 1))
    model.register_buffer("mean", torch.rand(1, 3, 1, 1))  # in either layout it counts as contiguous, with other strides
    before = model_fingerprint(model)
    model.to(memory_format=torch.channels_last)
    assert model_fingerprint(model) == before
    model.to(memory_format=torch.contiguous_format)
    assert model_fingerprint(model) == before
    with torch.no_grad():
        model[1].weight[0, 0] += 1e-6
    assert model_fingerprint(model) != before
