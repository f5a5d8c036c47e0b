"""Whole numbers of weights that meet a budget exactly."""

from __future__ import annotations

import random

import pytest

from adamas.compress.budget import exact
from adamas.errors import AdamasError


@pytest.mark.parametrize("seed", range(30))
def test_the_budget_is_met_to_the_weight(seed):
    draw = random.Random(seed)
    sizes = [draw.randint(1, 4000) for _ in range(draw.randint(1, 8))]
    rates = [draw.choice([0.0, draw.random() ** 4, 1.0]) for _ in sizes]
    keep = max(draw.random(), len(sizes) / sum(sizes))
    counts = exact(rates, sizes, [1] * len(sizes), keep)
    assert sum(counts) == max(round(keep * sum(sizes)), len(sizes))
    assert all(1 <= count <= size for count, size in zip(counts, sizes, strict=True))


def test_rates_that_meet_the_budget_stay_as_they_are():
    assert exact([0.5, 0.01, 0.1], [10, 1000, 50], [1, 1, 1], 20 / 1060) == [5, 10, 5]


def test_rates_beside_the_budget_are_scaled_and_capped():
    assert exact([0.9, 0.3], [100, 100], [1, 1], 0.3) == [45, 15]
    assert exact([0.9, 0.3], [100, 100], [1, 1], 0.75) == [100, 50]


def test_prices_count():
    """100 weights used 9 times, 100 used once; half of the 1,000 multiplications."""
    assert exact([0.5, 0.5], [100, 100], [9, 1], 0.5) == [50, 50]
    assert exact([1.0, 0.1], [100, 100], [9, 1], 0.455) == [50, 5]


def test_less_than_a_weight_per_layer_is_refused():
    with pytest.raises(AdamasError) as error:
        exact([0.5, 0.5, 0.5], [10, 10, 10], [1, 1, 1], 0.05)
    assert str(error.value) == (
        "keep: expected at least one weight in each of 3 layers, got 2 of 30 at keep 0.05; the smallest keep is 0.1"
    )
