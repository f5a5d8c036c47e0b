"""The signs that a robustness figure is not what it seems."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adamas.soundness import gradient_flags
from tests.helpers import Linear

X, Y = torch.rand(40, 1, 2, 2), torch.zeros(40, dtype=torch.long)


class Rounded(nn.Module):
    """The same answers as the linear model within, with gradients only for the first `share` of the batch."""

    def __init__(self, share: float):
        super().__init__()
        self.inner, self.share = Linear([[1.0] * 4, [0.0] * 4], bias=[1.0, 0.0]), share

    def forward(self, x: Tensor) -> Tensor:
        shown = int(self.share * len(x))
        return self.inner(torch.cat([x[:shown], x[shown:].detach()]))


class Noisy(nn.Module):
    """Adds noise to its input in either mode."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Linear([[1.0] * 4, [0.0] * 4], bias=[1.0, 0.0])

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x + 0.1 * torch.randn_like(x))


def test_an_ordinary_model_has_no_flags_and_is_left_as_found():
    model = nn.Sequential(Linear([[1.0] * 4, [0.0] * 4], bias=[1.0, 0.0]), nn.Dropout(0.5)).train()
    assert gradient_flags(model, X, Y) == []
    assert model.training and all(p.requires_grad and p.grad is None for p in model.parameters())


def test_missing_gradients_are_counted():
    assert gradient_flags(Rounded(share=0.975), X, Y) == []  # up to 5 % is let pass
    assert gradient_flags(Rounded(share=0.75), X, Y) == [
        "zero gradients: 25% of the images give gradient attacks nothing to follow; add a black-box attack"
    ]


def test_images_that_are_wrong_anyway_do_not_count():
    labels = torch.cat([torch.zeros(30), torch.ones(10)]).long()  # the last ten are misclassified and have no gradient
    assert gradient_flags(Rounded(share=0.75), X, labels) == []
    assert gradient_flags(Rounded(share=0.0), X, torch.ones_like(Y)) == []


def test_randomised_outputs_are_flagged():
    (flag,) = gradient_flags(Noisy(), X, Y)
    assert flag.startswith("randomised output: two passes over the same images differ")
