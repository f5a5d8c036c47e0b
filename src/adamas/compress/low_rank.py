"""Low rank: every weight becomes a product of two thin matrices, by the largest singular values of all layers together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from adamas.compress.factors import factor, factored, matrix
from adamas.errors import AdamasError
from adamas.registry import Share, register
from adamas.roles import Batches, Compressor, Threat
from adamas.surgery import weight_layers
from adamas.weights import original


@register("compressor", "low_rank")
class LowRank(Compressor):
    """Replaces weights by B A, which train from then on, keeping `keep` of the singular values of all layers, the largest.

    Every layer keeps at least one. B = U sqrt(S) and A = sqrt(S) V'. `exclude` names layers that stay as they are, as grouped
    convolutions do.
    Source: Gui et al. 2019, baseline ALR, and code.
    """

    keep: Share = 0.1
    exclude: tuple[str, ...] = ()

    def attach(self, model: nn.Module) -> None:
        """Factors of rank one: the ranks are in the shapes of the saved factors."""
        layers = self._layers(model)
        if not layers:
            raise AdamasError("low_rank: expected at least one convolution or linear layer that is not factored, got none")
        for layer in layers:
            factor(layer, 1)

    @torch.no_grad()
    def calibrate(self, model: nn.Module, batches: Batches, threat: Threat) -> None:
        """Choose the ranks and set the factors; no data is read."""
        layers = self._factored(model)
        weights = [layer.parametrizations.weight.original for layer in layers]
        parts = [torch.linalg.svd(matrix(weight), full_matrices=False) for weight in weights]
        pooled = torch.cat([values for _, values, _ in parts])
        least = pooled.sort(descending=True).values[max(1, int(self.keep * len(pooled))) - 1]
        for layer, weight, (left, values, right) in zip(layers, weights, parts, strict=True):
            rank = max(1, int((values >= least).sum()))
            root = values[:rank].sqrt()
            factors: Any = factored(layer)
            factors.b, factors.a = _trained(left[:, :rank] * root), _trained(root[:, None] * right[:rank])
            weight.zero_()

    def _layers(self, model: nn.Module) -> list[Any]:
        layers: Any = weight_layers(model, self.exclude).values()
        return [layer for layer in layers if original(layer).requires_grad and getattr(layer, "groups", 1) == 1]

    def _factored(self, model: nn.Module) -> list[Any]:
        return [layer for layer in weight_layers(model, self.exclude).values() if (found := factored(layer)) and found.low]


def _trained(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.contiguous())
