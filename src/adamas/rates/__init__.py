"""How much of every layer stays, one rule per file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, ClassVar

from torch import Tensor

from adamas.registry import Choice


class Rates(ABC):
    """Divides a budget of weights among layers."""

    name: ClassVar[str]

    @abstractmethod
    def __call__(self, weights: Sequence[Tensor], scores: Sequence[Tensor], keep: float) -> list[float]:
        """The share in [0, 1] of every layer that stays, so that about `keep` of all weights do."""


AnyRates = Annotated[Rates, Choice("rate")]


def filled(shares: Sequence[float], sizes: Sequence[int], keep: float) -> list[float]:
    """The multiple of `shares`, none above 1, that keeps `keep` of all weights."""
    full: set[int] = set()
    while True:
        free = keep * sum(sizes) - sum(sizes[i] for i in full)
        scale = free / max(
            sum(share * size for i, (share, size) in enumerate(zip(shares, sizes, strict=True)) if i not in full), 1e-30
        )
        over = {i for i, share in enumerate(shares) if i not in full and scale * share > 1}
        if not over:
            return [1.0 if i in full else scale * share for i, share in enumerate(shares)]
        full |= over
