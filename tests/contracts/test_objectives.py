"""What every registered objective must keep; a new objective is covered by registering it."""

from __future__ import annotations

import copy
from dataclasses import fields
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from adamas.attacks.crafting import Craft
from adamas.registry import registered
from adamas.threat import Linf
from tests.helpers import SmallNet, first_batch, quick

OBJECTIVES = registered("objective")
THREAT = Linf(eps=0.1)


@pytest.fixture(params=OBJECTIVES)
def cls(request) -> type:
    return OBJECTIVES[request.param]


def test_the_loss_is_a_finite_scalar_and_reaches_every_parameter(cls, digits):
    model = SmallNet()
    loss = quick(cls)(model, *first_batch(digits), THREAT)
    assert loss.shape == () and loss.isfinite()
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.dim() == 1 or parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("craft", get_args(Craft))
def test_batch_norm_moves_by_the_training_forwards_alone(cls, craft, digits):
    mode = {"craft": craft} if any(field.name == "craft" for field in fields(cls)) else {}
    attack = {"attack": {"name": "pgd", "steps": 2, "craft": craft}} if any(f.name == "attack" for f in fields(cls)) else {}
    model = SmallNet().train()
    replayed = copy.deepcopy(model)
    trained_on: list[Tensor] = []

    def note(module: nn.Module, inputs: tuple[Tensor]) -> None:
        if module.training and model[0].weight.requires_grad:  # crafting freezes the parameters
            trained_on.append(inputs[0].detach().clone())

    model.register_forward_pre_hook(note)
    quick(cls, **mode, **attack)(model, *first_batch(digits), THREAT).backward()
    assert 1 <= len(trained_on) <= 2 and model.training
    with torch.no_grad():
        for x in trained_on:
            replayed(x)
    for (name, buffer), expected in zip(model.named_buffers(), replayed.buffers(), strict=True):
        assert torch.equal(buffer, expected), name


def test_the_loss_falls_when_it_is_followed(cls, digits):
    model, objective = SmallNet(width=4), quick(cls)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, y = first_batch(digits, 32)
    losses = []
    for _ in range(25):
        loss = objective(model, x, y, THREAT)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
