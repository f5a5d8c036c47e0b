"""Small networks for handwritten digits: LeNet and a four-layer network."""

from __future__ import annotations

from torch import nn

from adamas.models import Architecture
from adamas.models.sizes import at_least
from adamas.registry import Count, register


@register("model", "lenet")
class LeNet(Architecture):
    """Two 5x5 convolutions (widths w and 5w/2) with ReLU and max pooling, and two linear layers, the first of width 25w.

    431,080 parameters at width 20 with 28x28 grey images and ten classes; images need 16x16 pixels. `plain_convolutions` leaves
    the ReLU after the convolutions out, as Caffe's example and ATMC do.
    Source: LeCun et al. 1998, in the widths of Caffe's example. Deviation: ReLU after the convolutions too, as in Blalock et
    al. 2020 (ShrinkBench, MnistNet).
    """

    width: Count = 20
    plain_convolutions: bool = False

    def build(self, image_shape: tuple[int, int, int], classes: int) -> nn.Module:
        at_least(16, image_shape, "lenet")
        channels, *size = image_shape
        first, second, hidden = self.width, -(-5 * self.width // 2), 25 * self.width
        height, width = (((length - 4) // 2 - 4) // 2 for length in size)
        after = nn.Identity if self.plain_convolutions else nn.ReLU
        return nn.Sequential(
            nn.Conv2d(channels, first, 5), after(), nn.MaxPool2d(2),
            nn.Conv2d(first, second, 5), after(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(second * height * width, hidden), nn.ReLU(), nn.Linear(hidden, classes),
        )  # fmt: skip


@register("model", "cnn4")
class CNN4(Architecture):
    """Two strided 4x4 convolutions (widths w and 2w) with batch norm and two linear layers, the first of width 25w/4.

    The weights of its four layers at width 16 with 28x28 grey images and ten classes: 256, 8,192, 156,800 and 1,000, together
    166,248. Images need 4x4 pixels.
    Source: Wong & Kolter 2018, the small network for digits. Deviation: batch norm in place of the biases before it.
    """

    width: Count = 16

    def build(self, image_shape: tuple[int, int, int], classes: int) -> nn.Module:
        at_least(4, image_shape, "cnn4")
        channels, height, width = image_shape
        hidden = -(-25 * self.width // 4)
        return nn.Sequential(
            nn.Conv2d(channels, self.width, 4, 2, 1, bias=False), nn.BatchNorm2d(self.width), nn.ReLU(),
            nn.Conv2d(self.width, 2 * self.width, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * self.width), nn.ReLU(), nn.Flatten(),
            nn.Linear(2 * self.width * (height // 4) * (width // 4), hidden), nn.ReLU(), nn.Linear(hidden, classes),
        )  # fmt: skip
