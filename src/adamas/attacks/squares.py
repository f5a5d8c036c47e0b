"""How the Square attack perturbs: the first image and the next one, by norm. All images of a step share the square's side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from adamas.dice import Dice
from adamas.roles import Threat

TINY = 1e-12
"""Keeps a division by the length of nothing finite."""


@dataclass(frozen=True)
class Squares:
    """One norm's perturbations of images (N, C, H, W).

    `side`: of a square that is to cover so many pixels. `start`: the direction of the first perturbation. `step`: the next
    image from the best so far, the clean ones, the side and the threat.
    """

    side: Callable[[float], int]
    start: Callable[[Tensor, Dice], Tensor]
    step: Callable[[Tensor, Tensor, int, Threat, Dice], Tensor]


def signs(u: Tensor) -> Tensor:
    """-1 or 1, by uniform numbers."""
    return (u < 0.5).to(u.dtype).mul_(2).sub_(1)


def windows(u: Tensor, side: int, x: Tensor) -> Tensor:
    """Where the pixels of a square lie in the flattened channels of x, by (N, 2) uniform numbers: (N, C, side * side)."""
    channels, height, width = x.shape[1:]
    top, left = (u[:, :1] * (height - side + 1)).long(), (u[:, 1:2] * (width - side + 1)).long()
    along = torch.arange(side, device=x.device)
    square = (along[:, None] * width + along).flatten()
    return (top * width + left + square)[:, None].expand(-1, channels, -1)


# ----------------------------------------------------------------------------------------------------------- Linf


def stripes(x: Tensor, dice: Dice) -> Tensor:
    """A random sign for every channel of every column. Source: section 4.1, initialization."""
    return signs(dice.uniform((x.shape[1], 1, x.shape[3]))).expand_as(x)


def paint(best: Tensor, x: Tensor, side: int, threat: Threat, dice: Dice) -> Tensor:
    """Move one square by 2 eps up or down in every channel, then into the threat. Source: algorithm 2.

    As in the authors' code, colours that would change nothing are drawn anew, here with one channel at least that differs.
    """
    throws = dice.uniform((2 + 2 * x.shape[1],))
    at = windows(throws, side, x)
    before, clean = (image.flatten(2).gather(2, at) for image in (best, x))
    colours, again = throws[:, 2:, None].chunk(2, dim=1)
    colours = signs(colours)
    differ = (again < 0.5) | (again == again.amin(1, keepdim=True))
    choices = (colours, torch.where(differ, -colours, colours))
    painted, other = (threat.project(threat.ascend(before, choice, 2 * threat.eps), clean) for choice in choices)
    idle = (painted == before).flatten(1).all(1)[:, None, None]
    return best.flatten(2).scatter(2, at, other.where(idle, painted)).view_as(x)


# ------------------------------------------------------------------------------------------------------------- L2


def bump(height: int, width: int, like: Tensor) -> Tensor:
    """Nested rectangles around the middle, the k-th of weight 1 / k^2, of unit length. Source: equation 2."""
    rows, columns = ((torch.arange(size, device=like.device) - size // 2).abs() for size in (height, width))
    weights = torch.arange(1, max(height, width) // 2 + 2, device=like.device, dtype=like.dtype) ** -2
    heights = weights.flip(0).cumsum(0).flip(0)[torch.maximum(rows[:, None], columns)]
    return heights / heights.norm().clamp_min(TINY)


def bumps(side: int, like: Tensor) -> Tensor:
    """A bump up over a bump down, and the same lying on its side: two patterns of unit length, (2, side, side)."""
    upright = torch.cat([bump(side // 2, side, like), -bump(side - side // 2, side, like)])
    upright = upright / upright.norm()
    return torch.stack([upright, upright.T])


def tiles(x: Tensor, dice: Dice) -> Tensor:
    """The image covered by tiles of a fifth of its shorter side, bumps of random sign in every channel."""
    channels, height, width = x.shape[1:]
    side = max(1, min(height, width) // 5)
    down, across = height // side, width // side
    throws = dice.uniform((1 + channels, down, across))
    patterns = bumps(side, x)[(throws[:, :1] < 0.5).long()] * signs(throws[:, 1:])[..., None, None]
    tiled = patterns.transpose(3, 4).reshape(len(x), channels, down * side, across * side)
    top, left = (height - down * side) // 2, (width - across * side) // 2
    return F.pad(tiled, (left, width - across * side - left, top, height - down * side - top))


def move_mass(best: Tensor, x: Tensor, side: int, threat: Threat, dice: Dice) -> Tensor:
    """Empty one square of the perturbation and give its length, and what is left of eps, to bumps in another.

    Source: algorithm 3; the whole is brought to length eps before it is cut to [0, 1], as in the authors' code.
    """
    throws = dice.uniform((5 + x.shape[1],))
    to, source = windows(throws, side, x), windows(throws[:, 2:], side, x)
    pattern = bumps(side, x).flatten(1)[(throws[:, 4] < 0.5).long()][:, None] * signs(throws[:, 5:, None])
    change = (best - x).flatten(2)
    unused = (threat.eps**2 - threat.distance(best, x).square()).clamp_min(0) / x.shape[1]
    here = change.gather(2, to)
    change.scatter_(2, to, 0)
    there = change.gather(2, source)  # without what both squares share
    change.scatter_(2, source, 0)
    length, elsewhere = here.norm(dim=2, keepdim=True), there.norm(dim=2, keepdim=True)
    new = here / length.clamp_min(TINY) + pattern
    new *= (length**2 + elsewhere**2 + unused[:, None, None]).sqrt() / new.norm(dim=2, keepdim=True).clamp_min(TINY)
    return threat.ascend(x, change.scatter_(2, to, new).view_as(x), threat.eps).clamp(0, 1)


SQUARES = {
    "linf": Squares(lambda pixels: max(1, round(pixels**0.5)), stripes, paint),
    "l2": Squares(lambda pixels: max(3, round(pixels**0.5) // 2 * 2 + 1), tiles, move_mass),
}
