"""The geometry of the threats, by hand and by law."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from adamas.errors import AdamasError
from adamas.threat import L2, Linf


def image(*pixels: float) -> Tensor:
    return torch.tensor(pixels).view(1, 1, 1, -1)


def test_linf_by_hand():
    threat, x = Linf(eps="1/10"), image(0.0, 0.5, 0.95, 1.0)
    assert threat.eps == 0.1
    torch.testing.assert_close(threat.project(image(0.3, 0.55, 2.0, -1.0), x), image(0.1, 0.55, 1.0, 0.9))
    torch.testing.assert_close(threat.project(image(-0.05, 0.0, 0.9, 1.0), x), image(0.0, 0.4, 0.9, 1.0))
    torch.testing.assert_close(threat.ascend(x, image(5.0, -0.001, 0.0, 1.0), 0.25), image(0.25, 0.25, 0.95, 1.25))
    assert threat.distance(image(0.3, 0.1, 0.95, 1.0), x).tolist() == pytest.approx([0.4])


def test_l2_by_hand():
    threat, x = L2(eps=0.5), image(0.2, 0.2)
    torch.testing.assert_close(threat.project(image(0.8, 1.0), x), image(0.5, 0.6))  # delta (.6, .8) of length 1, halved
    torch.testing.assert_close(threat.project(image(0.4, 0.3), x), image(0.4, 0.3))  # inside: left alone
    torch.testing.assert_close(threat.project(image(-0.4, 1.0), x), image(0.0, 0.6))  # (-.1, .6), then into [0, 1]
    torch.testing.assert_close(threat.ascend(x, image(3.0, -4.0), 0.1), image(0.26, 0.12))
    assert torch.equal(threat.ascend(x, image(0.0, 0.0), 0.1), x)
    assert threat.distance(image(0.5, 0.6), x).tolist() == pytest.approx([0.5])


@pytest.mark.parametrize("threat", [Linf(eps=0.05), L2(eps=0.7)])
def test_a_projection_stays_inside_and_moves_nothing_twice(threat):
    x = torch.rand(200, 3, 5, 5)
    once = threat.project(x + torch.randn_like(x), x)
    assert threat.distance(once, x).max() <= threat.eps * (1 + 1e-5) and once.min() >= 0 and once.max() <= 1
    torch.testing.assert_close(threat.project(once, x), once)


@pytest.mark.parametrize("threat", [Linf(eps=0.1), L2(eps=2.0)])
def test_samples_stay_inside_at_the_edge_of_the_pixel_range(threat):
    x = torch.randint(0, 2, (200, 1, 4, 4)).float()
    x_adv = threat.sample(x)
    assert threat.distance(x_adv, x).max() <= threat.eps * (1 + 1e-5) and x_adv.min() >= 0 and x_adv.max() <= 1
    assert threat.distance(x_adv, x).min() > 0


def test_linf_samples_are_uniform_per_pixel():
    x = torch.full((4000, 1, 2, 2), 0.5)
    delta = (Linf(eps=0.2).sample(x) - x).flatten().sort().values
    uniform = torch.linspace(-0.2, 0.2, len(delta))
    assert (delta - uniform).abs().max() < 0.4 * 1.63 / math.sqrt(len(delta))  # Kolmogorov-Smirnov at 1 %


def test_l2_samples_are_uniform_in_the_ball():
    x, d = torch.full((4000, 1, 2, 3), 0.5), 6
    delta = (L2(eps=0.3).sample(x) - x).flatten(1)
    share_inside = (delta.norm(dim=1) / 0.3).sort().values ** d  # in a ball of d dimensions P(radius <= r) = r^d
    ranks = torch.linspace(0, 1, len(share_inside))
    assert (share_inside - ranks).abs().max() < 1.63 / math.sqrt(len(ranks))  # Kolmogorov-Smirnov at 1 %
    directions = delta / delta.norm(dim=1, keepdim=True)
    assert directions.mean(0).abs().max() < 4 / math.sqrt(d * len(x))  # no direction is preferred
    torch.testing.assert_close(directions.T @ directions / len(x), torch.eye(d) / d, atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("eps", "sentence"),
    [
        (-0.1, r"eps: input should be greater than or equal to 0, got -0\.1"),
        ("8/0", "eps: input should be a valid number, unable to parse string as a number, got '8/0'"),
        ("eight/255", "eps: .*got 'eight/255'"),
        (float("nan"), "eps: input should be a finite number, got nan"),
    ],
)
def test_a_wrong_eps_is_refused(eps, sentence):
    with pytest.raises(AdamasError, match=sentence):
        Linf(eps=eps)
