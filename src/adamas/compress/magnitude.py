"""Magnitude pruning: a mask on every weight tensor, with an exact budget of weights."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from adamas.errors import AdamasError
from adamas.registry import Share, register
from adamas.roles import Batches, Compressor, Threat
from adamas.surgery import weight_layers


class Mask(nn.Module):
    """Multiplies a weight by a mask of the same shape, so that masked weights are zero whatever the optimiser does."""

    mask: Tensor

    def __init__(self, weight: Tensor):
        super().__init__()
        self.register_buffer("mask", torch.ones_like(weight, dtype=torch.bool))

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight


@register("compressor", "magnitude")
class Magnitude(Compressor):
    """Sets the smallest weights of convolutions and linear layers to zero and keeps them there.

    `keep` is the share of weights that remains: of all prunable weights together (`scope` global, at least one in every
    layer) or of each layer. `exclude` names layers left dense, as names or patterns. Biases and norms are not pruned.
    The number kept is exactly round(keep * total); among equal magnitudes the first stay.
    Source: Han et al. 2015, section 3; global ranking as in Blalock et al. 2020. Deviation: one shot, no iterations.
    """

    keep: Share = 0.1
    scope: Literal["global", "layer"] = "global"
    exclude: tuple[str, ...] = ()

    def attach(self, model: nn.Module) -> None:
        layers = weight_layers(model, self.exclude)
        if not layers:
            raise AdamasError("magnitude: expected at least one convolution or linear layer to prune, got none")
        for layer in layers.values():
            parametrize.register_parametrization(layer, "weight", Mask(layer.weight))

    def calibrate(self, model: nn.Module, batches: Batches, threat: Threat) -> None:
        """Rank the weights as they are now; no data is read."""
        layers = weight_layers(model, self.exclude).values()
        scores = [layer.weight.detach().abs() for layer in layers]
        together = [scores] if self.scope == "global" else [[score] for score in scores]
        masks = [mask for part in together for mask in largest(part, self.keep)]
        for layer, mask in zip(layers, masks, strict=True):
            _mask_of(layer).mask.copy_(mask)


def largest(scores: list[Tensor], keep: float) -> list[Tensor]:
    """Boolean masks of the round(keep * total) highest scores over all tensors together, at least one in each tensor.

    Errors: fewer than one per tensor, unless there is only one tensor.
    """
    total = sum(score.numel() for score in scores)
    budget = max(round(keep * total), 1)
    if budget < len(scores):
        raise AdamasError(
            f"keep: expected at least one weight in each of {len(scores)} layers, got {budget} of {total:,} at keep {keep:g}; "
            f"the smallest keep is {len(scores) / total:.2g}"
        )
    flat = [score.flatten().clone() for score in scores]
    for score in flat:
        score[score.argmax()] = torch.inf
    mask = torch.zeros(total, dtype=torch.bool, device=flat[0].device)
    mask[torch.cat(flat).argsort(descending=True, stable=True)[:budget]] = True
    parts = mask.split([score.numel() for score in scores])
    return [part.view_as(score) for part, score in zip(parts, scores, strict=True)]


def _mask_of(layer: nn.Module) -> Mask:
    """The mask attached last; earlier stages may have left their own underneath."""
    return [module for module in layer.parametrizations.weight if isinstance(module, Mask)][-1]  # type: ignore[union-attr]
