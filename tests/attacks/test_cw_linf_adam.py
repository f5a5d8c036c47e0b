from __future__ import annotations

import numpy as np
import pytest
import torch

from adamas.attacks.cw_linf_adam import CWLinfAdam
from adamas.errors import AdamasError
from adamas.threat import L2, Linf
from tests.attacks.test_fmn import line
from tests.helpers import Linear, SmallNet


def published(weight: np.ndarray, x: np.ndarray, label: int, steps: int, lr: float, constant: float) -> np.ndarray:
    """Adam on |w - x|^2 + constant * max(z_label - z_runner_up, 0), w kept in [0, 1]; the w of the lowest loss."""
    scores = weight @ x
    runner_up = int(np.argmax(np.where(np.arange(len(scores)) == label, -np.inf, scores)))
    w, mean, square, best, lowest = x.copy(), np.zeros_like(x), np.zeros_like(x), x, np.inf
    for step in range(1, steps + 1):
        gap = (weight @ w)[label] - (weight @ w)[runner_up]
        loss = ((w - x) ** 2).sum() + constant * max(gap, 0)
        if loss < lowest:
            best, lowest = w, loss
        grad = 2 * (w - x) + (constant * (weight[label] - weight[runner_up]) if gap > 0 else 0)
        mean, square = 0.9 * mean + 0.1 * grad, 0.999 * square + 0.001 * grad**2
        w = np.clip(w - lr * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8), 0, 1)
    return best


def test_every_step_follows_the_paper():
    model, x = Linear(torch.randn(4, 12) - 5).double(), torch.rand(9, 1, 3, 4).double()  # all logits far below -1
    y = model(x).argmax(1)
    weight, images = model.weight.detach().numpy(), x.flatten(1).numpy()
    expected = [published(weight, one, int(label), 50, 0.0006, 10.0) for one, label in zip(images, y, strict=True)]
    ours = CWLinfAdam()(model, x, y, Linf(eps=0.05))
    np.testing.assert_allclose(ours.flatten(1).numpy(), np.stack(expected), atol=1e-9)
    assert 0.02 < (ours - x).abs().max() < 0.031


def test_it_breaks_what_lies_within_its_few_small_steps_alone():
    model, x, y, gap = line()
    slope = (model.weight[0] - model.weight[1]).abs().sum().detach()
    x_adv = CWLinfAdam()(model, x, y, Linf(eps=0.05))
    broken, true = model(x_adv).argmax(1) != y, gap / slope
    assert broken[true < 0.02].all() and not broken[true > 0.03].any()


def test_the_result_is_projected_into_the_threat():
    model, x, y, _ = line()
    assert (CWLinfAdam()(model, x, y, Linf(eps=0.01)) - x).abs().max() <= 0.01 + 1e-6


def test_few_classes_are_enough():
    for classes in (2, 3):
        model, x = SmallNet(classes=classes).eval(), torch.rand(4, 1, 8, 8)
        assert CWLinfAdam(steps=5)(model, x, model(x).argmax(1), Linf()).shape == x.shape


def test_other_norms_are_refused():
    model, x, y, _ = line()
    with pytest.raises(
        AdamasError, match=r"attack cw_linf_adam: expected the threat linf, .* got l2\(.*carlini_wagner works in l2"
    ):
        CWLinfAdam()(model, x, y, L2())
