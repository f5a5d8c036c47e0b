"""Wide residual networks with pre-activation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from annotated_types import Ge
from torch import Tensor, nn

from adamas.models import Architecture
from adamas.models.sizes import check_depth
from adamas.registry import Count, register


class PreActivationBlock(nn.Module):
    """Batch norm and ReLU before each of two 3x3 convolutions; where the width changes the shortcut projects what they give."""

    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.bn1, self.relu1 = nn.BatchNorm2d(before), nn.ReLU()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn2, self.relu2 = nn.BatchNorm2d(after), nn.ReLU()
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        same = before == after and stride == 1
        self.shortcut = None if same else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = self.relu1(self.bn1(x))
        out = self.conv2(self.relu2(self.bn2(self.conv1(active))))
        return out + (x if self.shortcut is None else self.shortcut(active))


def pre_activation(
    channels: int, stem: int, width: int, blocks: int, classes: int, block: Callable[[int, int, int], list[nn.Module]]
) -> nn.Sequential:
    """A stem, three stages of so many blocks, of width w, 2w and 4w, average pooling, classifier.

    `block` makes the modules of one from channels before, channels after and stride.
    """
    layers: list[nn.Module] = [nn.Conv2d(channels, stem, 3, 1, 1, bias=False)]
    before = stem
    for stage in range(3):
        after = width * 2**stage
        for index in range(blocks):
            layers += block(before, after, 2 if stage and not index else 1)
            before = after
    layers += [nn.BatchNorm2d(before), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes)]
    return nn.Sequential(*layers)


@register("model", "wide_resnet")
class WideResNet(Architecture):
    """Wide residual network for 32x32 images, WRN-`depth`-`widen`: three stages of (depth - 4) / 6 pre-activation blocks.

    A stem of `width` channels, then stages of width * widen * (1, 2, 4). With ten classes WRN-28-4 has 5,849,050 parameters
    and WRN-28-10 36,479,194.
    Source: Zagoruyko & Komodakis 2016, table 1. Deviation: no dropout, torch's default initialisation.
    """

    depth: Annotated[int, Ge(10)] = 28
    widen: Count = 4
    width: Count = 16

    def __post_init__(self) -> None:
        check_depth(self.depth, 4, "16, 28, 34")

    def build(self, image_shape: tuple[int, int, int], classes: int) -> nn.Module:
        def block(before: int, after: int, stride: int) -> list[nn.Module]:
            return [PreActivationBlock(before, after, stride)]

        wide = self.width * self.widen
        return pre_activation(image_shape[0], self.width, wide, (self.depth - 4) // 6, classes, block)
