"""Agreement of two classifiers, counted by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from adamas.data import Images
from adamas.deploy.parity import Parity, parity
from adamas.errors import AdamasError
from tests.helpers import Linear

FOUR = Images(
    torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.4], [0.4, 0.6]]).view(4, 1, 1, 2), torch.zeros(4, dtype=torch.int64)
)


@pytest.mark.parametrize("batch_size", [1, 3, 256])
def test_agreement_and_the_largest_difference_are_over_all_images(batch_size):
    one, other = Linear([[1.0, 0.0], [0.0, 1.0]]), Linear([[1.0, 0.0], [0.0, 1.0]], bias=[0.0, 0.5])
    assert parity(one, other, FOUR, batch_size) == Parity(n=4, agreement=0.75, largest_logit_difference=0.5)


def test_the_model_is_compared_in_eval_mode_and_left_in_training_mode():
    model = nn.Sequential(nn.Dropout(0.9), Linear([[1.0, 0.0], [0.0, 1.0]])).train()
    assert parity(model, model[1], FOUR).largest_logit_difference == 0
    assert model.training and model[0].training


def test_no_images_is_an_error():
    with pytest.raises(AdamasError, match="expected images to compare the exported file on, got none"):
        parity(Linear([[1.0, 0.0]]), Linear([[1.0, 0.0]]), FOUR[:0])
