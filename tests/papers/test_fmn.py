"""Fast minimum-norm attack (Pintor et al. 2021, algorithm 1), step by step in numpy on one image and a linear model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adamas.attacks.fmn import FMN
from adamas.threat import L2, Linf
from tests.helpers import Linear


def cosine(first: float, last: float, k: int, steps: int) -> float:
    return last + (first - last) * (1 + np.cos(np.pi * k / steps)) / 2


def walked(weight: np.ndarray, x: np.ndarray, label: int, norm: float, steps: int) -> np.ndarray:
    """The change of the image (zero if none misclassifies) after `steps` gradients."""
    delta, best, radius, nearest = np.zeros_like(x), np.zeros_like(x), np.inf, np.inf
    for k in range(steps + 1):
        logits = weight @ (x + delta)
        other = int(np.argmax(np.where(np.arange(len(logits)) == label, -np.inf, logits)))
        gap, grad, length = logits[label] - logits[other], weight[other] - weight[label], np.linalg.norm(delta, norm)
        if gap < 0 and length < nearest:
            best, nearest = delta, length
        if k == steps:
            break
        gamma, alpha = cosine(0.05, 0.001, k, steps), cosine(1.0, 0.01, k, steps)
        if gap < 0:
            radius = min(radius * (1 - gamma), nearest)
        elif nearest < np.inf:
            radius = radius * (1 + gamma)
        else:
            radius = (length + gap / np.linalg.norm(grad, 1 if norm == np.inf else 2)) * (1 + gamma)
        delta = np.clip(x + delta + alpha * grad / np.linalg.norm(grad), 0, 1) - x
        delta = np.clip(delta, -radius, radius) if norm == np.inf else delta * min(1, radius / np.linalg.norm(delta))
    return best


@pytest.mark.parametrize("steps", [1, 2, 5, 25])
@pytest.mark.parametrize(("threat", "norm"), [(Linf(), np.inf), (L2(), 2)])
def test_every_step_follows_the_algorithm(threat, norm, steps):
    model, x = Linear(torch.randn(4, 12)), torch.rand(8, 1, 3, 4)
    model, x = model.double(), x.double()
    y = model(x).argmax(1)
    ours = (FMN(steps=steps).nearest(model, x, y, threat) - x).flatten(1).numpy()
    weight = model.weight.detach().numpy()
    theirs = [walked(weight, one, int(label), norm, steps) for one, label in zip(x.flatten(1).numpy(), y, strict=True)]
    lengths = np.linalg.norm(ours, norm, axis=1)
    np.testing.assert_allclose(lengths, np.linalg.norm(np.stack(theirs), norm, axis=1), rtol=1e-6)
    assert np.isclose(ours, np.stack(theirs), atol=1e-6).all(1).mean() >= 0.75  # among equally long changes rounding decides
    assert (lengths > 0).all() or steps < 25
