"""Chance, the baseline that every rule has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from adamas.registry import register
from adamas.roles import Batches, Threat
from adamas.scores import Scores


@register("score", "random")
class Random(Scores):
    """Uniform random numbers. Source: Blalock et al. 2020. Deviation: the number kept is exact, not expected."""

    def __call__(self, model: nn.Module, layers: Mapping[str, Any], batches: Batches, threat: Threat) -> list[Tensor]:
        return [torch.rand_like(layer.weight) for layer in layers.values()]
