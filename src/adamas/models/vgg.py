"""VGG networks for small images."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from adamas.models import Architecture
from adamas.models.sizes import at_least
from adamas.registry import Count, register

STAGES = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))
"""Width as a multiple of the first stage's, and convolutions."""


@register("model", "vgg16_bn")
class VGG16(Architecture):
    """VGG-16 with batch norm for 32x32 images: thirteen 3x3 convolutions, then average pooling to `pool` x `pool` pixels and
    linear layers of the widths `hidden`.

    Four max poolings lie between the five stages, so images need 16x16 pixels. 15,302,848 weights in 16 layers at width 64
    with three channels and ten classes (15,311,818 parameters with biases and batch norm).
    Source: Simonyan & Zisserman 2015, configuration D; classifier of Sehwag et al. 2020 and Zhao & Wressnegger 2023.
    `hidden: [512]` with `pool: 1` gives that of Blalock et al. 2020, without its batch norm and with average pooling for the
    last max pooling. Deviation: no biases before batch norm, no dropout, torch's default initialisation.
    """

    width: Count = 64
    hidden: tuple[Count, ...] = (256, 256)
    pool: Count = 2

    def build(self, image_shape: tuple[int, int, int], classes: int) -> nn.Module:
        at_least(16, image_shape, "vgg16_bn")
        before = image_shape[0]
        layers: list[nn.Module] = []
        for multiple, count in STAGES:
            layers += [nn.MaxPool2d(2)] if layers else []
            for _ in range(count):
                after = multiple * self.width
                layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
                before = after
        layers += [nn.AdaptiveAvgPool2d(self.pool), nn.Flatten()]
        widths = (before * self.pool**2, *self.hidden)
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(widths[-1], classes))
