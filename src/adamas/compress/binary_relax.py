"""Binary-Relax: weights drawn ever closer to few levels while they train, and set to them in the end."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from adamas.compress.levels import Levels, project, width
from adamas.compress.masks import Mask
from adamas.compress.tied import Tied
from adamas.errors import AdamasError
from adamas.registry import Number, register
from adamas.roles import Batches, Compressor, Threat
from adamas.surgery import weight_layers
from adamas.weights import original, swap_last


@register("compressor", "binary_relax")
class BinaryRelax(Compressor):
    """Trains a float weight w through (strength * P(w) + w) / (strength + 1), P(w) being the nearest weight with few levels.

    Attacks, forward and backward passes see that weight, the optimiser moves w by its gradient. The strength grows from `start`
    to `stop` over the share `relaxed` of the stage, by the same factor at every step, and is infinite from then on: what
    trains in the rest of the stage is P(w) itself, which is also what is left in the end. `relaxed` 0 is BinaryConnect.
    `levels`: binary (two, 1 bit), ternary (the exact projection), ternary_paper (that of the paper's code, whose scale is too
    small), uniform (2^bits - 1 of them, at `bits` bits). `layers`: all; convolutions; or spatial: convolutions larger than 1x1,
    as in the paper. `exclude` names layers that stay float. Later stages train the scales. A mask that was there before stays.
    Source: Yin et al. 2018, equation 4; Li, Wang, Xin 2021, algorithm 1 and code; Courbariaux et al. 2015.
    Deviation: the strength grows at every step, to 349 as 1.05 per epoch over 120 epochs gives; uniform levels are iterated
    until they are the nearest; the network that is judged and kept is P(w) of the last w.
    """

    levels: Levels = "binary"
    bits: Annotated[int, Ge(2), Le(8)] = 4
    per_channel: bool = False
    relaxed: Annotated[Number, Ge(0), Le(1)] = 0.6
    start: Annotated[Number, Gt(0)] = 1.0
    stop: Annotated[Number, Gt(0)] = 349.0
    layers: Literal["all", "convolutions", "spatial"] = "spatial"
    exclude: tuple[str, ...] = ()

    @property
    def unsettled(self) -> float:
        return self.relaxed

    def attach(self, model: nn.Module) -> None:
        chosen = self._chosen(model)
        if not chosen:
            raise AdamasError(
                f"binary_relax: expected layers to quantize, got none (layers: {self.layers}); "
                "all takes every one that is not made of factors"
            )
        for layer in chosen:
            parametrize.register_parametrization(layer, "weight", Tied(width(self.levels, self.bits)))

    def calibrate(self, model: nn.Module, batches: Batches, threat: Threat) -> None:
        """Put the relaxation in place; no data is read."""
        for layer in self._chosen(model):
            hidden = any(isinstance(step, Mask) for step in layer.parametrizations.weight)
            swap_last(layer, "weight", Relaxed(self.levels, self.bits, self.per_channel, hidden))
        self._follow(model, 0.0)

    def after_step(self, model: nn.Module, progress: float) -> None:
        self._follow(model, progress)

    @torch.no_grad()
    def finish(self, model: nn.Module) -> None:
        """Set every weight to its level."""
        for layer in self._chosen(model):
            layer.parametrizations.weight[-1].share.fill_(1)
            original(layer).copy_(layer.weight)
            swap_last(layer, "weight", Tied(width(self.levels, self.bits)))

    def _follow(self, model: nn.Module, progress: float) -> None:
        """Set the strength that is due, as the share strength / (strength + 1)."""
        over = progress >= self.relaxed - 1e-9
        strength = 0.0 if over else self.start * (self.stop / self.start) ** (progress / self.relaxed)
        for module in model.modules():
            if isinstance(module, Relaxed):
                module.share.fill_(1 if over else strength / (1 + strength))

    def _chosen(self, model: nn.Module) -> list[Any]:
        return [layer for layer in weight_layers(model, self.exclude).values() if self._takes(layer)]

    def _takes(self, layer: Any) -> bool:
        convolution = isinstance(layer, _ConvNd)
        spatial = convolution and max(layer.kernel_size) > 1
        wanted = {"all": True, "convolutions": convolution, "spatial": spatial}[self.layers]
        return wanted and original(layer).requires_grad


class Relaxed(nn.Module):
    """A weight on its way to few levels: share * P(w) + (1 - share) * w, whose gradient goes to w as it is."""

    share: Tensor

    def __init__(self, levels: Levels, bits: int, per_channel: bool, hidden: bool):
        super().__init__()
        self.levels: Levels = levels
        self.uniform_bits, self.per_channel, self.hidden = bits, per_channel, hidden
        self.register_buffer("share", torch.tensor(0.0))

    def forward(self, weight: Tensor) -> Tensor:
        w = weight.detach()
        near = project(w, self.levels, self.uniform_bits, self.per_channel, self.hidden)
        return _Seen.apply(weight, torch.lerp(w, near, self.share))  # type: ignore[return-value]


class _Seen(Function):
    """The value in the place of the weight; the gradient goes to the weight."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None
