"""Residual networks for small images."""

from __future__ import annotations

from torch import Tensor, nn

from adamas.models import Architecture
from adamas.registry import Count, register


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and a shortcut, projected where the shape changes (option B)."""

    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


@register("model", "resnet18")
class ResNet18(Architecture):
    """ResNet-18 for 32x32 images: 3x3 stem without pooling, four stages of two basic blocks, global average pooling.

    11,173,962 parameters at width 64 with three channels and ten classes.
    Source: He et al. 2016, with the small-image stem that the robustness literature uses.
    """

    width: Count = 64

    def build(self, image_shape: tuple[int, int, int], classes: int) -> nn.Module:
        before = self.width
        layers: list[nn.Module] = [nn.Conv2d(image_shape[0], before, 3, 1, 1, bias=False), nn.BatchNorm2d(before), nn.ReLU()]
        for stage in range(4):
            after = self.width * 2**stage
            layers += [BasicBlock(before, after, 1 if stage == 0 else 2), BasicBlock(after, after, 1)]
            before = after
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))
