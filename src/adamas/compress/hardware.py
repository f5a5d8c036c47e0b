"""The hardware loss that brings learned rates down to a budget."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adamas.compress.masks import LearnedRate
from adamas.errors import AdamasError

OVERSHOOT = 0.02
"""Share of the budget by which learned rates may exceed it before they are brought to it exactly."""


def hardware_loss(rates: Sequence[LearnedRate], excess: Tensor) -> Tensor:
    """max(0, cost / budget - 1) under its present weight; `excess` is cost / budget - 1. Source: HARP, hardware loss."""
    return rates[0].pressure * excess.clamp_min(0)


@torch.no_grad()
def press(rates: Sequence[LearnedRate], excess: Tensor, gamma: float) -> None:
    """Let the weight of the hardware loss grow by `gamma` while the budget is exceeded."""
    for rate in rates:
        rate.pressure += gamma * (excess > 0)


def check_met(excess: float, keep: float) -> None:
    """Raise an AdamasError where learned rates exceed their budget by more than rounding can mend."""
    if excess > OVERSHOOT:
        raise AdamasError(
            f"keep: expected learned rates to meet the budget of {keep:g}, got {1 + excess:.3g} times its cost; "
            "give the stage more epochs or the rates a larger gamma"
        )
