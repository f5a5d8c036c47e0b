"""Random numbers that belong to an image: the same in whatever batch and order, on whatever device it is attacked."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_STEP, _FIRST, _SECOND = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15
"""The constants of splitmix64, as signed integers."""


class Dice:
    """A stream of random numbers for every image of `x`, keyed by its pixels and a seed.

    Without a seed one is drawn from torch's global stream, so that each call of an attack throws anew.
    Source: Steele et al. 2014 (splitmix64), used as a counter-based generator.
    """

    def __init__(self, x: Tensor, seed: int | None = None):
        seed = int(torch.randint(2**62, ())) if seed is None else seed
        pixels = x.detach().float().flatten(1).contiguous().view(torch.int32).long()
        weights = _mixed(torch.arange(pixels.shape[1], device=x.device) * _STEP) | 1
        self.keys = _mixed((pixels * weights).sum(1) ^ seed)
        self._thrown = [0]

    def __getitem__(self, rows: Tensor) -> Dice:
        """The streams of some of the images; a throw moves all streams on, so that rows stay in step."""
        some = object.__new__(Dice)
        some.keys, some._thrown = self.keys[rows], self._thrown
        return some

    def bits(self, shape: Sequence[int]) -> Tensor:
        """Random 64-bit integers, shape (N, *shape)."""
        self._thrown[0] += 1
        count = math.prod(shape)
        streams = _mixed(self.keys + _mixed(torch.tensor(self._thrown[0])).item())[:, None]
        return _mixed(streams + torch.arange(1, count + 1, device=self.keys.device) * _STEP).view(-1, *shape)

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Uniform on [0, 1), shape (N, *shape), float32."""
        return self.bits(shape).bitwise_right_shift_(40).bitwise_and_(2**24 - 1).float().mul_(2**-24)

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal, shape (N, *shape), float32. Source: Box, Muller 1958."""
        radius = (1 - self.uniform(shape)).log_().mul_(-2).sqrt_()
        return radius.mul_(self.uniform(shape).mul_(2 * math.pi).cos_())

    def below(self, bound: Tensor, shape: Sequence[int] = ()) -> Tensor:
        """Integers from 0 to `bound` - 1 (a tensor that broadcasts with (N, *shape)), int64."""
        return (self.uniform(shape) * bound).long()


def _mixed(z: Tensor) -> Tensor:
    """The finaliser of splitmix64; multiplication wraps around."""
    z = z ^ (z.bitwise_right_shift(30) & (2**34 - 1))
    z = z.mul_(_FIRST)
    z ^= z.bitwise_right_shift(27) & (2**37 - 1)
    z = z.mul_(_SECOND)
    z ^= z.bitwise_right_shift(31) & (2**33 - 1)
    return z
