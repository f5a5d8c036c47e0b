from __future__ import annotations

import pytest
import torch
from torch import nn

from adamas.errors import AdamasError
from adamas.models.vgg import VGG16


def linear_layers(model: nn.Module) -> list[tuple[int, int]]:
    return [tuple(layer.weight.T.shape) for layer in model.modules() if isinstance(layer, nn.Linear)]


def test_the_classifier_follows_its_settings():
    assert linear_layers(VGG16(width=4).build((3, 32, 32), 10)) == [(128, 256), (256, 256), (256, 10)]
    assert linear_layers(VGG16(width=4, hidden=(512,), pool=1).build((3, 32, 32), 10)) == [(32, 512), (512, 10)]
    assert linear_layers(VGG16(width=4, hidden=()).build((3, 32, 32), 10)) == [(128, 10)]


def test_images_of_16_pixels_are_the_smallest():
    assert VGG16(width=4).build((1, 16, 17), 3).eval()(torch.rand(1, 1, 16, 17)).shape == (1, 3)
    message = "model: expected images of at least 16x16 pixels for vgg16_bn, got 28x15; resnet20 takes any size"
    with pytest.raises(AdamasError, match=f"^{message}$"):
        VGG16(width=4).build((1, 28, 15), 3)
