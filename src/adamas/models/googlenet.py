"""GoogLeNet for small images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adamas.models import Architecture
from adamas.registry import Count, register

STAGES = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)
"""Per block: the 1x1 branch, the 3x3 branch (inside, out), the 5x5 branch (inside, out), the pooling branch."""


def _unit(before: int, after: int, kernel: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, kernel, padding=kernel // 2), nn.BatchNorm2d(after), nn.ReLU()]


class Inception(nn.Module):
    """Four branches side by side; two 3x3 convolutions stand for the 5x5 one."""

    def __init__(self, before: int, one: int, inside3: int, three: int, inside5: int, five: int, pooled: int):
        super().__init__()
        self.one = nn.Sequential(*_unit(before, one, 1))
        self.three = nn.Sequential(*_unit(before, inside3, 1), *_unit(inside3, three, 3))
        self.five = nn.Sequential(*_unit(before, inside5, 1), *_unit(inside5, five, 3), *_unit(five, five, 3))
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), *_unit(before, pooled, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pooled(x)], 1)


@register("model", "googlenet")
class GoogLeNet(Architecture):
    """GoogLeNet with batch norm for 32x32 images: a 3x3 stem of width 3w, nine Inception blocks, global average pooling.

    6,166,250 parameters at width 64 with three channels and ten classes; other widths scale every layer.
    Source: Szegedy et al. 2015, table 1. Deviation: the form that is common on CIFAR: batch norm everywhere, a small stem
    without pooling, two 3x3 convolutions for the 5x5, no auxiliary classifiers, no dropout.
    """

    width: Count = 64

    def build(self, image_shape: tuple[int, int, int], classes: int) -> nn.Module:
        before = 3 * self.width
        layers: list[nn.Module] = _unit(image_shape[0], before, 3)
        for stage, blocks in enumerate(STAGES):
            layers += [nn.MaxPool2d(3, 2, 1)] if stage else []
            for block in blocks:
                one, inside3, three, inside5, five, pooled = (-(-channels * self.width // 64) for channels in block)
                layers.append(Inception(before, one, inside3, three, inside5, five, pooled))
                before = one + three + five + pooled
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))
