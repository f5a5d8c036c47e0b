"""Ensembles of residual networks that draw noise."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from adamas.models import Architecture
from adamas.models.sizes import check_depth
from adamas.models.wide_resnet import PreActivationBlock, pre_activation
from adamas.noise import Noise, NoiseScale
from adamas.registry import Count, Number, register


class Ensemble(nn.Module):
    """The mean of its members' logits."""

    def __init__(self, members: list[nn.Module]):
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([member(x) for member in self.members]).mean(0)


@register("model", "enresnet")
class EnResNet(Architecture):
    """EnResNet: the mean logits of `members` pre-activation residual networks whose blocks add noise to what they give.

    Each has `depth` 6n+2 (20, 32, 44, 56, 110): three stages of n blocks, widths w, 2w, 4w, any image size. Every block's
    output y becomes y + noise * std(y) * N(0, 1), the standard deviation by `noise_scale` over each image ("sample") or the
    whole batch ("batch"), in training and, with `noise_eval`, at inference. With three channels and ten classes one member has
    272,282 parameters at depth 20, 267,696 of them in its 3x3 convolutions.
    Source: Wang et al. 2019; Li, Wang, Xin 2021. Deviation: the standard deviation is each image's own by default, since the
    batch's makes an answer depend on its neighbours; the average pooling adapts to the image.
    """

    members: Count = 1
    depth: Annotated[int, Ge(8)] = 20
    width: Count = 16
    noise: Annotated[Number, Ge(0)] = 0.1
    noise_scale: NoiseScale = "sample"
    noise_eval: bool = True

    def __post_init__(self) -> None:
        check_depth(self.depth, 2, "20, 32, 44, 56, 110")

    def build(self, image_shape: tuple[int, int, int], classes: int) -> nn.Module:
        members = [self._member(image_shape[0], classes) for _ in range(self.members)]
        return members[0] if self.members == 1 else Ensemble(members)

    def _member(self, channels: int, classes: int) -> nn.Module:
        def block(before: int, after: int, stride: int) -> list[nn.Module]:
            return [PreActivationBlock(before, after, stride), Noise(self.noise, self.noise_scale, self.noise_eval)]

        net = pre_activation(channels, self.width, self.width, (self.depth - 2) // 6, classes, block)
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=math.sqrt(2 / (layer.kernel_size[0] ** 2 * layer.out_channels)))
        return net
