"""Masks on weights: fixed ones, and ones that a stage learns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from adamas.errors import AdamasError
from adamas.surgery import weight_layers
from adamas.weights import original


class Mask(nn.Module):
    """Multiplies a weight by a mask of the same shape, so that masked weights are zero whatever the optimiser does."""

    elementwise = True
    mask: Tensor

    def __init__(self, weight: Tensor):
        super().__init__()
        self.register_buffer("mask", torch.ones_like(weight, dtype=torch.bool))

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight


class LearnedRate(nn.Module):
    """The share of a layer that stays, learned through its `quota`: floor + (1 - floor) * sigmoid(quota).

    `pressure`: weight of the hardware loss, the same in all layers.
    Source: HARP, equation of the compression rate; starts are clipped to .99 of its range as in the authors' code.
    """

    pressure: Tensor

    def __init__(self, rate: float, floor: float):
        super().__init__()
        self.floor = floor
        inner = torch.tensor((rate - floor) / (1 - floor)).clamp(1e-4, 0.99)
        self.quota = nn.Parameter(inner.logit())
        self.register_buffer("pressure", torch.tensor(0.0))

    def forward(self) -> Tensor:
        return self.floor + (1 - self.floor) * self.quota.sigmoid()


class Ranked(nn.Module):
    """A mask that keeps what scores highest, as much as `count` or a learned rate says; gradients pass straight through it.

    Where the scores are `trained`, their absolute values rank. The mask has the shape of the scores; each of its equal `runs`
    keeps as much as the others.
    """

    def __init__(self, scores: Tensor, trained: bool, count: int, rate: LearnedRate | None = None, runs: int = 1):
        super().__init__()
        self.scores, self.count, self.rate, self.runs = nn.Parameter(scores, trained), count, rate, runs

    @property
    def ranking(self) -> Tensor:
        """What decides which stay."""
        return self.scores.abs() if self.scores.requires_grad else self.scores

    def forward(self) -> Tensor:
        rate = None if self.rate is None else self.rate()
        count = self.count if rate is None else kept(float(rate.detach()), self.scores.numel())
        each: Any = max(1, count // self.runs)
        return torch.cat([Highest.apply(run, rate, each) for run in self.ranking.chunk(self.runs)])  # type: ignore[misc]


class LearnedMask(Mask):
    """Masks a weight by scores of its shape. `price`: the cost of one weight; `still`: what does not train meanwhile."""

    def __init__(self, ranked: Ranked, price: int, still: list[nn.Parameter]):
        super().__init__(ranked.scores)
        self.ranked, self.price, self.still = ranked, price, tuple(still)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.ranked()


class Highest(torch.autograd.Function):
    """1 for the `count` that rank highest, else 0; every rank gets the gradient of its entry, the rate their sum.

    Source: Sehwag et al. 2020, section 3; HARP, which takes the derivative of a mask by its rate as 1 everywhere.
    """

    @staticmethod
    def forward(ctx: Any, ranking: Tensor, rate: Tensor | None, count: int) -> Tensor:
        return highest(ranking, count).to(ranking.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (grad,) = grads
        return grad, grad.sum() if ctx.needs_input_grad[1] else None, None


def kept(rate: float, size: int) -> int:
    """Weights that stay of a layer of so many, at least one."""
    return max(1, size - int((1 - rate) * size))


def highest(scores: Tensor, count: int) -> Tensor:
    """A boolean mask of exactly the `count` highest scores."""
    mask = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    mask[scores.flatten().topk(count, sorted=False).indices] = True
    return mask.view_as(scores)


# ------------------------------------------------------------------------------------------------ masks on a model


def attach_masks(model: nn.Module, exclude: Sequence[str], method: str) -> None:
    """Put a mask that hides nothing on every convolution and linear layer whose weight trains; others are fixed selections.

    Errors: no such layer; a pattern of `exclude` that matches none.
    """
    layers = [layer for layer in weight_layers(model, exclude).values() if original(layer).requires_grad]
    if not layers:
        raise AdamasError(
            f"{method}: expected at least one convolution or linear layer to prune, got none that is not made of factors"
        )
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", Mask(layer.weight))


def masked_layers(model: nn.Module, exclude: Sequence[str]) -> dict[str, Any]:
    """The layers that `attach_masks` gave a mask, by name."""
    return {name: layer for name, layer in weight_layers(model, exclude).items() if _masks(layer)}


def mask_of(layer: Any) -> Any:
    """The mask attached last; earlier stages may have left their own before it."""
    return layer.parametrizations.weight[_masks(layer)[-1]]


def swap(layer: Any, mask: Mask) -> None:
    """Put another mask in the place of the last one."""
    layer.parametrizations.weight[_masks(layer)[-1]] = mask.to(layer.weight.device)


def fix(layer: Any, mask: Tensor) -> None:
    """Put a fixed mask in the place of whatever a stage had there."""
    fixed = Mask(mask)
    fixed.mask.copy_(mask)
    swap(layer, fixed)


def _masks(layer: Any) -> list[int]:
    steps = layer.parametrizations.weight if parametrize.is_parametrized(layer, "weight") else ()
    return [i for i, step in enumerate(steps) if isinstance(step, Mask)]


def hold_still(layers: Iterable[Any]) -> list[nn.Parameter]:
    """Stop the training of the layers' weights and biases, and return those that trained."""
    own = [parameter for layer in layers for parameter in (original(layer), layer.bias)]
    still = [parameter for parameter in own if parameter is not None and parameter.requires_grad]
    for parameter in still:
        parameter.requires_grad_(False)
    return still
