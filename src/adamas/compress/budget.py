"""From keep-rates to whole numbers of weights that meet a budget exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence

from adamas.errors import AdamasError


def exact(rates: Sequence[float], sizes: Sequence[int], prices: Sequence[int], keep: float) -> list[int]:
    """How many of its `sizes` weights each layer keeps: near its rate, at least one, at most `keep` of the cost of all.

    `prices`: cost of one weight of a layer. All rates are scaled by one factor until the budget is reached, then single
    weights go to the layers that rounding down cost the most, while one is affordable.
    Errors: a budget below one weight per layer.
    """
    whole = sum(size * price for size, price in zip(sizes, prices, strict=True))
    budget, least = round(keep * whole), sum(prices)
    if budget < least:
        raise AdamasError(
            f"keep: expected at least one weight in each of {len(sizes)} layers, got {budget:,} of {whole:,} at keep {keep:g}; "
            f"the smallest keep is {least / whole:.2g}"
        )

    rates = [max(rate, 1 / size) for rate, size in zip(rates, sizes, strict=True)]

    def at(factor: float) -> list[int]:
        return [min(size, max(1, math.floor(factor * rate * size + 1e-6))) for rate, size in zip(rates, sizes, strict=True)]

    def costs(counts: Sequence[int]) -> int:
        return sum(count * price for count, price in zip(counts, prices, strict=True))

    low, high = 0.0, 1 / min(rates)
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if costs(at(middle)) <= budget else (low, middle)
    counts = at(low)
    while affordable := [i for i, count in enumerate(counts) if count < sizes[i] and prices[i] <= budget - costs(counts)]:
        best = max(affordable, key=lambda i: low * rates[i] * sizes[i] - counts[i])
        counts[best] += 1
    return counts
