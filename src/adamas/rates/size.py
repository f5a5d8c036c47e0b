"""What the dynamics of HARP's hardware loss give alone, without data: the control for rates that claim to be learned."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from adamas.compress.masks import LearnedRate
from adamas.rates import Rates
from adamas.registry import Count, Number, Share, register

FLOOR = 0.1
"""The least a layer keeps, as a share of `keep`. Source: HARP's code."""


@register("rate", "size")
class Size(Rates):
    """Rates after SGD on the hardware loss alone, from `start` everywhere: large layers fall, weight decay pulls to a half.

    The settings are those of HARP's published training on CIFAR-10, left after `stop` of its epochs, when 1 % is reached.
    Source: HARP, hardware loss; no data is read.
    """

    start: Share = 0.1
    gamma: Number = 0.01
    epochs: Count = 20
    stop: Count = 6
    steps: Count = 391
    lr: Number = 0.1
    weight_decay: Number = 5e-4

    def __call__(self, weights: Sequence[Tensor], scores: Sequence[Tensor], keep: float) -> list[float]:
        sizes = torch.tensor([float(weight.numel()) for weight in weights], dtype=torch.float64)
        floor = FLOOR * keep
        start = LearnedRate(max(self.start, keep), floor).quota.item()
        quota = torch.full_like(sizes, start)
        velocity, gamma, reached = torch.zeros_like(quota), 0.0, False
        for epoch in range(min(self.stop, self.epochs)):
            gamma = gamma if reached else (epoch + 1) * self.gamma
            lr = self.lr * 0.5 * (1 + math.cos(max(epoch - 1, 0) / self.epochs * math.pi))
            for _ in range(self.steps):
                inner = quota.sigmoid()
                over = ((floor + (1 - floor) * inner) * sizes).sum() / (keep * sizes.sum()) > 1
                slope = gamma * sizes / (keep * sizes.sum()) * (1 - floor) * inner * (1 - inner) * over
                velocity = 0.9 * velocity + slope + self.weight_decay * quota
                quota = quota - lr * velocity
            rates = floor + (1 - floor) * quota.sigmoid()
            reached |= round(float((rates * sizes).sum() / (keep * sizes.sum()) - 1), 4) <= 0
        return (floor + (1 - floor) * quota.sigmoid()).tolist()
