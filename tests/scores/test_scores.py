"""Scores by hand: a linear layer whose gradients can be written down."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from adamas.attacks.fgsm import FGSM
from adamas.attacks.pgd import PGD
from adamas.compress.prune import Prune
from adamas.errors import AdamasError
from adamas.scores.gap import GAP
from adamas.scores.gradient import Gradient, Taylor
from adamas.scores.magnitude import Magnitude
from adamas.scores.random import Random
from adamas.threat import Linf

THREAT = Linf(eps=0.1)
X, Y = torch.tensor([[[[0.2, 0.8]]], [[[0.5, 0.4]]]]), torch.tensor([0, 1])


def linear() -> nn.Sequential:
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False), nn.Dropout(0.5))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, -2], [0.5, 3]]))
    Prune().attach(model)
    return model.train()


def scored(scores, batches=((X, Y),)) -> torch.Tensor:
    model = linear()
    (found,) = scores(model, {"1": model[1]}, batches, THREAT)
    assert model.training and model[1].parametrizations.weight.original.grad is None
    return found


def gradient(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Sum over images of (softmax - one-hot) outer image."""
    weight = torch.tensor([[1.0, -2], [0.5, 3]])
    off = (x.flatten(1) @ weight.T).softmax(1) - nn.functional.one_hot(y, 2)
    return off.T @ x.flatten(1)


def test_magnitude_and_chance():
    assert scored(Magnitude()).tolist() == [[1, 2], [0.5, 3]]
    torch.manual_seed(0)
    first = scored(Random())
    assert first.shape == (2, 2) and not torch.equal(first, scored(Random()))


def test_gradients_alone_and_times_the_weight():
    grad = gradient(X, Y)
    torch.testing.assert_close(scored(Gradient()), grad.abs())
    torch.testing.assert_close(scored(Taylor()), (grad * torch.tensor([[1.0, -2], [0.5, 3]])).abs())
    torch.testing.assert_close(scored(Gradient(images=1)), gradient(X[:1], Y[:1]).abs())
    torch.testing.assert_close(scored(Gradient(images=3), [(X, Y)] * 5), (grad + gradient(X[:1], Y[:1])).abs())


def test_gap_takes_minus_the_gradient_at_the_attacked_images():
    """FGSM moves every pixel by eps: up for class 0 where the wrong logit's weight is larger."""
    signs = torch.tensor([[[[-1.0, 1]]], [[[1.0, -1]]]])
    x_adv = (X + 0.1 * signs).clamp(0, 1)
    grad = gradient(x_adv, Y)
    torch.testing.assert_close(scored(GAP(attack=FGSM())), -grad)
    torch.testing.assert_close(scored(GAP(attack=FGSM(), absolute=True)), -grad.abs())


def test_gap_may_sum_over_the_way():
    attack = PGD(steps=2, step_size=0.05, random_start=False)
    signs = torch.tensor([[[[-1.0, 1]]], [[[1.0, -1]]]])
    way = [gradient((X + step * signs).clamp(0, 1), Y) for step in (0.05, 0.1)]
    torch.testing.assert_close(scored(GAP(attack=attack, trajectory=True)), -sum(way))
    with pytest.raises(AdamasError, match="trajectory: expected an attack with steps and an explicit step_size, such as pgd"):
        GAP(trajectory=True)


def test_without_images_or_without_a_gradient_it_says_so():
    with pytest.raises(AdamasError, match="scores: expected training images to compute gradients on, got none"):
        scored(Gradient(), [])
    model = linear()
    model.append(nn.Linear(2, 2))
    parametrize.register_parametrization(model[3], "weight", nn.Identity())
    model[3].forward = lambda x: x
    with pytest.raises(AdamasError, match="scores: expected a gradient in every pruned layer, got none in 3; exclude it"):
        Gradient()(model, {"1": model[1], "3": model[3]}, [(X, Y)], THREAT)


def test_frozen_weights_are_scored_and_stay_frozen():
    model = linear()
    model[1].parametrizations.weight.original.requires_grad_(False)
    (found,) = Gradient()(model, {"1": model[1]}, [(X, Y)], THREAT)
    torch.testing.assert_close(found, gradient(X, Y).abs())
    assert not model[1].parametrizations.weight.original.requires_grad


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (1e6, "scores: expected gradients to rank weights by, got zero from 1 on; a model that returns probabilities"),
        (float("nan"), "scores: expected finite gradients, got others in 1; look at the model's logits"),
    ],
)
def test_gradients_that_rank_nothing_are_refused(factor, message):
    model = linear()
    with torch.no_grad():
        model[1].parametrizations.weight.original *= factor
    y = model.eval()(X).argmax(1)  # saturated and right: the loss is flat
    with pytest.raises(AdamasError, match=message):
        GAP(attack=FGSM())(model, {"1": model[1]}, [(X, y)], THREAT)
