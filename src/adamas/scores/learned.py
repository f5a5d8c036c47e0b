"""Scores that are trained, by whatever objective the stage has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from adamas.registry import register
from adamas.roles import Batches, Threat
from adamas.scores import Scores


@register("score", "learned")
class Learned(Scores):
    """Trained by the stage's objective while the weights stand still, starting from the weights scaled to each layer.

    The start is sqrt(6 / fan-in) * w / max |w|, so the first mask is that of magnitudes; ranked is the absolute score.
    Source: Sehwag et al. 2020 (HYDRA), section 3.
    """

    learned: ClassVar[bool] = True

    def __call__(self, model: nn.Module, layers: Mapping[str, Any], batches: Batches, threat: Threat) -> list[Tensor]:
        return [scaled(layer.weight.detach()) for layer in layers.values()]


def scaled(weight: Tensor) -> Tensor:
    """A layer's weights brought to the range of a Kaiming uniform initialisation."""
    return (6 / weight[0].numel()) ** 0.5 * weight / weight.abs().max().clamp_min(torch.finfo(weight.dtype).tiny)
