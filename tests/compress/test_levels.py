"""Projections against every possible choice of levels, and the errors that theory gives for normal weights."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from adamas.compress.levels import project, width


def best_error(weight: torch.Tensor, levels: tuple[int, ...]) -> float:
    """The least squared error of scale * codes over all codes, with the best scale for each."""
    codes = torch.tensor(list(product(levels, repeat=len(weight))), dtype=torch.float64)
    energy = codes.square().sum(1).clamp_min(1)
    scale = (codes @ weight.double() / energy).clamp_min(0)
    return float((weight - scale[:, None] * codes).square().sum(1).min())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("levels", "codes"), [("binary", (-1, 1)), ("ternary", (-1, 0, 1))])
def test_exact_projections_equal_brute_force(levels, codes, seed):
    weight = torch.randn(7, generator=torch.Generator().manual_seed(seed))
    error = float((project(weight[:, None], levels, 4, False).flatten() - weight).square().sum())
    assert error == pytest.approx(best_error(weight, codes), rel=1e-5)


@pytest.mark.parametrize(
    ("levels", "expected"), [("binary", 0.3634), ("ternary", 0.190), ("ternary_paper", 0.335), ("uniform", 0.018)]
)
def test_errors_on_normal_weights_are_those_of_theory(levels, expected):
    weight = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0))
    error = (project(weight, levels, 4, False) - weight).square().sum() / weight.square().sum()
    assert float(error) == pytest.approx(expected, abs=0.01)


def test_by_hand():
    weight = torch.tensor([[3.0, -1.0, 0.0, 0.5]])
    assert torch.equal(project(weight, "binary", 4, False), torch.tensor([[1.125, -1.125, 1.125, 1.125]]))
    assert torch.equal(project(weight, "ternary", 4, False), torch.tensor([[3.0, 0, 0, 0]]))  # 9 > 16 / 2 > 20.25 / 3
    # .7 * mean is .7875: 3 and -1 stay, at (3 + 1) / 4 where least squares has (3 + 1) / 2
    assert torch.equal(project(weight, "ternary_paper", 4, False), torch.tensor([[1.0, -1, 0, 0]]))


@pytest.mark.parametrize(
    ("levels", "bits", "most"), [("binary", 4, 2), ("ternary", 4, 3), ("uniform", 4, 15), ("uniform", 2, 3)]
)
@pytest.mark.parametrize("per_channel", [False, True])
def test_so_many_values_that_projecting_again_leaves_alone(levels, bits, most, per_channel):
    weight = torch.randn(3, 40, 3, 3, generator=torch.Generator().manual_seed(1))
    near = project(weight, levels, bits, per_channel)
    for rows in near if per_channel else [near]:
        assert len(rows.unique()) <= most
    assert per_channel == (len(near.unique()) > most)
    torch.testing.assert_close(project(near, levels, bits, per_channel), near)


def test_uniform_levels_get_no_farther_than_one_pass():
    weight = torch.randn(2000, 1, generator=torch.Generator().manual_seed(2))
    scale = 2 * weight.abs().max() / 15
    codes = (weight.abs() / scale).round().clamp(max=7)
    once = weight.sign() * codes * (weight.abs() * codes).sum() / codes.square().sum()
    assert (project(weight, "uniform", 4, False) - weight).square().sum() <= (once - weight).square().sum()


@pytest.mark.parametrize("levels", ["binary", "ternary", "ternary_paper", "uniform"])
def test_zeros_alone_stay_zeros(levels):
    near = project(torch.zeros(2, 3), levels, 4, True)
    assert torch.equal(near, torch.zeros(2, 3))


def test_hidden_weights_do_not_count():
    weight = torch.tensor([[2.0, 0.0, -4.0, 0.0]])
    assert torch.equal(project(weight, "binary", 4, False, hidden=True), torch.tensor([[3.0, 0, -3, 0]]))


def test_widths():
    assert [width(levels, 5) for levels in ("binary", "ternary", "ternary_paper", "uniform")] == [1, 2, 2, 5]
