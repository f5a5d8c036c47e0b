"""The geometry of the threats, by hand and by law."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from adamas.dice import Dice
from adamas.errors import AdamasError
from adamas.threat import L1, L2, Linf


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


@pytest.mark.parametrize("threat", [Linf(eps=0.05), L2(eps=0.7), L1(eps=3.0)])
def test_a_projection_stays_inside_and_moves_nothing_twice(threat):
    x = torch.rand(200, 3, 5, 5)
    once = threat.project(x + torch.randn_like(x), x)
    assert threat.distance(once, x).max() <= threat.eps * (1 + 1e-5) and once.min() >= 0 and once.max() <= 1
    torch.testing.assert_close(threat.project(once, x), once)


@pytest.mark.parametrize("threat", [Linf(eps=0.1), L2(eps=2.0), L1(eps=4.0)])
def test_samples_stay_inside_at_the_edge_of_the_pixel_range(threat):
    x = torch.randint(0, 2, (200, 1, 4, 4)).float()
    x_adv = threat.sample(x, Dice(x))
    assert threat.distance(x_adv, x).max() <= threat.eps * (1 + 1e-5) and x_adv.min() >= 0 and x_adv.max() <= 1
    assert threat.distance(x_adv, x).min() > 0


def test_linf_samples_are_uniform_per_pixel():
    x, dice = torch.full((4000, 1, 2, 2), 0.5), Dice(torch.rand(4000, 1, 2, 2))
    delta = (Linf(eps=0.2).sample(x, dice) - x).flatten().sort().values
    uniform = torch.linspace(-0.2, 0.2, len(delta))
    assert (delta - uniform).abs().max() < 0.4 * 1.63 / math.sqrt(len(delta))  # Kolmogorov-Smirnov at 1 %


def test_l2_samples_are_uniform_in_the_ball():
    x, d = torch.full((4000, 1, 2, 3), 0.5), 6
    delta = (L2(eps=0.3).sample(x, Dice(torch.rand_like(x))) - x).flatten(1)
    share_inside = (delta.norm(dim=1) / 0.3).sort().values ** d  # in a ball of d dimensions P(radius <= r) = r^d
    ranks = torch.linspace(0, 1, len(share_inside))
    assert (share_inside - ranks).abs().max() < 1.63 / math.sqrt(len(ranks))  # Kolmogorov-Smirnov at 1 %
    directions = delta / delta.norm(dim=1, keepdim=True)
    assert directions.mean(0).abs().max() < 4 / math.sqrt(d * len(x))  # no direction is preferred
    torch.testing.assert_close(directions.T @ directions / len(x), torch.eye(d) / d, atol=0.02, rtol=0)


def test_l1_by_hand():
    threat, x = L1(eps=0.6), image(0.2, 0.5, 0.9)
    torch.testing.assert_close(threat.project(image(0.4, 0.6, 0.9), x), image(0.4, 0.6, 0.9))  # inside: left alone
    torch.testing.assert_close(threat.project(image(1.0, 0.7, 0.9), x), image(0.8, 0.5, 0.9))  # .8 and .2, less .2 each
    torch.testing.assert_close(threat.project(image(0.5, 0.8, 9.0), x), image(0.45, 0.75, 1.0))  # the last has room for .1
    torch.testing.assert_close(threat.ascend(x, image(3.0, -4.0, 1.0), 0.1), image(0.2, 0.4, 0.9))
    assert threat.distance(image(0.5, 0.6, 0.7), x).tolist() == pytest.approx([0.6])


def test_the_projection_onto_the_l1_ball_in_the_box_is_the_nearest_point():
    x = torch.rand(20, 1, 3, 4, dtype=torch.float64)
    far = x + torch.randn_like(x)
    near = L1(eps=1.0).project(far, x)
    for _ in range(300):  # no other point of ball and box is nearer
        other = L1(eps=1.0).project(near + 0.05 * torch.randn_like(x), x)
        assert ((other - far).flatten(1).norm(dim=1) >= (near - far).flatten(1).norm(dim=1) - 1e-9).all()


@pytest.mark.parametrize("threat", [Linf(), L2(), L1()])
def test_changes_shrink_to_a_radius_of_their_own(threat):
    x, delta, radius = torch.zeros(6, 2, 3, 3), torch.randn(6, 2, 3, 3), torch.tensor([0.0, 0.01, 0.1, 0.5, 2.0, 1e6])
    shrunk = threat.shrink(delta, radius)
    lengths = threat.distance(shrunk, x)
    assert (lengths <= radius * (1 + 1e-5) + 1e-7).all()
    torch.testing.assert_close(lengths[:4], radius[:4])
    assert torch.equal(shrunk[5], delta[5])


@pytest.mark.parametrize("threat", [Linf(eps=0.01), L2(eps=0.01)])
def test_the_dual_norm_is_what_the_steepest_step_gains(threat):
    x, grad = torch.full((5, 1, 3, 3), 0.5), torch.randn(5, 1, 3, 3)
    gain = ((threat.ascend(x, grad, threat.eps) - x) * grad).flatten(1).sum(1)
    torch.testing.assert_close(gain, threat.eps * threat.dual(grad))
    assert L1().dual(grad).tolist() == pytest.approx(grad.flatten(1).abs().amax(1).tolist())


@pytest.mark.parametrize(
    ("eps", "sentence"),
    [
        (-0.1, r"eps: input should be greater than or equal to 0, got -0\.1"),
        ("8/0", "eps: input should be a valid number, unable to parse string as a number, got '8/0'"),
        ("eight/255", "eps: .*got 'eight/255'"),
        (float("nan"), "eps: input should be a finite number, got nan"),
        (8, r"eps: expected at most 1, the whole range of a pixel of a \[0, 1\] image, got 8\.0; did you mean 8/255\?"),
    ],
)
def test_a_wrong_eps_is_refused(eps, sentence):
    with pytest.raises(AdamasError, match=sentence):
        Linf(eps=eps)
