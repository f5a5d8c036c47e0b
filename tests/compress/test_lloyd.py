"""Exact one-dimensional k-means: hand-computed centres, falling distortion, and no centre lost."""

from __future__ import annotations

from itertools import pairwise

import torch

from adamas.compress.lloyd import lloyd, nearest

VALUES = torch.randn(2000, generator=torch.Generator().manual_seed(0))


def distortion(centres: torch.Tensor) -> float:
    return float((nearest(VALUES, centres) - VALUES).square().sum())


def test_centres_by_hand():
    values = torch.tensor([5.5, 0, 1, 5, 1, 0, 5])
    torch.testing.assert_close(lloyd(values, torch.tensor([0.0, 1, 5])), torch.tensor([0, 1, 31 / 6]))
    # from 0 and 2 the border is 1, whose values belong to the lower one
    torch.testing.assert_close(lloyd(values, torch.tensor([2.0, 0]), iterations=1), torch.tensor([0.5, 31 / 6]))


def test_no_iteration_makes_it_worse_and_the_end_is_a_fixed_point():
    centres = torch.linspace(-1, 1, 8)
    errors = []
    for _ in range(30):
        errors.append(distortion(centres))
        centres = lloyd(VALUES, centres, iterations=1)
    assert all(after <= before + 1e-3 for before, after in pairwise(errors))
    settled = lloyd(VALUES, 8, iterations=1000)
    torch.testing.assert_close(lloyd(VALUES, settled, iterations=1), settled)
    assert errors[0] > 2 * distortion(settled)


def test_it_equals_the_plain_algorithm():
    centres = torch.linspace(-2, 2, 5, dtype=torch.float64)
    for _ in range(7):
        codes = (VALUES[:, None].double() - centres).abs().argmin(1)
        centres = torch.stack([VALUES[codes == k].double().mean() for k in range(5)])
    torch.testing.assert_close(lloyd(VALUES, torch.linspace(-2, 2, 5), iterations=7), centres.float())


def test_as_many_centres_as_different_values_are_these():
    values = torch.tensor([1.0, 2, 2, 4, 8])
    assert torch.equal(lloyd(values, 4).unique(), torch.tensor([1.0, 2, 4, 8]))
    assert torch.equal(nearest(values, lloyd(values, 16)), values)


def test_a_centre_without_values_goes_where_the_error_is_largest():
    values = torch.tensor([0.0, 1, 10, 10])
    assert torch.equal(lloyd(values, torch.tensor([0.0, 99, 100])).unique(), torch.tensor([0.0, 1, 10]))


def test_the_nearest_centre_of_every_shape():
    assert torch.equal(nearest(torch.tensor([[0.4, 0.6], [-9, 9]]), torch.tensor([1.0, 0])), torch.tensor([[0.0, 1], [0, 1]]))
