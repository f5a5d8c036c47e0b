"""Gradual pruning: the share kept falls step by step while the weights train, ranked anew each time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from adamas.compress.budget import exact
from adamas.compress.masks import Mask, highest, mask_of
from adamas.rates import Rates

RENEWALS = 32
"""How often the masks shrink on the way."""


class Ramp(Mask):
    """A mask on its way from all to a share of the weights. `price`: the cost of one weight; `cycle`: how often it shrank."""

    cycle: Tensor

    def __init__(self, weight: Tensor, price: int):
        super().__init__(weight)
        self.price = price
        self.register_buffer("cycle", torch.tensor(0))


@torch.no_grad()
def shrink(layers: Sequence[Any], rates: Rates, keep: float) -> None:
    """Keep the largest weights that are still there, `keep` of the budget of all layers."""
    weights = [layer.weight for layer in layers]
    shares = rates(weights, [weight.abs() for weight in weights], keep)
    prices = [mask_of(layer).price for layer in layers]
    for layer, weight, count in zip(layers, weights, exact(shares, [w.numel() for w in weights], prices, keep), strict=True):
        mask_of(layer).mask.copy_(highest(weight.abs(), count))


def follow(layers: Sequence[Any], rates: Rates, keep: float, way: float) -> None:
    """Shrink the masks if that is due at `way`, the share of the ramp that is done.

    Source: Zhu and Gupta 2017, equation 1: keep + (1 - keep) * (1 - way)^3.
    """
    cycle = int(min(way, 1.0) * RENEWALS + 1e-6)
    if cycle > int(mask_of(layers[0]).cycle):
        shrink(layers, rates, keep + (1 - keep) * (1 - cycle / RENEWALS) ** 3)
        for layer in layers:
            mask_of(layer).cycle.fill_(cycle)
