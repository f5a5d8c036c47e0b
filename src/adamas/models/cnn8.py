"""The eight-layer convolutional network of the adversarial fine-tuning paper."""

from __future__ import annotations

from math import ceil

from torch import nn

from adamas.models import Architecture
from adamas.registry import Count, register


@register("model", "cnn8")
class CNN8(Architecture):
    """Six 3x3 convolutions (widths w, w, 2w, 2w, 4w, 4w; every second one strided) and two linear layers, no batch norm.

    549,994 parameters at width 32 on 28x28 grey images.
    Source: Thorsteinsson et al. 2024, EightLayerConv.
    Deviation: any image size and width; He initialisation, since torch's default leaves a net without batch norm on a
    plateau for thousands of steps.
    """

    width: Count = 32

    def build(self, image_shape: tuple[int, int, int], classes: int) -> nn.Module:
        channels, *size = image_shape
        layers: list[nn.Module] = []
        for width in (self.width, 2 * self.width, 4 * self.width):
            for stride in (1, 2):
                layers += [nn.Conv2d(channels, width, 3, stride=stride, padding=1), nn.ReLU()]
                channels = width
        height, width = (ceil(length / 8) for length in size)
        hidden = 4 * self.width
        layers += [nn.Flatten(), nn.Linear(channels * height * width, hidden), nn.ReLU(), nn.Linear(hidden, classes)]
        for layer in layers:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        return nn.Sequential(*layers)
