"""The nearest image on a plane, against linear programs, bisection and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from adamas.threat import L1, L2, Linf

THREATS = {"linf": Linf(), "l2": L2(), "l1": L1()}


def rows(count: int, pixels: int, share: float) -> tuple[Tensor, Tensor, Tensor]:
    """Images with pixels at both ends, heavy-tailed weights with zeros, planes at a share of the way to the furthest corner."""
    x = (torch.rand(count, 1, 1, pixels) * 1.6 - 0.3).clamp(0, 1)
    w = torch.randn_like(x) ** 3 * (torch.rand_like(x) > 0.1)
    w[:, ..., 0] = 1.0
    x[:, ..., 0] = 0.5
    sign = torch.where(torch.arange(count) % 2 == 0, 1.0, -1.0)
    way = w * sign.view(-1, 1, 1, 1)
    gain = (way * ((way > 0).float() - x)).flatten(1).sum(1) * share
    return x, w, -((w * x).flatten(1).sum(1) + sign * gain)


def off(z: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """How far <w, z> + b is from zero, in units of what rounding costs."""
    return ((w * z).flatten(1).double().sum(1) + b).abs() / w.flatten(1).abs().sum(1)


def least_by_program(norm: str, x: np.ndarray, w: np.ndarray, b: float) -> float:
    """The smallest distance by a linear program over (z, change of every pixel or the largest)."""
    n = len(x)
    bounds_of = np.eye(n) if norm == "l1" else np.ones((n, 1))
    extra = bounds_of.shape[1]
    above, below = np.hstack([np.eye(n), -bounds_of]), np.hstack([-np.eye(n), -bounds_of])
    found = linprog(
        np.r_[np.zeros(n), np.ones(extra)], A_ub=np.vstack([above, below]), b_ub=np.r_[x, -x],
        A_eq=np.r_[w, np.zeros(extra)][None], b_eq=[-b], bounds=[(0, 1)] * n + [(0, None)] * extra,
    )  # fmt: skip
    assert found.status == 0
    return found.fun


def least_by_bisection(x: np.ndarray, w: np.ndarray, b: float) -> float:
    """The smallest Euclidean distance: z = clip(x + t * way) with the t that meets the plane."""
    way, low, high = w * -np.sign(w @ x + b), 0.0, 1e9
    for _ in range(200):
        t = (low + high) / 2
        short = way @ (np.clip(x + t * way, 0, 1) - x) < abs(w @ x + b)
        low, high = (t, high) if short else (low, t)
    return float(np.linalg.norm(np.clip(x + high * way, 0, 1) - x))


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.95])
@pytest.mark.parametrize("norm", THREATS)
def test_the_image_is_on_the_plane_in_the_box_and_nearest(norm, share):
    x, w, b = rows(12, 40, share)
    z = THREATS[norm].to_plane(x, w, b)
    assert z.shape == x.shape and z.min() >= 0 and z.max() <= 1
    assert off(z, w, b).max() < 1e-6
    assert torch.equal(z[w == 0], x[w == 0])
    distance = THREATS[norm].distance(z, x)
    for row, away in enumerate(distance.tolist()):
        problem = x[row].double().flatten().numpy(), w[row].double().flatten().numpy(), float(b[row])
        least = least_by_bisection(*problem) if norm == "l2" else least_by_program(norm, *problem)
        assert away == pytest.approx(least, rel=1e-5, abs=2e-6)


@pytest.mark.parametrize("norm", THREATS)
def test_long_rows_meet_the_plane(norm):
    for share in (0.01, 0.2, 0.7, 0.99):
        x, w, b = rows(40, 3072, share)
        assert off(THREATS[norm].to_plane(x, w, b), w, b).max() < 1e-6


def test_by_hand():
    x, w, b = torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 3.0]]), torch.tensor([-2.8])  # .8 missing
    torch.testing.assert_close(Linf().to_plane(x, w, b), torch.tensor([[0.7, 0.7]]))
    torch.testing.assert_close(L2().to_plane(x, w, b), torch.tensor([[0.58, 0.74]]))
    torch.testing.assert_close(L1().to_plane(x, w, b), torch.tensor([[0.5, 0.5 + 0.8 / 3]]))
    x, b = torch.tensor([[0.5, 0.9]]), torch.tensor([-3.8])  # .6 missing, and the second pixel has .1 left: .3 of it
    for threat in THREATS.values():
        torch.testing.assert_close(threat.to_plane(x, w, b), torch.tensor([[0.8, 1.0]]))


@pytest.mark.parametrize("norm", THREATS)
def test_out_of_reach_ends_in_the_nearest_corner(norm):
    x, w = torch.tensor([[0.2, 0.6, 0.3], [0.2, 0.6, 0.3]]), torch.tensor([[1.0, -2.0, 0.0], [1.0, -2.0, 0.0]])
    z = THREATS[norm].to_plane(x, w, torch.tensor([-5.0, 5.0]))
    assert z.tolist() == [[1.0, 0.0, pytest.approx(0.3)], [0.0, 1.0, pytest.approx(0.3)]]


@pytest.mark.parametrize("norm", THREATS)
def test_no_weights_and_a_plane_already_met_leave_the_image(norm):
    x = torch.rand(3, 2, 2, 2)
    w, b = torch.zeros_like(x), torch.tensor([1.0, -1.0, 0.0])
    assert torch.equal(THREATS[norm].to_plane(x, w, b), x)
    half, ones = torch.full((1, 4), 0.5), torch.ones(1, 4)
    assert torch.equal(THREATS[norm].to_plane(half, ones, torch.tensor([-2.0])), half)


@pytest.mark.parametrize("scale", [1e-25, 1e-8, 1e8])
@pytest.mark.parametrize("norm", THREATS)
def test_the_scale_of_the_plane_does_not_matter(norm, scale):
    x, w, b = rows(8, 20, 0.3)
    expected = THREATS[norm].to_plane(x, w, b)
    torch.testing.assert_close(THREATS[norm].to_plane(x, w * scale, b * scale), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("norm", THREATS)
def test_an_image_meets_its_plane_whatever_stands_beside_it(norm):
    x, w, b = rows(9, 60, 0.6)
    alone = torch.cat([THREATS[norm].to_plane(*row) for row in zip(x.split(1), w.split(1), b.split(1), strict=True)])
    torch.testing.assert_close(THREATS[norm].to_plane(x, w, b), alone, atol=1e-6, rtol=0)
