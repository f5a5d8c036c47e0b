"""Random numbers of each image's own."""

from __future__ import annotations

import math

import pytest
import torch

from adamas.dice import Dice

X = torch.rand(50, 3, 4, 4, generator=torch.Generator().manual_seed(1))


def test_an_image_throws_the_same_whatever_batch_and_place_it_has():
    whole = Dice(X, 7)
    first, second = whole.uniform((3, 5)), whole.normal((2,))
    for rows in (torch.tensor([4]), torch.tensor([31, 2, 7]), torch.arange(49, -1, -1)):
        some = Dice(X[rows], 7)
        assert torch.equal(some.uniform((3, 5)), first[rows]) and torch.equal(some.normal((2,)), second[rows])


def test_rows_of_a_stream_go_on_with_it_and_in_step():
    whole, again = Dice(X, 7), Dice(X, 7)
    whole.uniform((2,)), again.uniform((2,))
    rows = torch.tensor([3, 8])
    assert torch.equal(whole[rows].uniform((4,)), again.uniform((4,))[rows])
    assert torch.equal(whole.uniform((4,)), again.uniform((4,)))


def test_images_seeds_and_throws_differ():
    dice = Dice(X, 7)
    one, two = dice.uniform((100,)), dice.uniform((100,))
    other = Dice(X, 8).uniform((100,))
    assert len({*one[:, 0].tolist()}) == len(X)
    for a, b in ((one, two), (one, other), (one[:-1], one[1:])):
        assert (a == b).float().mean() < 0.01
        assert abs(float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])) < 0.06


def test_without_a_seed_the_global_stream_decides():
    def thrown() -> torch.Tensor:
        return Dice(X).uniform((2,))

    torch.manual_seed(3)
    first, second = thrown(), thrown()
    torch.manual_seed(3)
    assert torch.equal(thrown(), first) and not torch.equal(first, second)


def test_the_distributions_are_the_named_ones():
    dice = Dice(torch.rand(2000, 1, 2, 2), 5)
    uniform, normal = dice.uniform((10,)).flatten(), dice.normal((10,)).flatten()
    assert uniform.min() >= 0 and uniform.max() < 1
    ranks = torch.linspace(0, 1, len(uniform))
    assert (uniform.sort().values - ranks).abs().max() < 1.63 / math.sqrt(len(ranks))  # Kolmogorov-Smirnov at 1 %
    assert (torch.special.ndtr(normal).sort().values - ranks).abs().max() < 1.63 / math.sqrt(len(ranks))
    counts = dice.below(torch.tensor(5), (10,)).flatten().bincount(minlength=5)
    assert counts.numel() == 5 and ((counts - 4000).abs() < 4 * math.sqrt(4000 * 0.8)).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_any_dtype_will_do(dtype):
    assert Dice(X.to(dtype), 1).uniform((2,)).shape == (50, 2)
