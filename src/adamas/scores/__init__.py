"""How important single weights are, one rule per file; masks keep the highest scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adamas.errors import AdamasError
from adamas.graph import modes_kept
from adamas.registry import Choice
from adamas.roles import Batches, Threat
from adamas.weights import original


class Scores(ABC):
    """Ranks the weights of some layers."""

    name: ClassVar[str]
    learned: ClassVar[bool] = False
    """Whether training goes on with the scores, the weights standing still."""

    @abstractmethod
    def __call__(self, model: nn.Module, layers: Mapping[str, Any], batches: Batches, threat: Threat) -> list[Tensor]:
        """One tensor per layer, shaped like its weight; higher means more important."""


AnyScores = Annotated[Scores, Choice("score")]


def first_images(batches: Batches, images: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of the first so many training images. Errors: no batch at all."""
    left, seen = images, False
    for x, y in islice(batches, images):
        seen = True
        yield x[:left], y[:left]
        left -= len(x)
        if left <= 0:
            return
    if not seen:
        raise AdamasError("scores: expected training images to compute gradients on, got none")


def summed_gradients(model: nn.Module, layers: Mapping[str, Any], batches: Batches) -> list[Tensor]:
    """The gradient of the summed cross-entropy with respect to every layer's weight, the model in eval mode.

    Errors: a layer that the loss does not depend on; gradients that are not finite, or zero everywhere.
    """
    weights = [original(layer) for layer in layers.values()]
    frozen = [weight for weight in weights if not weight.requires_grad]
    sums = [torch.zeros_like(weight) for weight in weights]
    with modes_kept(model):
        model.eval()
        try:
            for weight in frozen:
                weight.requires_grad_(True)
            for x, y in batches:
                with torch.enable_grad():
                    loss = F.cross_entropy(model(x), y, reduction="sum")
                for name, total, grad in zip(layers, sums, torch.autograd.grad(loss, weights, allow_unused=True), strict=True):
                    if grad is None:
                        raise AdamasError(f"scores: expected a gradient in every pruned layer, got none in {name}; exclude it")
                    total += grad
        finally:
            for weight in frozen:
                weight.requires_grad_(False)
    for name, total in zip(layers, sums, strict=True):
        if not total.isfinite().all():
            raise AdamasError(f"scores: expected finite gradients, got others in {name}; look at the model's logits")
    if not any(total.any() for total in sums):
        raise AdamasError(
            f"scores: expected gradients to rank weights by, got zero from {next(iter(layers))} on; a model that returns "
            "probabilities instead of logits saturates so"
        )
    return sums
