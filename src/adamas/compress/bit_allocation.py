"""How many bits the codes of each tensor get, when all together have as many as equal bits would take."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from adamas.compress.lloyd import lloyd, nearest

WIDTHS = range(1, 9)


def allocate(values: Sequence[Tensor], bits: int) -> list[int]:
    """Bits for each tensor's values (N,), which are not zero, at no more bits in all than `bits` for each, codebooks included.

    From one bit each on, the step that takes most of the relative squared error away per bit is taken while one fits.
    Source: Gui et al. 2019, code (a multiple-choice knapsack, greedily); Dantzig 1957.
    """
    errors = [[_error(value, width) for width in WIDTHS] for value in values]
    prices = [[_price(len(value), width) for width in WIDTHS] for value in values]
    at = [0] * len(values)
    left = sum(price[bits - 1] - price[0] for price in prices)
    while steps := [
        ((errors[i][at[i]] - errors[i][j]) / (prices[i][j] - prices[i][at[i]]), i, j)
        for i in range(len(values))
        for j in range(at[i] + 1, len(WIDTHS))
        if errors[i][j] < errors[i][at[i]] and prices[i][j] - prices[i][at[i]] <= left
    ]:
        _, i, j = max(steps)
        left -= prices[i][j] - prices[i][at[i]]
        at[i] = j
    return [WIDTHS[j] for j in at]


def _price(count: int, width: int) -> int:
    return count * width + 32 * min(2**width, count)


def _error(values: Tensor, width: int) -> float:
    if not len(values):
        return 0.0
    away = nearest(values, lloyd(values, 2**width, 20)) - values
    return float(away.square().sum() / values.square().sum())
