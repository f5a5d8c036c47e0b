"""One ranking of all weights of the network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adamas.compress.masks import highest
from adamas.rates import Rates
from adamas.registry import register


@register("rate", "global")
class Global(Rates):
    """Whatever a joint ranking of all scores leaves in each layer. Source: Blalock et al. 2020."""

    def __call__(self, weights: Sequence[Tensor], scores: Sequence[Tensor], keep: float) -> list[float]:
        return ranked_together(scores, keep)


def ranked_together(scores: Sequence[Tensor], keep: float) -> list[float]:
    """The share of every tensor that is among the `keep` highest of all."""
    together = torch.cat([score.flatten() for score in scores])
    mask = highest(together, max(1, round(keep * len(together))))
    return [float(part.float().mean()) for part in mask.split([score.numel() for score in scores])]
