"""The Square attack's steps, formula by formula, one image at a time in numpy, against ours.

Source: Andriushchenko et al. 2020. Linf (algorithm 2): one square is moved by 2 eps up or down per channel and projected.
L2 (algorithm 3): with v the perturbation, W1 and W2 two windows and c channels, per channel
v' = rho eta + v_W1 / |v_W1|, available = sqrt(|v_(W1 or W2)|^2 + (eps^2 - |v|^2) / c), v_W2 = 0, v_W1 = available v' / |v'|.
Bumps (equation 2): eta(r, s) = sum over k = 0..n - d of 1 / (n + 1 - k)^2, d the larger distance from the middle.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adamas.attacks.squares import SQUARES, bump, bumps, move_mass, paint, tiles
from adamas.dice import Dice
from adamas.threat import L2, Linf

ANY = torch.zeros(())


def windows(u: np.ndarray, side: int, height: int, width: int) -> tuple[slice, slice]:
    top, left = int(u[0] * (height - side + 1)), int(u[1] * (width - side + 1))
    return slice(top, top + side), slice(left, left + side)


def sign(u: float) -> int:
    return 1 if u < 0.5 else -1


def by_equation_2(height: int, width: int) -> np.ndarray:
    n = max(height, width) // 2
    eta = np.zeros((height, width))
    for r in range(height):
        for s in range(width):
            d = max(abs(r - height // 2), abs(s - width // 2))
            eta[r, s] = sum(1 / (n + 1 - k) ** 2 for k in range(n - d + 1))
    return eta / np.linalg.norm(eta)


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (2, 5), (3, 5), (4, 4), (12, 25)])
def test_bumps_follow_equation_2(shape):
    height, width = shape
    np.testing.assert_allclose(bump(height, width, ANY).numpy(), by_equation_2(height, width), atol=1e-6)


def test_a_bump_of_three_by_three_by_hand():
    around = 1 / 4
    expected = torch.tensor([[around] * 3, [around, 1.25, around], [around] * 3])
    torch.testing.assert_close(bump(3, 3, ANY), expected / expected.norm())


@pytest.mark.parametrize("side", [2, 3, 5, 8])
def test_a_pattern_is_one_bump_up_and_one_down_of_equal_length_upright_or_lying(side):
    upright, lying = bumps(side, ANY)
    half = side // 2
    torch.testing.assert_close(upright.norm(), torch.tensor(1.0))
    torch.testing.assert_close(upright[:half].norm(), upright[half:].norm())
    assert (upright[:half] > 0).all() and (upright[half:] < 0).all() and torch.equal(lying, upright.T)


def test_one_pixel_has_one_pattern():
    assert bumps(1, ANY).flatten().tolist() == [-1.0, -1.0]


@pytest.mark.parametrize("side", [1, 3, 6])
def test_a_linf_step_follows_algorithm_2(side):
    x, threat = torch.rand(5, 3, 6, 9), Linf(eps=0.2)
    best = threat.sample(x, Dice(x, 1))
    throws = Dice(x, 7).uniform((8,)).double().numpy()
    expected = best.double().numpy()
    for image, clean, u in zip(expected, x.double().numpy(), throws, strict=True):
        rows, columns = windows(u, side, 6, 9)
        for channel in range(3):
            image[channel, rows, columns] += 2 * threat.eps * sign(u[2 + channel])
        image[:] = np.clip(np.clip(image, clean - threat.eps, clean + threat.eps), 0, 1)
    np.testing.assert_allclose(paint(best, x, side, threat, Dice(x, 7)).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_that_would_change_nothing_are_drawn_anew(channels):
    x, threat = torch.rand(400, channels, 2, 2), Linf(eps=0.1)
    best = threat.project(x + 1, x)  # one square in 2 ^ channels would be painted as it is
    dice = Dice(x, 7)
    throws = dice.uniform((2 + 2 * channels,))
    moved = (paint(best, x, 2, threat, Dice(x, 7)) < best).flatten(2).any(2)
    drawn = throws[:, 2 : 2 + channels] >= 0.5
    idle = ~drawn.any(1)
    assert moved.any(1).all() and torch.equal(moved[~idle], drawn[~idle])
    patterns = {tuple(row) for row in moved[idle].tolist()}
    assert len(patterns) == 2**channels - 1 and 0.05 < idle.float().mean() < 0.6


@pytest.mark.parametrize("side", [1, 3, 5, 6])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_an_l2_step_follows_algorithm_3(side, share):
    x, threat = torch.rand(200, 3, 6, 9), L2(eps=0.7)
    best = threat.project(x + share * (threat.sample(x, Dice(x, 1)) - x), x)
    throws = Dice(x, 7).uniform((8,)).double().numpy()
    expected, patterns = best.double().numpy(), bumps(side, ANY).double().numpy()
    overlaps = 0
    for image, clean, u in zip(expected, x.double().numpy(), throws, strict=True):
        v = image - clean
        first, second = windows(u, side, 6, 9), windows(u[2:], side, 6, 9)
        unused = max(0.0, threat.eps**2 - (v**2).sum())
        for channel in range(3):
            union = np.zeros((6, 9), dtype=bool)
            union[first] = union[second] = True
            overlaps += union.sum() < 2 * side * side
            available = np.sqrt((v[channel][union] ** 2).sum() + unused / 3)
            here = v[channel][first]
            new = sign(u[5 + channel]) * patterns[int(u[4] < 0.5)] + here / max(np.linalg.norm(here), 1e-12)
            v[channel][second] = 0
            v[channel][first] = available * new / max(np.linalg.norm(new), 1e-12)
        image[:] = np.clip(clean + v * threat.eps / max(np.linalg.norm(v), 1e-12), 0, 1)
    assert overlaps > 0
    np.testing.assert_allclose(move_mass(best, x, side, threat, Dice(x, 7)).numpy(), expected, atol=2e-5)


def test_l2_begins_with_tiles_of_a_fifth_of_the_image():
    x = torch.rand(3, 2, 12, 17)
    start = tiles(x, Dice(x, 3))
    upright, lying = bumps(2, ANY)
    blocks = start[..., :16].unfold(2, 2, 2).unfold(3, 2, 2).reshape(-1, 2, 2)  # 6 x 8 tiles, the odd column left out
    kinds = torch.stack([(blocks == kind).flatten(1).all(1) for kind in (upright, -upright, lying, -lying)])
    assert kinds.any(0).all() and kinds.any(1).all() and (start[..., 16] == 0).all()
    flipped = kinds[2:].any(0).view(3, 2, -1)
    assert torch.equal(flipped[:, 0], flipped[:, 1])  # all channels of a tile lie alike, their signs are their own
    assert not torch.equal(kinds[::2].any(0).view(3, 2, -1)[:, 0], kinds[::2].any(0).view(3, 2, -1)[:, 1])


def test_the_side_is_the_rounded_root_and_odd_and_at_least_three_in_l2():
    assert [SQUARES["linf"].side(pixels) for pixels in (0.1, 1.2, 6.0, 6.3, 627.2)] == [1, 1, 2, 3, 25]
    assert [SQUARES["l2"].side(pixels) for pixels in (0.1, 9.0, 16.0, 25.0, 627.2, 36.0)] == [3, 3, 5, 5, 25, 7]
