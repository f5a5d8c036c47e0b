"""MobileNetV2 for small images."""

from __future__ import annotations

from torch import Tensor, nn

from adamas.models import Architecture
from adamas.registry import Count, register

STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, width, blocks, stride of the first block."""


def _unit(before: int, after: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(after)]


class InvertedResidual(nn.Module):
    """1x1 to a wide inside, depthwise 3x3, 1x1 back without ReLU; at stride 1 a shortcut, projected where the width changes."""

    def __init__(self, before: int, after: int, expansion: int, stride: int):
        super().__init__()
        inside = expansion * before
        self.convs = nn.Sequential(
            *_unit(before, inside), nn.ReLU(), *_unit(inside, inside, 3, stride, inside), nn.ReLU(), *_unit(inside, after)
        )
        self.shortcut: nn.Module | None = None
        if stride == 1:
            self.shortcut = nn.Identity() if before == after else nn.Sequential(*_unit(before, after))

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(x) if self.shortcut is None else self.convs(x) + self.shortcut(x)


@register("model", "mobilenetv2")
class MobileNetV2(Architecture):
    """MobileNetV2 for 32x32 images: 3x3 stem, seventeen inverted residual blocks with stride 8 in all, global average pooling.

    2,296,922 parameters at width 32 (the stem's) with three channels and ten classes; other widths scale every layer.
    Source: Sandler et al. 2018, table 2. Deviation: the form that is common on CIFAR: stride 1 in the stem and the first two
    stages, ReLU instead of ReLU6, projected shortcuts, a 1x1 expansion in the first block too.
    """

    width: Count = 32

    def build(self, image_shape: tuple[int, int, int], classes: int) -> nn.Module:
        before = self.width
        layers: list[nn.Module] = [*_unit(image_shape[0], before, 3), nn.ReLU()]
        for expansion, channels, count, stride in STAGES:
            after = -(-channels * self.width // 32)
            for index in range(count):
                layers.append(InvertedResidual(before, after, expansion, 1 if index else stride))
                before = after
        layers += [*_unit(before, 40 * self.width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return nn.Sequential(*layers, nn.Linear(40 * self.width, classes))
