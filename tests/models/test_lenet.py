from __future__ import annotations

import pytest
import torch

from adamas.errors import AdamasError
from adamas.models.lenet import CNN4, LeNet


def test_the_layers_of_cnn4_have_the_sizes_that_pruning_rates_refer_to():
    model = CNN4().build((1, 28, 28), 10)
    assert [weight.numel() for weight in model.parameters() if weight.dim() > 1] == [256, 8192, 156_800, 1000]


@pytest.mark.parametrize(("architecture", "least"), [(LeNet(width=2), 16), (CNN4(width=2), 4)])
def test_the_smallest_images_work_and_smaller_ones_are_refused(architecture, least):
    for size in range(least, least + 5):
        assert architecture.build((1, size, least), 3).eval()(torch.rand(1, 1, size, least)).shape == (1, 3)
    with pytest.raises(AdamasError, match=f"at least {least}x{least} pixels for {architecture.name}, got {least}x{least - 1};"):
        architecture.build((1, least, least - 1), 3)
