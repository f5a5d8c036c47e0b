"""The gradient of the loss on clean images, alone or times the weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from adamas.registry import Count, register
from adamas.roles import Batches, Threat
from adamas.scores import Scores, first_images, summed_gradients


@register("score", "gradient")
class Gradient(Scores):
    """|sum of gradients| over so many training `images`, the model in eval mode.

    Source: O'Brien Weiss et al., gradient pruning (global and layer-wise).
    """

    images: Count = 4096

    def __call__(self, model: nn.Module, layers: Mapping[str, Any], batches: Batches, threat: Threat) -> list[Tensor]:
        return [grad.abs() for grad in summed_gradients(model, layers, first_images(batches, self.images))]


@register("score", "taylor")
class Taylor(Scores):
    """|w * sum of gradients|: the change of the loss, to first order, if the weight goes.

    Source: Molchanov et al. 2017, equation 7; Blalock et al. 2020, which call it gradient pruning. Deviation: `images`
    training images in eval mode, where theirs take one batch in train mode.
    """

    images: Count = 4096

    def __call__(self, model: nn.Module, layers: Mapping[str, Any], batches: Batches, threat: Threat) -> list[Tensor]:
        grads = summed_gradients(model, layers, first_images(batches, self.images))
        return [(layer.weight.detach() * grad).abs() for layer, grad in zip(layers.values(), grads, strict=True)]
