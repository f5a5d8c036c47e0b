"""Uniform quantizers with straight-through gradients: one for weights, one for activations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from pydantic import BeforeValidator
from torch import Tensor, nn
from torch.autograd import Function

TINY = 1e-12
"""The least scale: a constant-zero channel or activation divides by this instead of by zero."""


def _bits(value: object) -> object:
    if isinstance(value, int) and value < 2:
        raise ValueError(
            f"expected 2 to 16 bits, got {int(value)}: at 1 bit the largest level 2^(b-1)-1 is 0 and the scale infinite; "
            "one-bit and ternary weights are the binary_relax method"
        )
    return value


Bits = Annotated[int, Ge(2), Le(16), BeforeValidator(_bits)]


class _Round(Function):
    """The nearest multiple of `scale`; the gradient is the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:
        return torch.div(x, scale).round_().mul_(scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class QuantizedWeight(nn.Module):
    """Symmetric weights of `bits` bits as a parametrization, by output channel or by tensor, computed from the present weight.

    scale = max|w| / (2^(b-1)-1), so int8 uses -127..127 and zero stays zero. Gradient: identity.
    Source: Thorsteinsson et al. 2024 (code). Deviation: per output channel by default, as engines want it.
    """

    def __init__(self, bits: int, per_channel: bool = True):
        super().__init__()
        self.bits, self.per_channel = bits, per_channel
        self.last = 2 ** (bits - 1) - 1
        self.unit = torch.ones(1)

    def scale(self, weight: Tensor) -> Tensor:
        """Step between levels, shape (channels, 1, ...) or (1, 1, ...)."""
        weight = weight.detach()
        largest = weight.abs().amax(tuple(range(1 if self.per_channel else 0, weight.dim())), keepdim=True)
        return (largest / self.last).clamp_min(TINY)

    def forward(self, weight: Tensor) -> Tensor:
        """The quantized weight; leaves in `unit`, shape (channels,), the step of the integers that are stored for it.

        Grids narrower than 7 bits are spread over -63..63, so that biases, which are added to the products, round finer.
        """
        scale = self.scale(weight)
        self.unit = (scale / max(1, 63 // self.last)).flatten().expand(len(weight))
        return _Round.apply(weight, scale)  # type: ignore[return-value]


class QuantizedBias(nn.Module):
    """Biases as a parametrization, on the grid of what they are added to: input step times weight step.

    Integer kernels add biases as 32-bit integers on this grid. A layer computes its weight before its bias.
    Source: Jacob et al. 2018, section 2.4.
    """

    def __init__(self, weight: QuantizedWeight, inputs: ActivationQuantizer):
        super().__init__()
        self.steps = weight, inputs  # in a tuple: both are registered elsewhere in the model

    def forward(self, bias: Tensor) -> Tensor:
        weight, inputs = self.steps
        if inputs.watch is not None:  # the range is being measured
            return bias
        return _Round.apply(bias, weight.unit * inputs.grid()[0])  # type: ignore[return-value]


class RoundClamp(Function):
    """The nearest of the levels first..last times scale; the gradient passes where x rounds to one of them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, first: int, last: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.edges = (first - 0.5) * scale, (last + 0.5) * scale
        step = torch.full((), scale, device=x.device)  # a tensor: dividing by a number may multiply by its inverse
        return torch.div(x, step).round_().clamp_(first, last).mul_(step)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        inside = torch.ops.aten.hardtanh_backward(grads[0], ctx.saved_tensors[0], *ctx.edges)
        return inside, None, None, None


class ActivationQuantizer(nn.Module):
    """Affine activations of `bits` bits, one range per tensor: q = clamp(round(x / scale) + zero, 0, 2^b - 1).

    The range always contains 0, which is represented exactly; rounding is half to even, as ONNX QuantizeLinear defines it.
    With a `momentum`, training-mode forwards move the range by a moving average until `freeze`; eval never moves it.
    Source: Thorsteinsson et al. 2024 (code); Jacob et al. 2018, section 3.
    """

    low: Tensor
    high: Tensor
    moving: Tensor

    def __init__(self, bits: int, momentum: float | None = None):
        super().__init__()
        self.bits, self.momentum = bits, momentum
        self.watch: Callable[[ActivationQuantizer, Tensor], None] | None = None
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.ones(()))
        self.register_buffer("moving", torch.tensor(momentum is not None))

    @property
    def last(self) -> int:
        """The largest integer code; the smallest is 0."""
        return 2**self.bits - 1

    def grid(self) -> tuple[float, int]:
        """The step between levels and the integer code of 0."""
        low, high = torch.stack((self.low, self.high)).tolist()
        scale = max((high - low) / self.last, TINY)
        return scale, round(-low / scale) if math.isfinite(scale) else 0  # a diverged network goes on to a loss of nan

    def forward(self, x: Tensor) -> Tensor:
        if self.watch is not None:
            self.watch(self, x)
            return x
        if self.training and self.momentum is not None and self.moving:
            self._move(x.detach(), self.momentum)
        scale, zero = self.grid()
        return RoundClamp.apply(x, scale, -zero, self.last - zero)  # type: ignore[return-value]

    def _move(self, x: Tensor, momentum: float) -> None:
        low, high = x.aminmax()
        self.low.lerp_(low.clamp(max=0).to(self.low.dtype), 1 - momentum)
        self.high.lerp_(high.clamp(min=0).to(self.high.dtype), 1 - momentum)

    def freeze(self) -> None:
        """Keep the present range from now on."""
        self.moving.fill_(False)


def activation_quantizers(model: nn.Module) -> dict[str, ActivationQuantizer]:
    """All activation quantizers of a model by name, in forward order; empty for a float model."""
    return {name: module for name, module in model.named_modules() if isinstance(module, ActivationQuantizer)}
