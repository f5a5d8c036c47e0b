"""Tied weights: equal ones stay equal, zeros stay zero, and a step is the projected one."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import parametrize

from adamas.compress.tied import Tied


def tied(weight: list[list[float]]) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight), bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
    parametrize.register_parametrization(layer, "weight", Tied(2))
    return layer


def test_each_weight_gets_the_mean_gradient_of_its_equals():
    layer = tied([[1.0, 2, 0], [1, 2, 2]])
    (layer.weight * torch.tensor([[1.0, 10, 99], [3, 20, 60]])).sum().backward()
    grad = layer.parametrizations.weight.original.grad
    assert torch.equal(grad, torch.tensor([[2.0, 30, 0], [2, 30, 30]]))


def test_training_with_momentum_and_decay_moves_values_and_nothing_else():
    torch.manual_seed(0)
    layer = tied([[0.5, -0.5, 0, 0.5], [-0.5, 0.25, 0.25, 0]])
    before = layer.weight.detach().clone()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(20):
        optimizer.zero_grad()
        layer(torch.randn(8, 4)).square().sum().backward()
        optimizer.step()
    after = layer.weight.detach()
    assert not torch.equal(after, before)
    for value in before.unique():
        assert len(after[before == value].unique()) == 1
    assert (after[before == 0] == 0).all()


def test_a_new_weight_is_tied_anew():
    layer = tied([[1.0, 1], [2, 2]])
    layer.weight.sum().backward()
    layer.weight = torch.tensor([[1.0, 2], [1, 2]])
    layer.zero_grad()
    (layer.weight * torch.tensor([[1.0, 0], [3, 0]])).sum().backward()
    assert torch.equal(layer.parametrizations.weight.original.grad, torch.tensor([[2.0, 0], [2, 0]]))


def test_outside_training_it_is_the_weight_itself_with_its_own_gradient():
    layer = tied([[1.0, 1]]).eval()
    (layer.weight * torch.tensor([[1.0, 3]])).sum().backward()
    assert torch.equal(layer.parametrizations.weight.original.grad, torch.tensor([[1.0, 3]]))


def test_its_bits_come_back_from_a_state_dict():
    layer, other = tied([[1.0, 2]]), nn.Linear(2, 1, bias=False)
    parametrize.register_parametrization(other, "weight", Tied(8))
    other.load_state_dict(layer.state_dict())
    assert other.parametrizations.weight[0].bits == 2
