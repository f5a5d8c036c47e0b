"""The same share of every layer."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from adamas.rates import Rates
from adamas.registry import register


@register("rate", "uniform")
class Uniform(Rates):
    """The same share of every layer. Source: Sehwag et al. 2020, which prune so."""

    def __call__(self, weights: Sequence[Tensor], scores: Sequence[Tensor], keep: float) -> list[float]:
        return [keep] * len(weights)
