"""Gradient attacks once more: in numpy, double precision, one image at a time, on a linear model."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from adamas.dice import Dice
from tests.helpers import Linear

TWO_PIXELS = Linear([[1.0, -2.0], [-1.0, 2.0]])  # for label 0 the loss rises along (-1, 2), for label 1 along (1, -2)
MIDDLE, ZERO = torch.full((1, 1, 1, 2), 0.5), torch.tensor([0])


def climbed(
    model: Linear, x: Tensor, y: Tensor, start: Tensor, *, norm: str, eps: float, steps: int, step: float
) -> np.ndarray:
    """Images (N, pixels) after the projected ascent on the cross-entropy."""
    weight, bias = model.weight.detach().double().numpy(), model.bias.detach().double().numpy()
    found = []
    for origin, label, at in zip(x.double().flatten(1).numpy(), y.tolist(), start.double().flatten(1).numpy(), strict=True):
        for _ in range(steps):
            logits = weight @ at + bias
            wrong = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
            wrong[label] -= 1
            grad = weight.T @ wrong
            if norm == "linf":
                at = np.clip(at + step * np.sign(grad), origin - eps, origin + eps)
            else:
                delta = at + step * grad / np.linalg.norm(grad) - origin
                at = origin + delta * min(1, eps / np.linalg.norm(delta))
            at = np.clip(at, 0, 1)
        found.append(at)
    return np.stack(found)


def assert_follows(attack, threat, *, steps: int, step: float, random_start: bool = False) -> None:
    """The attack gives what the reference gives, on random weights and images."""
    model, x, y = Linear(torch.randn(4, 6)), torch.rand(9, 1, 2, 3), torch.arange(9) % 4
    torch.manual_seed(5)
    start = threat.sample(x, Dice(x)) if random_start else x
    torch.manual_seed(5)
    expected = climbed(model, x, y, start, norm=threat.name, eps=threat.eps, steps=steps, step=step)
    np.testing.assert_allclose(attack(model, x, y, threat).flatten(1).numpy(), expected, atol=2e-6)
