"""Noise that a network adds to its own activations: the layer, the draws that an evaluation fixes, and how to be rid of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Literal

import torch
from torch import Tensor, nn

from adamas.dice import Dice
from adamas.weights import private_copy

SAMPLES = 8
"""Draws over which the predictions and gradients of a network that draws noise are averaged unless asked otherwise."""
NoiseScale = Literal["sample", "batch"]
_streams: ContextVar[Dice | None] = ContextVar("streams", default=None)
"""Where noise comes from in a pass with fixed draws; otherwise from torch's global stream."""


class Noise(nn.Module):
    """y + `amount` * std(y) * N(0, 1) for activations y (N, ...); in training always, in eval mode with `in_eval`.

    `per`: the standard deviation is that of each image's own activations, or one of the whole batch's; the gradient flows
    through it.
    Source: Wang et al. 2019 (ResNets ensemble via the Feynman-Kac formalism); the scale, over the batch, is that of the code of
    Li, Wang, Xin 2021. Deviation: per image by default, so that an answer does not depend on its neighbours; over n, not n - 1.
    """

    def __init__(self, amount: float, per: NoiseScale = "sample", in_eval: bool = True):
        super().__init__()
        self.amount, self.per, self.in_eval = amount, per, in_eval

    def extra_repr(self) -> str:
        return f"amount={self.amount:g}, per={self.per}, in_eval={self.in_eval}"

    def forward(self, y: Tensor) -> Tensor:
        if not self.amount or not (self.training or self.in_eval):
            return y
        axes = list(range(1 if self.per == "sample" else 0, y.dim()))
        return y + self.amount * y.std(axes, correction=0, keepdim=True) * _drawn(y)


def _drawn(y: Tensor) -> Tensor:
    streams = _streams.get()
    return torch.randn_like(y) if streams is None else normal(streams, y.shape[1:]).to(y)


def normal(dice: Dice, shape: Sequence[int]) -> Tensor:
    """Standard normal, shape (N, *shape), float32: two numbers from each 64-bit integer. Source: Box, Muller 1958."""
    count = math.prod(shape)
    bits = dice.bits([(count + 1) // 2])
    radius = (1 - _uniform(bits >> 40)).log_().mul_(-2).sqrt_()
    angle = _uniform(bits).mul_(2 * math.pi)
    both = torch.cat([radius * angle.cos(), radius * angle.sin()], 1)
    return both[:, :count].view(-1, *shape)


def _uniform(bits: Tensor) -> Tensor:
    """Uniform on [0, 1) from the lowest 24 bits."""
    return bits.bitwise_and(2**24 - 1).float().mul_(2**-24)


# ---------------------------------------------------------------------------------------------- on, fixed, and off


def draws_noise(model: nn.Module) -> bool:
    """Whether the model's answers in eval mode hold noise of ours."""
    return any(isinstance(module, Noise) and module.amount > 0 and module.in_eval for module in model.modules())


def without_noise(model: nn.Module) -> nn.Module:
    """A copy whose noise layers are identities in either mode; the model itself where it has none."""
    names = [name for name, module in model.named_modules() if isinstance(module, Noise)]
    copy = private_copy(model) if names else model
    for name in names:
        copy.set_submodule(name, nn.Identity())
    return copy


class FixedDraws(nn.Module):
    """The mean logits over some draws of a model's noise that belong to the image: equal pixels and seed, equal logits."""

    def __init__(self, model: nn.Module, samples: int, seed: int):
        super().__init__()
        self.model, self.samples, self.seed = model, samples, seed

    def forward(self, x: Tensor) -> Tensor:
        draws = []
        for number in range(self.samples):
            dice = Dice(x, self.seed)
            dice.keys = dice.keys ^ number
            draws.append(_pass(self.model, x, dice))
        return torch.stack(draws).mean(0)


class CountedDraws(nn.Module):
    """One draw of a model's noise per pass; it belongs to the image and to how many passes over it came right before.

    So a search that averages over draws meets the same ones, however its images are split into passes.
    """

    def __init__(self, model: nn.Module, seed: int):
        super().__init__()
        self.model, self.seed = model, seed
        self._last: Tensor | None = None
        self._number: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        dice = Dice(x, self.seed)
        last, self._last = self._last, dice.keys
        if last is None or self._number is None or last.shape != dice.keys.shape:
            self._number = torch.zeros_like(dice.keys)
        else:
            self._number = torch.where(dice.keys == last, self._number + 1, 0)
        dice.keys = dice.keys ^ self._number
        return _pass(self.model, x, dice)


def _pass(model: nn.Module, x: Tensor, dice: Dice) -> Tensor:
    """One pass whose noise comes from these streams."""
    before = _streams.set(dice)
    try:
        return model(x)
    finally:
        _streams.reset(before)
