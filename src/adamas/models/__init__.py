"""Model families, one per file; every model takes [0, 1] pixels, and normalisation is its first layer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from adamas.registry import Choice


class Architecture(ABC):
    """A registered network: its fields choose the variant, `build` makes it with random weights."""

    name: ClassVar[str]

    @abstractmethod
    def build(self, image_shape: tuple[int, int, int], classes: int) -> nn.Module:
        """A network from normalised images (N, *image_shape) to logits (N, classes)."""


AnyModel = Annotated[Architecture, Choice("model")]


class Normalize(nn.Module):
    """(x - mean) / std per channel, as the first layer of a model that takes [0, 1] pixels."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def normalized(net: nn.Module, mean: Sequence[float], std: Sequence[float]) -> nn.Sequential:
    """`net` behind its normalisation, so that the whole takes [0, 1] pixels."""
    return nn.Sequential(OrderedDict(normalize=Normalize(mean, std), net=net))
