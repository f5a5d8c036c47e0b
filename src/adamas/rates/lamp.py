"""Layer-adaptive magnitudes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adamas.rates import Rates
from adamas.rates.globally import ranked_together
from adamas.registry import register


@register("rate", "lamp")
class LAMP(Rates):
    """By one ranking of w^2 / (sum of the squares in its layer that are at least w^2), whatever the scores say.

    Source: Lee et al. 2021, equation 3.
    """

    def __call__(self, weights: Sequence[Tensor], scores: Sequence[Tensor], keep: float) -> list[float]:
        return ranked_together([lamp(weight) for weight in weights], keep)


def lamp(weight: Tensor) -> Tensor:
    """The score of every weight."""
    squares, order = weight.detach().double().flatten().square().sort()
    remaining = squares.flip(0).cumsum(0).flip(0).clamp_min(torch.finfo(torch.float64).tiny)
    return torch.empty_like(squares).scatter_(0, order, squares / remaining).view_as(weight)
