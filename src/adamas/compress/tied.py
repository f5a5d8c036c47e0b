"""Weights of few different values that stay so: training moves the values, never which weight has which."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function


class Tied(nn.Module):
    """Keeps equal weights equal and zeros zero, as a parametrization: each gets the mean gradient of all that are equal to it.

    So a later fit trains the values of a codebook, and nothing else of the weight. `bits`: what one code takes.
    Source: Han et al. 2016, section 3.3. Deviation: the mean, not the sum: the projection of the step onto what equal weights
    can do, for which the learning rate of ordinary weights is right.
    """

    elementwise = True
    width: Tensor

    def __init__(self, bits: int):
        super().__init__()
        self.register_buffer("width", torch.tensor(bits, dtype=torch.uint8))
        self._groups: tuple[Tensor, Tensor] | None = None

    @property
    def bits(self) -> int:
        return int(self.width)

    def forward(self, weight: Tensor) -> Tensor:
        if not (self.training and torch.is_grad_enabled() and weight.requires_grad):
            return weight
        return _Shared.apply(weight, *self._groups_of(weight))  # type: ignore[return-value]

    def right_inverse(self, weight: Tensor) -> Tensor:
        self._groups = None
        return weight

    def _groups_of(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The group of every weight, and how many are in each: found once, since training does not change it."""
        if self._groups is None or len(self._groups[0]) != weight.numel() or self._groups[0].device != weight.device:
            values, codes = weight.detach().flatten().unique(return_inverse=True)
            groups = torch.where(values[codes] == 0, 0, codes + 1)
            self._groups = groups, groups.bincount().clamp_min(1)
        return self._groups


class _Shared(Function):
    """The identity; every entry's gradient is the mean over the entries of its group, 0 for group 0."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, groups: Tensor, sizes: Tensor) -> Tensor:
        ctx.save_for_backward(groups, sizes)
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        groups, sizes = ctx.saved_tensors
        means = grads[0].new_zeros(len(sizes)).index_add_(0, groups, grads[0].flatten()) / sizes
        means[0] = 0
        return means[groups].view_as(grads[0]), None, None
