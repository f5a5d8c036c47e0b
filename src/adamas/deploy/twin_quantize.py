"""QuantizeLinear and DequantizeLinear in torch: integer codes as floats, gradients straight through."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from adamas.compress.quantizers import RoundClamp
from adamas.errors import AdamasError

DTYPES = {
    1: torch.float32, 2: torch.uint8, 3: torch.int8, 4: torch.uint16, 5: torch.int16, 6: torch.int32, 7: torch.int64,
    9: torch.bool, 10: torch.float16, 11: torch.float64,
}  # fmt: skip
"""TensorProto.DataType as torch dtypes: what the twin computes with."""


class _Quantize(Function):
    """Integer codes as floats; the gradient passes where x rounds to one of them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero: Tensor, first: int, last: int) -> Tensor:
        codes = torch.div(x, scale).round_().add_(zero)
        ctx.save_for_backward((codes >= first) & (codes <= last), scale)
        return codes.clamp_(first, last)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        inside, scale = ctx.saved_tensors
        return grads[0] * inside / scale, None, None, None, None


def quantize_linear(
    x: Tensor,
    scale: Tensor,
    zero: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
) -> Tensor:
    """Codes clamp(round(x / scale) + zero), half to even, kept as floats; scale and zero by tensor or along `axis`."""
    _refuse_blocks("QuantizeLinear", block_size)
    dtype = zero.dtype if zero is not None else DTYPES[output_dtype or 2]
    zero = torch.zeros_like(scale) if zero is None else zero.to(scale)
    grid = torch.iinfo(dtype)
    return _Quantize.apply(x, _along(scale, x, axis), _along(zero, x, axis), grid.min, grid.max)  # type: ignore[return-value]


def dequantize_linear(
    codes: Tensor, scale: Tensor, zero: Tensor | None = None, *, axis: int = 1, block_size: int = 0
) -> Tensor:
    """(codes - zero) * scale; integers are subtracted as integers, as 32 bits do not fit into a float."""
    _refuse_blocks("DequantizeLinear", block_size)
    if not codes.is_floating_point():
        codes = codes.int()
    if zero is not None:
        codes = codes - _along(zero.to(codes), codes, axis)
    return codes.to(scale.dtype) * _along(scale, codes, axis)


def _along(values: Tensor, x: Tensor, axis: int) -> Tensor:
    """One value per tensor, or one per index of `axis`, in a shape that broadcasts."""
    if values.numel() == 1:
        return values.reshape(())
    return values.reshape([-1 if i == axis % x.dim() else 1 for i in range(x.dim())])


def _refuse_blocks(name: str, size: int) -> None:
    if size:
        raise AdamasError(f"expected {name} with one scale per tensor or channel, got blocks of {size}")


# -------------------------------------------------------------------------------------------------- both at once


@dataclass(frozen=True)
class Codes:
    """Codes that QuantizeLinear made of the values in a slot, one scale for all of them, clipped to first..last."""

    slot: int
    scale: float
    zero: int
    first: int
    last: int

    @staticmethod
    def of(slot: int, scale: Tensor, zero: Tensor) -> Codes | None:
        """None for a scale per channel."""
        grid = torch.iinfo(zero.dtype)
        return Codes(slot, float(scale), int(zero), grid.min, grid.max) if scale.numel() == zero.numel() == 1 else None

    def clipped(self, low: int | None = None, high: int | None = None) -> Codes:
        first = self.first if low is None else max(self.first, low)
        return replace(self, first=first, last=self.last if high is None else min(self.last, high))

    def on(self, scale: Tensor, zero: Tensor) -> bool:
        """Whether DequantizeLinear on this grid gives back what was rounded."""
        return scale.numel() == zero.numel() == 1 and (float(scale), int(zero)) == (self.scale, self.zero)

    def round_trip(self, x: Tensor) -> Tensor:
        """QuantizeLinear, Clip and DequantizeLinear of `x` as training simulates them, with the same gradient."""
        return RoundClamp.apply(x, self.scale, self.first - self.zero, self.last - self.zero)  # type: ignore[return-value]
