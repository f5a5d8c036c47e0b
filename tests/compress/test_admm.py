"""ADMM: the projection, the dual and the penalty by hand; the residual falls while it trains."""

from __future__ import annotations

import logging
import re

import pytest
import torch
from torch import nn

from adamas.compress.admm import ADMM
from adamas.compress.masks import Mask, mask_of
from adamas.errors import AdamasError
from adamas.fit import Fit, fit
from adamas.threat import Linf
from tests.helpers import SmallNet

THREAT = Linf()


def one(method: ADMM) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(4, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[3.0, -1, 2, 0.5]]))
    method.attach(model)
    method.calibrate(model, [], THREAT)
    return model


def test_projection_dual_and_penalty_by_hand():
    method = ADMM(keep=0.5, rho=0.2, growth=2, cycles=2)
    model = one(method)
    split = mask_of(model[0])
    assert model[0].weight.tolist() == [[3, -1, 2, 0.5]] and split.z.tolist() == [[3, 0, 2, 0]]
    assert float(method.penalty(model, 0).detach()) == pytest.approx(0.1 * (1 + 0.25))
    assert method.residual(model) == pytest.approx(1.25 / 14.25)
    method.after_step(model, 0.25)
    assert int(split.cycle) == 0
    method.after_step(model, 0.5)  # w + u = w: z stays; u becomes half of what z lacks, since rho doubles
    assert split.z.tolist() == [[3, 0, 2, 0]] and split.u.tolist() == [[0, -0.5, 0, 0.25]] and int(split.cycle) == 1
    assert float(method.penalty(model, 0.5).detach()) == pytest.approx(0.2 * (1.5**2 + 0.75**2))
    with torch.no_grad():
        model[0].parametrizations.weight.original.copy_(torch.tensor([[1.0, -2, 2, 0]]))
    method.after_step(model, 1.0)  # w + u = 1, -2.5, 2, .25
    assert split.z.tolist() == [[0, -2.5, 2, 0]] and split.u.tolist() == [[0.5, 0, 0, 0.125]] and int(split.cycle) == 2


def test_the_gradient_pulls_towards_the_projection():
    method = ADMM(keep=0.5, rho=0.2)
    model = one(method)
    method.penalty(model, 0).backward()
    assert model[0].parametrizations.weight.original.grad.tolist() == [[0, pytest.approx(-0.2), 0, pytest.approx(0.1)]]


def test_the_residual_falls_and_the_budget_is_exact(trained, digits, caplog):
    method = ADMM(keep=0.1, growth=2, cycles=8)
    method.attach(trained)
    method.calibrate(trained, [], THREAT)
    before = method.residual(trained)
    with caplog.at_level(logging.INFO, "adamas"):
        fit(trained, digits, Fit(epochs=6, batch_size=64, lr=0.05), THREAT, compressor=method)
    logged = [float(value) for value in re.findall(r"relative residual (\S+) after", caplog.text)]
    assert len(logged) == 8 and logged[-1] < 0.05 * min(before, logged[0])
    method.finish(trained)
    layers = [layer for layer in trained if hasattr(layer, "parametrizations")]
    assert all(type(mask_of(layer)) is Mask for layer in layers)
    kept = sum(int(layer.weight.count_nonzero()) for layer in layers)
    assert kept == round(0.1 * sum(layer.weight.numel() for layer in layers))


def test_nothing_to_prune_is_refused():
    with pytest.raises(AdamasError, match="admm: expected at least one convolution or linear layer to prune, got none"):
        ADMM().attach(nn.Sequential(nn.ReLU()))
    with pytest.raises(AdamasError, match="the smallest keep is 0.0"):
        method = ADMM(keep=1e-4)
        model = SmallNet()
        method.attach(model)
        method.calibrate(model, [], THREAT)
