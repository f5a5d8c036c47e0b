"""Erdos-Renyi kernels: the more a layer's shape is worth per weight, the more of it stays."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from adamas.rates import Rates, filled
from adamas.registry import register


@register("rate", "erk")
class ERK(Rates):
    """In proportion to sum(shape) / prod(shape) of the weight; layers that would keep more than all stay dense.

    Source: Evci et al. 2020, section 3.
    """

    def __call__(self, weights: Sequence[Tensor], scores: Sequence[Tensor], keep: float) -> list[float]:
        return filled([sum(w.shape) / w.numel() for w in weights], [w.numel() for w in weights], keep)
