"""Residual networks: ResNet-18 and the CIFAR family for small images, ResNet-50 for large ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn

from adamas.models import Architecture
from adamas.models.sizes import check_depth
from adamas.registry import Count, register

Option = Literal["A", "B"]


def selection(before: int, after: int, stride: int) -> nn.Conv2d:
    """Every `stride`-th pixel between channels of zeros: a 1x1 convolution whose fixed weight, a buffer, only picks channels.

    Source: He et al. 2016, section 3.3, option A. Written as a convolution so that channels can be removed through it.
    """
    layer = nn.Conv2d(before, after, 1, stride, bias=False)
    first = (after - before) // 2
    del layer.weight
    layer.register_buffer("weight", torch.eye(after)[:, first : first + before, None, None].contiguous())
    return layer


def shortcut(before: int, after: int, stride: int, option: Option = "B") -> nn.Module:
    """The identity where the shape stays; else a selection (option A) or a projection with batch norm (option B)."""
    if stride == 1 and before == after:
        return nn.Identity()
    if option == "A":
        return selection(before, after, stride)
    return nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and a shortcut; saved quantizers are named after `relu` and `relu_1`."""

    def __init__(self, before: int, after: int, stride: int, option: Option = "B"):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(after), nn.ReLU()
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2, self.relu_1 = nn.BatchNorm2d(after), nn.ReLU()
        self.shortcut = shortcut(before, after, stride, option)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu_1(self.bn2(self.conv2(out)) + self.shortcut(x))


class Bottleneck(nn.Module):
    """A 3x3 convolution between two 1x1 ones, at a quarter of the output's width, and a projected shortcut."""

    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        inner = after // 4
        self.conv1 = nn.Conv2d(before, inner, 1, bias=False)
        self.bn1, self.relu1 = nn.BatchNorm2d(inner), nn.ReLU()
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
        self.bn2, self.relu2 = nn.BatchNorm2d(inner), nn.ReLU()
        self.conv3 = nn.Conv2d(inner, after, 1, bias=False)
        self.bn3, self.relu3 = nn.BatchNorm2d(after), nn.ReLU()
        self.shortcut = shortcut(before, after, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.relu2(self.bn2(self.conv2(out)))
        return self.relu3(self.bn3(self.conv3(out)) + self.shortcut(x))


def _residual(
    stem: list[nn.Module], before: int, after: int, blocks: tuple[int, ...], block: Callable, classes: int
) -> nn.Module:
    """Stem, stages of so many blocks, each half as large and twice as wide as the one before, average pooling, classifier."""
    layers = list(stem)
    for stage, count in enumerate(blocks):
        for index in range(count):
            layers.append(block(before, after * 2**stage, 2 if stage and not index else 1))
            before = after * 2**stage
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))


def _small_stem(channels: int, width: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]


@register("model", "resnet18")
class ResNet18(Architecture):
    """ResNet-18 for 32x32 images: 3x3 stem without pooling, four stages of two basic blocks, global average pooling.

    11,173,962 parameters at width 64 with three channels and ten classes.
    Source: He et al. 2016, with the small-image stem that the robustness literature uses.
    """

    width: Count = 64

    def build(self, image_shape: tuple[int, int, int], classes: int) -> nn.Module:
        stem = _small_stem(image_shape[0], self.width)
        return _residual(stem, self.width, self.width, (2, 2, 2, 2), BasicBlock, classes)


@register("model", "resnet34")
class ResNet34(Architecture):
    """ResNet-34 for 32x32 images: as ResNet-18, with three, four, six and three basic blocks.

    21,282,122 parameters at width 64 with three channels and ten classes, 21,265,088 of them weights.
    Source: He et al. 2016, with the small-image stem that the robustness literature uses.
    """

    width: Count = 64

    def build(self, image_shape: tuple[int, int, int], classes: int) -> nn.Module:
        stem = _small_stem(image_shape[0], self.width)
        return _residual(stem, self.width, self.width, (3, 4, 6, 3), BasicBlock, classes)


@register("model", "resnet20")
class ResNet20(Architecture):
    """The residual networks for CIFAR: `depth` 6n+2 (20, 32, 44, 56, 110), three stages of n basic blocks, widths w, 2w, 4w.

    Depth 20 at width 16 with ten classes has 269,722 parameters with `shortcut` A (no parameters; pixels are picked and
    channels of zeros added) and 272,474 with B (projections with batch norm).
    Source: He et al. 2016, section 4.2. Deviation: torch's default initialisation.
    """

    depth: Annotated[int, Ge(8)] = 20
    width: Count = 16
    shortcut: Option = "A"

    def __post_init__(self) -> None:
        check_depth(self.depth, 2, "20, 32, 44, 56, 110")

    def build(self, image_shape: tuple[int, int, int], classes: int) -> nn.Module:
        def block(before: int, after: int, stride: int) -> nn.Module:
            return BasicBlock(before, after, stride, self.shortcut)

        stem = _small_stem(image_shape[0], self.width)
        return _residual(stem, self.width, self.width, ((self.depth - 2) // 6,) * 3, block, classes)


@register("model", "resnet50")
class ResNet50(Architecture):
    """ResNet-50 for images of ImageNet's size: 7x7 stem, max pooling, four stages of 3, 4, 6 and 3 bottlenecks.

    25,557,032 parameters at width 64 with three channels and a thousand classes.
    Source: He et al. 2016, table 1. Deviation: the stride is in the 3x3 convolution, as in the networks now in use.
    """

    width: Count = 64

    def build(self, image_shape: tuple[int, int, int], classes: int) -> nn.Module:
        stem: list[nn.Module] = [nn.Conv2d(image_shape[0], self.width, 7, 2, 3, bias=False), nn.BatchNorm2d(self.width)]
        stem += [nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        return _residual(stem, self.width, 4 * self.width, (3, 4, 6, 3), Bottleneck, classes)
