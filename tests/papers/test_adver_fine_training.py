"""Adversarial fine-tuning of compressed models (Thorsteinsson et al. 2024): its training attack and its learning rate.

The paper works on images in [-1, 1], (x - .5) / .5, where its attack takes 20 steps of .01 within .1 (Fashion-MNIST), from the
image itself. In pixels that is 20 steps of .005 within .05. Its code does not clamp to valid images, which ours does.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adamas.attacks.pgd import PGD
from adamas.fit import Fit, learning_rate
from adamas.models import normalized
from adamas.models.cnn8 import CNN8
from adamas.threat import Linf

TRAINING_ATTACK = PGD(steps=20, step_size=0.005, random_start=False)
THREAT = Linf(eps=0.05)


def crafted_in_their_space(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Images in [-1, 1] after 20 signed steps of .01 within .1, kept in [-1, 1]."""
    origin = (x - 0.5) / 0.5
    at = origin.clone()
    for _ in range(20):
        at.requires_grad_()
        (grad,) = torch.autograd.grad(F.cross_entropy(net(at), y), at)
        delta = (at.detach() + 0.01 * grad.sign() - origin).clamp(-0.1, 0.1)
        at = (origin + delta).clamp(-1, 1)
    return at


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_training_attack_is_the_papers_in_pixels(mode):
    net = CNN8(width=4).build((1, 28, 28), 10).double()
    model = normalized(net, [0.5], [0.5]).double().train(mode == "train")
    x, y = torch.rand(16, 1, 28, 28, dtype=torch.float64), torch.arange(16) % 10
    ours = TRAINING_ATTACK(model, x, y, THREAT)
    theirs = crafted_in_their_space(net, x, y)
    torch.testing.assert_close((ours - 0.5) / 0.5, theirs, rtol=0, atol=1e-9)
    assert (ours - x).abs().max() == pytest.approx(0.05)
    assert F.cross_entropy(model(ours), y) > F.cross_entropy(model(x), y) + 0.05


def test_the_learning_rate_falls_from_a_tenth_to_a_hundredth_after_five_epochs():
    settings = Fit(epochs=20, lr=0.1, schedule="step", milestones=(5,))
    rates = [learning_rate(settings, epoch) for epoch in (0, 1, 4.999, 5, 5.001, 12, 20)]
    assert rates == pytest.approx([0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01])
