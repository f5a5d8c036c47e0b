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
        self._codes: Tensor | None = None

    @property
    def bits(self) -> int:
        return int(self.width)

    def forward(self, weight: Tensor) -> Tensor:
        if not (self.training and torch.is_grad_enabled() and weight.requires_grad):
            return weight
        return _Shared.apply(weight, self._codes_of(weight))  # type: ignore[return-value]

    def right_inverse(self, weight: Tensor) -> Tensor:
        self._codes = None
        return weight

    def _codes_of(self, weight: Tensor) -> Tensor:
        """Which weights are equal, found once: training does not change it."""
        if self._codes is None or self._codes.shape != weight.shape or self._codes.device != weight.device:
            values, codes = weight.detach().unique(return_inverse=True)
            self._codes = torch.where(values[codes] == 0, -1, codes)
        return self._codes


class _Shared(Function):
    """The identity; every entry's gradient is the mean over the entries of its code, 0 for the code -1."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, codes: Tensor) -> Tensor:
        ctx.save_for_backward(codes)
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (codes,) = ctx.saved_tensors
        at = (codes + 1).flatten()
        sums = grads[0].new_zeros(int(at.max()) + 1).index_add_(0, at, grads[0].flatten())
        means = sums / torch.bincount(at).clamp_min(1)
        means[0] = 0
        return means[at].view_as(codes), None
