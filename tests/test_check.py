"""What is not a classifier, and the sentence that says why."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from adamas.check import check_model, is_probability
from adamas.errors import AdamasError
from tests.helpers import Linear, SmallNet

X = torch.rand(2, 1, 4, 4)


class Answers(nn.Module):
    """Gives the same answer to everything."""

    def __init__(self, answer: object):
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> object:
        return self.answer


class Refuses(nn.Module):
    """Raises whatever a user's own forward may raise."""

    def forward(self, x: Tensor) -> Tensor:
        raise TypeError("expected a dictionary\nof things")


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (nn.Sequential(Linear(torch.randn(10, 16)), nn.Softmax(1)), "expected logits, got probabilities .* remove the softmax"),
        (Linear(torch.randn(3, 16)), r"expected logits of shape \(2, 10\) for 10 classes, got \(2, 3\)"),
        (Answers(torch.zeros(2, 10, 1, 1)), r"expected logits of shape \(2, 10\) for 10 classes, got \(2, 10, 1, 1\)"),
        (Answers((torch.zeros(2, 10),)), r"expected logits of shape \(2, 10\) for 10 classes, got tuple"),
        (Answers(torch.full((2, 10), torch.nan)), "expected finite logits, got nan or inf; is the checkpoint intact"),
        (
            Linear(torch.randn(10, 64)),
            r"the model refused images of shape \(1, 4, 4\) \(channels, height, width\): mat1 and mat2 shapes",
        ),
        (SmallNet(channels=3), r"the model refused images of shape \(1, 4, 4\) .*expected input.* to have 3 channels"),
        (
            nn.Sequential(nn.Flatten(), nn.BatchNorm2d(16)),
            r"refused images of shape \(1, 4, 4\) .*: expected 4D input \(got 2D",
        ),
        (Refuses(), r"refused images of shape \(1, 4, 4\) \(channels, height, width\): expected a dictionary$"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(model, sentence):
    with pytest.raises(AdamasError, match=sentence):
        check_model(model, X, 10)


def test_a_classifier_passes_and_every_part_keeps_its_mode():
    model = SmallNet().train()
    model[1].eval()
    modes = [module.training for module in model.modules()]
    moved = model[4].num_batches_tracked.clone()
    check_model(model, X, 10)
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(model[4].num_batches_tracked, moved)


@pytest.mark.parametrize(
    ("outputs", "probable"),
    [
        ([[0.2, 0.8], [1.0, 0.0]], True),
        ([[0.2, 0.8], [0.5, 0.6]], False),
        ([[0.2, 0.8], [-0.5, 1.5]], False),
        ([[0.0, 0.0], [0.0, 0.0]], False),
    ],
)
def test_probabilities_are_rows_that_sum_to_one(outputs, probable):
    assert is_probability(torch.tensor(outputs)) is probable
