"""How far images have to move to meet a plane, each pixel stopping where it meets the end of the pixel range."""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDS = 12
"""Newton steps at most; on random rows up to seven changed anything, on gradients of trained networks up to four."""
FAR = 1e30
"""Stands for infinity, so that zero times it is zero."""


def time_to(reach: Tensor, slope: Tensor, missing: Tensor) -> Tensor:
    """The smallest t with sum(slope * min(t, reach)) = missing, (N, 1); far beyond every reach where no t is enough.

    `reach` and `slope` (N, D), none negative: when a pixel stops, and what it adds to the sum per unit of t before; `missing`
    (N, 1). The sum is concave and piecewise linear, so Newton's method from the left never overshoots and ends on t itself.
    """
    t = (missing / slope.sum(1, keepdim=True).clamp_min(1 / FAR)).clamp(max=FAR)
    each = torch.empty_like(reach)
    for _ in range(ROUNDS):
        reached = torch.minimum(reach, t, out=each).mul_(slope).sum(1, keepdim=True)
        rise = torch.gt(reach, t, out=each).mul_(slope).sum(1, keepdim=True)
        later = (t + (missing - reached) / rise.clamp_min(1 / FAR)).clamp(max=FAR)
        moves = later > t * (1 + 1e-6)
        t = later.where(moves, t)
        if t.device.type == "cpu" and not moves.any():  # elsewhere looking would cost more than going on
            break
    return t
