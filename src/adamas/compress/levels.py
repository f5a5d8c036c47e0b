"""Sets of few weight levels, each with its own scale, and the nearest member of each: its least-squares projection."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Levels = Literal["binary", "ternary", "ternary_paper", "uniform"]


def project(weight: Tensor, levels: Levels, bits: int, per_channel: bool, hidden: bool = False) -> Tensor:
    """The nearest tensor with these levels times one scale, or one scale per output channel.

    `bits` is the width of uniform levels. Where some weights are `hidden` by a mask, zeros stay zero and do not count.
    """
    rows = weight.reshape(len(weight) if per_channel else 1, -1)
    if levels == "binary":
        found = _binary(rows, rows != 0 if hidden else torch.ones_like(rows, dtype=torch.bool))
    elif levels == "uniform":
        found = _uniform(rows, bits)
    else:
        found = _ternary(rows) if levels == "ternary" else _ternary_paper(rows)
    return found.view_as(weight)


def width(levels: Levels, bits: int) -> int:
    """Bits of one code: 1 for two levels, 2 for three."""
    return {"binary": 1, "uniform": bits}.get(levels, 2)


def _binary(rows: Tensor, shown: Tensor) -> Tensor:
    """mean|w| * {-1, 1}; the sign of 0 is 1."""
    scale = (rows.abs() * shown).sum(1, keepdim=True) / shown.sum(1, keepdim=True).clamp_min(1)
    return torch.where(rows < 0, -scale, scale) * shown


def _ternary(rows: Tensor) -> Tensor:
    """scale * {-1, 0, 1}, the nearest of all: the t largest stay that maximise (sum of them)^2 / t.

    Source: Yin et al. 2016, the exact projection.
    """
    sums = rows.abs().sort(1, descending=True).values.double().cumsum(1)
    counts = torch.arange(1, rows.shape[1] + 1, device=rows.device, dtype=torch.float64)
    best = (sums.square() / counts).argmax(1, keepdim=True)
    scale = (sums.gather(1, best) / (best + 1)).to(rows.dtype)
    return rows.sign() * scale * (rows.abs() > scale / 2)


def _ternary_paper(rows: Tensor) -> Tensor:
    """What Li, Wang and Xin's code does: |w| >= .7 mean|w| stay, at a scale too small: their sum over the number of all."""
    size = rows.abs()
    shown = size >= 0.7 * size.mean(1, keepdim=True)
    return rows.sign() * shown * (size * shown).mean(1, keepdim=True)


def _uniform(rows: Tensor, bits: int) -> Tensor:
    """scale * {0, +-1, ..., +-(2^(bits-1) - 1)}: codes and scale in turn, each the best for the other, until they stay.

    Starts at scale 2 max|w| / (2^bits - 1), whose single pass is what Li, Wang and Xin's code does.
    """
    last, size = 2 ** (bits - 1) - 1, rows.abs()
    scale = 2 * size.amax(1, keepdim=True) / (2**bits - 1)
    codes = torch.zeros_like(size)
    for _ in range(100):
        before, codes = codes, (size / scale.clamp_min(torch.finfo(size.dtype).tiny)).round().clamp(max=last)
        if torch.equal(before, codes):
            break
        scale = (size * codes).sum(1, keepdim=True) / codes.square().sum(1, keepdim=True).clamp_min(1)
    return rows.sign() * codes * scale
