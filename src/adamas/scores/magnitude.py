"""The absolute weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from adamas.registry import register
from adamas.roles import Batches, Threat
from adamas.scores import Scores


@register("score", "magnitude")
class Magnitude(Scores):
    """|w|. Source: Han et al. 2015, section 3."""

    def __call__(self, model: nn.Module, layers: Mapping[str, Any], batches: Batches, threat: Threat) -> list[Tensor]:
        return [layer.weight.detach().abs() for layer in layers.values()]
