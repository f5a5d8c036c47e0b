"""FAB step by step in double precision, and what changed against the published order of its passes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adamas.attacks.fab import FAB
from adamas.attacks.losses import likely_targets
from adamas.roles import Threat
from adamas.threat import L2, Linf
from tests.helpers import first_batch

CURVE = torch.tensor([0.9, -0.4, 0.6, 0.2]), torch.tensor([0.3, -1.1, 0.5, 0.8])


class Curved(nn.Module):
    """Two classes; the gap of class 1 over class 0 is sum(a * x^2 + c * x) - 1.5."""

    def forward(self, x: Tensor) -> Tensor:
        a, c = CURVE
        gap = (a * x.flatten(1) ** 2 + c * x.flatten(1)).sum(1) - 1.5
        return torch.stack([torch.zeros_like(gap), gap], 1)


def onto(norm: str, x: np.ndarray, w: np.ndarray, b: float) -> np.ndarray:
    """The nearest point of the box on the plane, by bisection over how far all pixels go."""
    missing = -(w @ x + b)
    way, low, high = (np.sign(w) if norm == "linf" else w) * np.sign(missing), 0.0, 100.0
    for _ in range(200):
        t = (low + high) / 2
        low, high = (t, high) if abs(w @ (np.clip(x + t * way, 0, 1) - x)) < abs(missing) else (low, t)
    return np.clip(x + high * way, 0, 1)


def walked(norm: str, x: np.ndarray, steps: int) -> np.ndarray:
    """Algorithm 1 with alpha_max .1, eta 1.05, beta .9, linearised where the last candidate is."""
    a, c = (part.double().numpy() for part in CURVE)

    def long(change: np.ndarray) -> float:
        return float(np.abs(change).max() if norm == "linf" else np.linalg.norm(change))

    near, least, at = x, np.inf, x
    for step in range(steps + 1):
        gap = float(a @ at**2 + c @ at - 1.5)
        if gap > 0 and long(at - x) < least:
            near, least = at, long(at - x)
        if step == steps:
            break
        w = 2 * a * at + c
        b = gap - float(w @ at)
        point = x + 0.9 * (at - x) if gap > 0 else at
        here, there = onto(norm, point, w, b), onto(norm, x, w, b)
        alpha = min(long(here - point) / (long(here - point) + long(there - x)), 0.1)
        at = np.clip((1 - alpha) * (point + 1.05 * (here - point)) + alpha * (x + 1.05 * (there - x)), 0, 1)
    return near


@pytest.mark.parametrize("steps", [1, 2, 3, 8])
@pytest.mark.parametrize("threat", [Linf(), L2()], ids=["linf", "l2"])
def test_every_step_follows_the_algorithm(threat, steps):
    x = torch.rand(30, 1, 2, 2)
    x = x[Curved()(x).argmax(1) == 0]
    found = FAB(steps=steps).nearest(Curved(), x, torch.zeros(len(x), dtype=torch.long), threat)
    expected = [walked(threat.name, image.double().flatten().numpy(), steps) for image in x]
    assert np.mean([np.abs(image - start).max() > 0 for image, start in zip(expected, x.flatten(1).numpy(), strict=True)]) > 0.4
    np.testing.assert_allclose(found.flatten(1).numpy(), np.stack(expected), atol=2e-5)


def published(model: nn.Module, x: Tensor, y: Tensor, target: Tensor, threat: Threat, steps: int) -> Tensor:
    """Distances found where every point, moved back or not, is linearised by a pass of its own."""
    rows, at, least = torch.arange(len(x)), x, torch.full((len(x),), torch.inf)
    broad = (-1, 1, 1, 1)
    for _ in range(steps):
        point = at.detach().requires_grad_()
        logits = model(point)
        gap = logits[rows, target] - logits[rows, y]
        (w,) = torch.autograd.grad(gap.sum(), point)
        b = gap.detach() - (w * at).flatten(1).sum(1)
        here, there = threat.to_plane(at, w, b), threat.to_plane(x, w, b)
        near, far = threat.distance(here, at).clamp_min(1e-8), threat.distance(there, x).clamp_min(1e-8)
        alpha = (near / (near + far)).clamp(max=0.1).view(broad)
        at = ((1 - alpha) * (at + 1.05 * (here - at)) + alpha * (x + 1.05 * (there - x))).clamp(0, 1)
        wrong, distance = model(at).argmax(1) != y, threat.distance(at, x)
        least = torch.where(wrong & (distance < least), distance, least)
        at = torch.where(wrong.view(broad), x + 0.9 * (at - x), at)
    return least.detach()


@pytest.mark.parametrize("threat", [Linf(), L2()], ids=["linf", "l2"])
def test_fewer_passes_lose_nothing_against_the_published_order(trained, digits, threat):
    x, y = first_batch(digits, 64)
    right = trained(x).argmax(1) == y
    x, y = x[right], y[right]
    target = likely_targets(trained(x), y, 1)[:, 0]
    ours = threat.distance(FAB(steps=40, targets=1).nearest(trained, x, y, threat), x)
    theirs = published(trained, x, y, target, threat, 40)
    both = (ours > 0) & theirs.isfinite()
    assert both.sum() >= theirs.isfinite().sum() > 30
    ratio = ours[both] / theirs[both]
    assert 0.9 < ratio.median() < 1.005 and (ratio > 1.01).float().mean() <= (ratio < 0.99).float().mean() + 0.05
