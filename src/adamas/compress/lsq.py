"""Learned step sizes: the steps between the levels of weights and activations train together with the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from adamas.compress.masks import Mask
from adamas.compress.quantizers import (
    TINY,
    ActivationQuantizer,
    Bits,
    QuantizedBias,
    QuantizedWeight,
    RoundClamp,
    activation_quantizers,
)
from adamas.errors import AdamasError
from adamas.quantize import attach_quantizers, calibrate_ranges, watch_activations
from adamas.registry import Count, register
from adamas.roles import Batches, Compressor, Threat


@register("compressor", "lsq")
class LSQ(Compressor):
    """Uniform quantization whose steps are trained by the stage's objective, from the first update on.

    A step of weights belongs to an output channel (to a tensor where `per_channel` is false) and never exceeds max|w| / last,
    so that the outermost level is in use; one of activations belongs to a tensor, whose integer zero point stays as measured on
    `batches` calibration batches. Steps have no weight decay, and one update halves or doubles a step at most, which keeps it
    positive. Attacks see the steps as they are and train none. `finish` leaves what QAT leaves, with the very same values.
    Source: Esser et al. 2020, equations 1 to 3 and section 2.2; Bhalgat et al. 2020, section 3.1. Deviation: the bounds above;
    a weight on the outermost level still moves, and so does an activation that is rounded to a level without being clipped,
    as an image's black and white pixels are; offsets are not trained, since the zero point of an integer kernel is an integer.
    """

    weight_bits: Bits = 8
    activation_bits: Bits = 8
    per_channel: bool = True
    batches: Count = 16

    @property
    def needs_fit(self) -> bool:
        return True

    def attach(self, model: nn.Module) -> None:
        attach_quantizers(model, self.weight_bits, self.activation_bits, self.per_channel)

    def calibrate(self, model: nn.Module, batches: Batches, threat: Threat) -> None:
        """Learn steps of weights from here on, and of activations as these weights make them."""
        weights = {plain: LearnedWeight(plain, _entering(steps, plain)) for steps, plain in _quantized_weights(model)}
        _replace(model, weights)
        seen = list(islice(batches, self.batches))
        calibrate_ranges(model, seen, self.batches)
        means = _mean_sizes(model, [x for x, _ in seen])
        _replace(model, {plain: LearnedActivation(plain, mean) for plain, mean in means.items()})

    def after_step(self, model: nn.Module, progress: float) -> None:
        with torch.no_grad():
            for quantizer in _learned(model):
                quantizer.step.clamp_(*quantizer.limits)

    def undecayed(self, model: nn.Module) -> Iterable[nn.Parameter]:
        return [quantizer.step for quantizer in _learned(model)]

    @torch.no_grad()
    def finish(self, model: nn.Module) -> None:
        """Clip weights and fix ranges where the learned steps end, which makes the plain quantizers find these steps."""
        plain: dict[nn.Module, nn.Module] = {}
        for steps, quantizer in _quantized_weights(model):
            if isinstance(quantizer, LearnedWeight):
                top = quantizer.top(_entering(steps, quantizer))
                steps.original.copy_(steps.original.clamp(-top, top))
                plain[quantizer] = QuantizedWeight(self.weight_bits, self.per_channel)
        for quantizer in activation_quantizers(model).values():
            if isinstance(quantizer, LearnedActivation):
                quantizer.grid()
                plain[quantizer] = fixed = ActivationQuantizer(self.activation_bits).to(quantizer.low.device)
                fixed.low.copy_(quantizer.low)
                fixed.high.copy_(quantizer.high)
        _replace(model, plain)


class LearnedWeight(QuantizedWeight):
    """Weights quantized with learned steps: a QuantizedWeight of weights clipped at `top`, the outermost level."""

    def __init__(self, plain: QuantizedWeight, weight: Tensor):
        super().__init__(plain.bits, plain.per_channel)
        size = weight.detach().abs()
        mean = size.sum(self._shared(size), keepdim=True) / (size > 0).sum(self._shared(size), keepdim=True).clamp_min(1)
        step = torch.minimum(2 * mean / math.sqrt(self.last), self.scale(weight)).clamp_min(TINY)
        self.step = nn.Parameter(step)
        self.limits = step / 2, step * 2

    def _shared(self, weight: Tensor) -> tuple[int, ...]:
        """The dimensions along which weights share a step."""
        return tuple(range(1 if self.per_channel else 0, weight.dim()))

    def top(self, weight: Tensor) -> Tensor:
        """The outermost level, at most the largest weight."""
        return torch.minimum(self.step * self.last, weight.abs().amax(self._shared(weight), keepdim=True)).detach()

    def forward(self, weight: Tensor) -> Tensor:
        top = self.top(weight)
        scale = (top / self.last).clamp_min(TINY)
        self.limits = scale / 2, torch.minimum(scale * 2, self.scale(weight))
        rounded = super().forward(weight.clamp(-top, top))
        gain = 1 / math.sqrt(weight.numel() / self.step.numel() * self.last)
        return with_step(rounded, weight, self.step * gain, scale, (-top, top))


class LearnedActivation(ActivationQuantizer):
    """Activations quantized with a learned step and a fixed integer zero point; `low` and `high` follow from these."""

    def __init__(self, plain: ActivationQuantizer, mean: Tensor):
        super().__init__(plain.bits)
        scale, self.zero = plain.grid()
        step = torch.full_like(mean, scale)
        if not self.zero:
            step = torch.minimum(step, 2 * mean / math.sqrt(self.last)).clamp_min(TINY)
        self.step = nn.Parameter(step)
        self.limits = step / 2, step * 2
        self.to(step.device)

    @torch.no_grad()
    def grid(self) -> tuple[float, int]:
        self.low.copy_(self.step * -self.zero)
        self.high.copy_(self.step * (self.last - self.zero))
        return super().grid()

    def forward(self, x: Tensor) -> Tensor:
        scale, zero = self.grid()
        rounded: Any = RoundClamp.apply(x, scale, -zero, self.last - zero)
        if not self.step.requires_grad:  # an attack holds it still
            return rounded
        step = self.step.detach()
        self.limits = step / 2, step * 2
        gain = 1 / math.sqrt(x[0].numel() * self.last)
        return with_step(rounded, x, self.step * gain, scale, (self.low, self.high))


def with_step(rounded: Tensor, x: Tensor, step: Tensor, scale: Tensor | float, ends: tuple[Tensor, Tensor]) -> Tensor:
    """The same values with a gradient for the step: round(x / scale) - x / scale, and the outermost codes from the ends on.

    Source: Esser et al. 2020, equation 3.
    """
    with torch.no_grad():
        inside = (x > ends[0]) & (x < ends[1])
        slope = (rounded - torch.where(inside, x, 0)) / scale
    return rounded.add_(slope * (step - step.detach()))  # in place, because other strides would sum in another order


# ----------------------------------------------------------------------------------------------- quantizers of a model


def _learned(model: nn.Module) -> Iterator[LearnedWeight | LearnedActivation]:
    return (module for module in model.modules() if isinstance(module, LearnedWeight | LearnedActivation))


def _quantized_weights(model: nn.Module) -> Iterator[tuple[Any, QuantizedWeight]]:
    """Every list of parametrizations that ends in a quantizer, and that quantizer.

    Errors: parametrizations before it that are no masks, through which a clipped weight cannot be stored.
    """
    for name, module in model.named_modules():
        for steps in module.parametrizations.values() if parametrize.is_parametrized(module) else ():  # type: ignore[union-attr]
            *before, last = steps
            if isinstance(last, QuantizedWeight):
                if other := next((step for step in before if not isinstance(step, Mask)), None):
                    raise AdamasError(
                        f"lsq: expected weights under nothing but masks, got layer {name} parametrized by "
                        f"{type(other).__name__}; take qat, or bake the weights first (adamas.weights.bake)"
                    )
                yield steps, last


def _entering(steps: Any, quantizer: QuantizedWeight) -> Tensor:
    """The weight as it reaches its quantizer."""
    weight = steps.original
    for step in steps:
        if step is quantizer:
            break
        weight = step(weight)
    return weight


def _mean_sizes(model: nn.Module, images: list[Tensor]) -> dict[ActivationQuantizer, Tensor]:
    """The mean absolute value of what reaches every activation quantizer."""
    means: dict[ActivationQuantizer, list[Tensor]] = {quantizer: [] for quantizer in activation_quantizers(model).values()}
    watch_activations(model, images, lambda quantizer, x: means[quantizer].append(x.abs().mean().float()))
    return {quantizer: torch.stack(found).mean() for quantizer, found in means.items()}


def _replace(model: nn.Module, others: Mapping[Any, nn.Module]) -> None:
    """Put other quantizers in the place of these, also where biases look for their steps."""
    for name, module in list(model.named_modules()):
        if module in others:
            model.set_submodule(name, others[module])
        if isinstance(module, QuantizedBias):
            module.steps = tuple(others.get(step, step) for step in module.steps)  # type: ignore[assignment]
