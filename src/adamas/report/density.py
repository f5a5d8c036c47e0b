"""How much of an artifact's network is left, counted on the weights as shipped against the network before any surgery."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adamas.artifact import Artifact
from adamas.channels import weight_layers
from adamas.compress.admm import ADMM
from adamas.compress.admm_filters import ADMMFilters
from adamas.compress.filters import Filters
from adamas.compress.prune import Prune
from adamas.models import normalized
from adamas.report.taxonomy import pruning
from adamas.roles import Compressor

TOLERANCE = 0.01
"""Share of the target by which a count may differ from it, if that is more than one weight or channel."""


@dataclass(frozen=True)
class Layer:
    """One convolution or linear layer: weights when dense, weights that are not zero as shipped, channels of both."""

    layer: str
    weights: int
    nonzeros: int
    channels: int
    kept: int
    convolution: bool
    excluded: bool


@dataclass(frozen=True)
class Density:
    """What is left of the prunable weights; everything is counted, only `target` is what was asked for.

    `unit`: weights, or channels of convolutions where whole filters go. `density`: the share left of all layers; `verified`:
    of those that the pruner was given, which `target` speaks of (None where no keep in this unit was). Biases and norms do not
    count.
    """

    unit: str
    target: float | None
    verified: float
    agree: bool | None
    density: float
    weights: int
    nonzeros: int
    layers: list[Layer]

    @property
    def sparsity(self) -> float:
        """The share of the network that is gone, in its unit."""
        return 1 - self.density


def density(artifact: Artifact, model: nn.Module) -> Density:
    """Count `model`, the artifact's, layer by layer; masked and quantized weights at the values that ship."""
    stages = artifact.recipe.stages
    compressors = [stages[i].compress for i in pruning(stages)]
    layers = _layers(_dense(artifact), model, compressors)
    unit = "channels" if compressors and all(isinstance(part, Filters | ADMMFilters) for part in compressors) else "weights"
    whole, left = _totals(layers, unit)
    given, stayed = _totals([layer for layer in layers if not layer.excluded], unit)
    target = _target(compressors)
    agree = None if target is None else abs(stayed - target * given) <= max(1, TOLERANCE * target * given)
    weights, nonzeros = _totals(layers, "weights")
    return Density(unit, target, stayed / given, agree, left / whole, weights, nonzeros, layers)


def _dense(artifact: Artifact) -> nn.Module:
    """The network as the recipe builds it, without values."""
    shape = artifact.card["image_shape"]
    with torch.device("meta"):
        return normalized(artifact.recipe.model.build(tuple(shape), len(artifact.card["classes"])), [0.0], [1.0])  # type: ignore[union-attr]


@torch.no_grad()
def _layers(dense: nn.Module, model: nn.Module, compressors: Sequence[Compressor | None]) -> list[Layer]:
    """Layers whose weight is trained, by the names that the pruners know them by; `excluded`: no pruner was given it."""
    layers = {name: layer for name, layer in weight_layers(dense).items() if isinstance(layer.weight, nn.Parameter)}
    given = {name for part in compressors for name in weight_layers(dense, getattr(part, "exclude", ()))} or layers.keys()
    found = []
    for name, layer in layers.items():
        weight: Tensor = model.get_submodule(name).weight  # type: ignore[assignment]
        convolution, nonzeros = not isinstance(layer, nn.Linear), int(weight.count_nonzero())
        sizes = layer.weight.numel(), nonzeros, len(layer.weight), len(weight)
        found.append(Layer(name, *sizes, convolution=convolution, excluded=name not in given))
    return found


def _totals(layers: Sequence[Layer], unit: str) -> tuple[int, int]:
    """How many weights (or channels of convolutions) there were, and how many there are."""
    if unit == "weights":
        return sum(layer.weights for layer in layers), sum(layer.nonzeros for layer in layers)
    convolutions = [layer for layer in layers if layer.convolution]
    return sum(layer.channels for layer in convolutions), sum(layer.kept for layer in convolutions)


def _target(compressors: Sequence[Any]) -> float | None:
    """The share that the stages were asked to keep; None where they speak of different units, layers or of operations."""
    if not compressors:
        return 1.0
    if all(
        isinstance(part, ADMMFilters) or (isinstance(part, Filters) and part.rates.name == "uniform") for part in compressors
    ):
        return math.prod(part.keep for part in compressors)  # each of what the one before it left
    masked = all(isinstance(part, ADMM) or (isinstance(part, Prune) and part.budget == "weights") for part in compressors)
    alike = len({part.exclude for part in compressors}) == 1 if masked else False
    return min(part.keep for part in compressors) if alike else None
