"""Binary-Relax and BinaryConnect against their update equations, written out."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from adamas.compress.binary_relax import BinaryRelax
from adamas.compress.levels import project
from adamas.data import Data, Images
from adamas.fit import Fit, fit
from adamas.threat import Linf
from adamas.weights import original

LR, MOMENTUM, DECAY, EPOCHS = 0.1, 0.9, 0.01, 5


def one_batch() -> Data:
    images = Images(torch.rand(8, 1, 2, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1] * 4))
    return Data("one batch", ("a", "b"), images, images[:0], images)


@pytest.mark.parametrize("relaxed", [0.6, 0.0], ids=["Binary-Relax", "BinaryConnect"])
def test_training_follows_the_equations(relaxed):
    """w <- w - lr * v, v <- momentum * v + gradient at (strength * P(w) + w) / (strength + 1) + decay * w."""
    torch.manual_seed(0)
    data, model = one_batch(), nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    x, y = data.train[:].pixels, data.train[:].labels
    w = model[1].weight.detach().clone().double()
    v = torch.zeros_like(w)
    for step in range(EPOCHS):  # one batch per epoch
        strength = 349 ** (step / EPOCHS / relaxed) if step / EPOCHS < relaxed else math.inf
        near = w.abs().mean() * torch.where(w < 0, -1, 1)
        seen = near if math.isinf(strength) else (strength * near + w) / (strength + 1)
        seen = seen.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(x.double().flatten(1) @ seen.T, y), seen)
        v = MOMENTUM * v + gradient + DECAY * w
        w = w - LR * v

    compressor = BinaryRelax(layers="all", relaxed=relaxed)
    compressor.attach(model)
    compressor.calibrate(model, [], Linf())
    settings = Fit(epochs=EPOCHS, batch_size=8, lr=LR, momentum=MOMENTUM, weight_decay=DECAY, schedule="constant")
    fit(model, data, settings, Linf(), compressor=compressor)
    torch.testing.assert_close(original(model[1]).detach().double(), w, rtol=1e-5, atol=1e-6)
    compressor.finish(model)
    torch.testing.assert_close(model[1].weight.detach().double(), w.abs().mean() * w.sign(), rtol=1e-5, atol=1e-6)


def test_the_relaxed_weight_minimises_the_relaxation():
    """u = argmin of 1/2 |u - w|^2 + strength / 2 * dist(u, Q)^2: no nearby u has a lower value."""
    model = nn.Sequential(nn.Linear(6, 1, bias=False))
    compressor = BinaryRelax(layers="all", start=2.0, levels="ternary")
    compressor.attach(model)
    compressor.calibrate(model, [], Linf())
    w, u = original(model[0]).detach(), model[0].weight.detach()

    def value(u: torch.Tensor) -> float:
        distance = (u - project(u, "ternary", 4, False)).square().sum()
        return float((u - w).square().sum() / 2 + 2.0 / 2 * distance)

    generator = torch.Generator().manual_seed(0)
    assert all(value(u) <= value(u + 1e-2 * torch.randn(u.shape, generator=generator)) + 1e-7 for _ in range(50))
