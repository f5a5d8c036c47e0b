"""A model reduced to what it computes with: nothing that a mask hides or a rounding drops is kept, and no output changes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from adamas.compress.masks import Mask
from adamas.compress.quantizers import QuantizedBias, QuantizedWeight
from adamas.packed.tensors import Grid
from adamas.weights import private_copy


@torch.no_grad()
def settled(model: nn.Module) -> tuple[nn.Module, dict[str, Grid]]:
    """A copy with the same effective tensors from originals that are as plain as can be, and the grids of quantized weights.

    Masked weights are zero, masks hide exactly what is zero, quantized weights lie on their grid, biases that are rounded have
    few digits. A tensor that would not come out exactly the same (up to the sign of zeros) is left as it was. Training can go
    on from the copy.
    """
    copy: Any = private_copy(model).cpu().eval()
    grids = {}
    for path, module in list(copy.named_modules()):
        if parametrize.is_parametrized(module):
            for name, steps in module.parametrizations.items():
                quantizer = _settle(module, name, steps)
                if quantizer is not None:
                    original = f"{path}.parametrizations.{name}.original".lstrip(".")
                    grids[original] = Grid(quantizer.bits, quantizer.per_channel)
    return copy, grids


def _settle(module: nn.Module, name: str, steps: Any) -> QuantizedWeight | None:
    """Replace what a parametrized tensor is computed from, in place; the quantizer among its steps, if there is one."""
    before = {key: value.clone() for key, value in steps.state_dict().items()}
    effective = getattr(module, name).clone()
    quantizer = next((step for step in steps if isinstance(step, QuantizedWeight)), None)
    plain = effective if quantizer is None else _on_grid(steps, quantizer, effective)
    if plain.shape == steps.original.shape:
        steps.original.copy_(plain + 0.0)  # which makes -0 a 0
        shown = plain != 0
        for step in steps:
            if step is quantizer:
                shown = effective != 0
            if isinstance(step, Mask):
                step.mask.copy_(shown)
        if any(isinstance(step, QuantizedBias) for step in steps):
            _shorten(module, name, steps.original, effective)
    if not torch.equal(getattr(module, name), effective):
        steps.load_state_dict(before)
        getattr(module, name)  # leaves the quantizer with the step that its bias needs
    return quantizer


def _shorten(module: nn.Module, name: str, original: Tensor, effective: Tensor) -> None:
    """Give the values that are rounded as few digits as round to the same: of 23 binary ones, the last become zeros."""
    shortest, bits = original.clone(), original.clone().view(torch.int32)
    for digits in range(1, 23):
        rounded = (bits + (1 << (digits - 1)) >> digits << digits).view(torch.float32)
        original.copy_(rounded)
        shortest = torch.where(getattr(module, name) == effective, rounded, shortest)
    original.copy_(shortest)


def _on_grid(steps: Any, quantizer: QuantizedWeight, effective: Tensor) -> Tensor:
    """What the quantizer reads, rounded, where it shows; outermost levels are the largest value, which makes the scale."""
    read = steps.original
    for step in steps:
        if step is quantizer:
            break
        read = step(read)
    scale = quantizer.scale(read)
    codes = (read / scale).round()
    rows = read.abs().reshape(len(read) if quantizer.per_channel else 1, -1)
    largest, where = rows.max(1, keepdim=True)
    values = torch.where(codes.abs() == quantizer.last, largest.view_as(scale) * codes.sign(), codes * scale)
    needed = torch.zeros_like(rows, dtype=torch.bool).scatter_(1, where, True).view_as(read)  # whatever hides them later
    return values * (needed | (effective != 0))
