"""Weights as U V + C: the identities, what is stored, and how a new weight is taken."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from adamas.compress.factors import factor, factored, matrix
from adamas.cost import cost
from adamas.weights import bake


def filled(layer: nn.Module, rank: int | None = None) -> nn.Module:
    factors = factor(layer, rank)
    for parameter in factors.parameters():
        nn.init.normal_(parameter)
    return layer


def test_a_tall_weight_is_b_times_a_plus_1_plus_c():
    layer = filled(nn.Linear(2, 5))
    f, own = factored(layer), layer.parametrizations.weight.original
    assert (f.a.shape, f.b.shape, f.c.shape) == ((2, 2), (5, 2), (5, 2))
    torch.testing.assert_close(layer.weight, own + f.b @ (f.a + torch.eye(2)) + f.c)


def test_a_wide_weight_is_b_plus_1_times_a_plus_c():
    layer = filled(nn.Conv2d(3, 4, 3))
    f, own = factored(layer), layer.parametrizations.weight.original
    assert (f.a.shape, f.b.shape, f.c.shape) == ((4, 27), (4, 4), (4, 27))
    torch.testing.assert_close(matrix(layer.weight), matrix(own) + (f.b + torch.eye(4)) @ f.a + f.c)


def test_of_low_rank_it_is_b_times_a_alone():
    layer = filled(nn.Linear(6, 5), rank=2)
    f = factored(layer)
    assert f.factors() == [(f, "a"), (f, "b")] and f.a.shape == (2, 6)
    torch.testing.assert_close(layer.weight, layer.parametrizations.weight.original + f.b @ f.a)


@pytest.mark.parametrize("rank", [None, 2])
def test_factors_count_and_the_product_does_not(rank):
    layer = filled(nn.Linear(6, 5, bias=False), rank)
    counted = cost(nn.Sequential(nn.Flatten(), layer), (1, 2, 3))
    assert counted.nonzeros == counted.params == (5 * 6 + 5 * 5 + 5 * 6 if rank is None else 2 * 6 + 5 * 2)


def test_a_new_weight_is_taken_and_baking_changes_nothing():
    layer = filled(nn.Linear(3, 4))
    wanted = torch.randn(4, 3)
    layer.weight = wanted
    torch.testing.assert_close(layer.weight, wanted)
    x = torch.randn(2, 3)
    before = layer(x)
    torch.testing.assert_close(bake(layer)(x), before)
    assert not parametrize.is_parametrized(layer)


def test_only_the_factors_train():
    layer = filled(nn.Linear(3, 4))
    trained = {name for name, parameter in layer.named_parameters() if parameter.requires_grad}
    inside = "parametrizations.weight"
    assert trained == {"bias", f"{inside}.0.a", f"{inside}.0.b", f"{inside}.0.c"}
