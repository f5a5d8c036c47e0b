"""A few images to try a network on."""

from __future__ import annotations

from itertools import chain

from torch import Tensor

from adamas.errors import AdamasError
from adamas.roles import Batches


def example(batches: Batches, why: str, images: int = 4) -> tuple[Tensor, Batches]:
    """The first images, and all batches, the first still among them. Errors: none at all, with the reason they are needed."""
    stream = iter(batches)
    for x, y in stream:
        return x[:images], chain([(x, y)], stream)
    raise AdamasError(f"{why}, got none")
