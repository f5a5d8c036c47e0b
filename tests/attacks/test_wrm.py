from __future__ import annotations

import numpy as np
import pytest
import torch

from adamas.attacks.crafting import Terms, crafting
from adamas.attacks.wrm import WRM
from adamas.threat import L1, L2, Linf
from tests.attacks.test_fmn import line
from tests.helpers import Linear, SmallNet


def climbed(weight: np.ndarray, x: np.ndarray, label: int, strength: float, steps: int) -> np.ndarray:
    """Ascent on strength * cross-entropy - |x - x0|^2 / 2 from x0, step 1 / sqrt(t + 1), kept in [0, 1]."""
    at = x
    for t in range(steps):
        logits = weight @ at
        wrong = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        wrong[label] -= 1
        at = np.clip(at + (strength * weight.T @ wrong - (at - x)) / np.sqrt(t + 1), 0, 1)
    return at


@pytest.mark.parametrize(("strength", "steps"), [(1.3, 7), (0.05, 3)])
def test_every_step_follows_the_definition(strength, steps):
    model, x = Linear(torch.randn(4, 12)).double(), torch.rand(9, 1, 3, 4).double()
    y = torch.arange(9) % 4
    images, weight = x.flatten(1).numpy(), model.weight.detach().numpy()
    expected = [climbed(weight, one, int(label), strength, steps) for one, label in zip(images, y, strict=True)]
    ours = WRM(strength=strength, steps=steps).perturb(model, x, y)
    np.testing.assert_allclose(ours.flatten(1).numpy(), np.stack(expected), atol=1e-9)


def test_no_ball_bounds_it_and_a_larger_strength_goes_farther():
    model, x, y, _ = line()
    near, far = (L2().distance(WRM(strength=s).perturb(model, x, y), x).mean() for s in (0.01, 1.3))
    assert 0 < near < far and far > 1


@pytest.mark.parametrize("threat", [Linf(eps=0.02), L2(eps=0.08), L1(eps=0.2)])
def test_as_an_attack_it_stays_inside_the_threat(threat):
    model, x, y, _ = line()
    x_adv = WRM(strength=0.02)(model, x, y, threat)
    assert threat.distance(x_adv, x).max() <= threat.eps * (1 + 1e-5) and x_adv.min() >= 0 and x_adv.max() <= 1
    assert 0 < (model(x_adv).argmax(1) != y).sum() < len(x)


def test_an_iterate_outside_the_threat_does_not_count_under_a_search():
    model, x, y, _ = line()
    threat, accepted = L2(eps=0.05), []

    def accept(rows, x_adv):
        accepted.append(threat.distance(x_adv, x[rows]).max())
        return torch.ones(len(rows), dtype=torch.bool)

    with crafting(model, terms=Terms(search=True, accept=accept)) as victim:
        WRM()(victim, x, y, threat)
        WRM(strength=0.01)(victim, x, y, threat)
    assert accepted and max(accepted) <= threat.eps


def test_few_classes_are_enough():
    for classes in (2, 3):
        model, x = SmallNet(classes=classes).eval(), torch.rand(4, 1, 8, 8)
        x_adv = WRM().perturb(model, x, model(x).argmax(1))
        assert x_adv.shape == x.shape and x_adv.min() >= 0 and x_adv.max() <= 1
