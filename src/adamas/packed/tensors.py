"""One tensor as an entry of an index and as numbers: where it is not zero, and codes or values for what stands there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Le, MaxLen
from torch import Tensor

from adamas.errors import AdamasError
from adamas.packed.bits import WIDEST

TINY = 1e-12
"""The least scale, as in the quantizers."""
SPARSE = 0.75
"""Positions are stored where at most this share of a tensor is not zero."""
LEVELS = 256
"""The largest codebook that is looked for."""
_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_INTEGERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (*_FLOATS, *_INTEGERS)}
Size = Annotated[int, Ge(0), Le(2**62)]


@dataclass(frozen=True)
class Entry:
    """What the index says of one tensor.

    `positions`: values are stored for all of it, or for `count` places, written as a bitmap, as gaps (in `bytes` bytes) or
    like those of entry number `like`. `values`: raw; codes of `width` bits into a codebook of `levels` values; or codes of a
    grid of `bits` bits, stored in `width`, and the largest value of each of `levels` equal runs of channels.
    """

    name: str
    dtype: str
    shape: Annotated[tuple[Size, ...], MaxLen(8)]
    positions: Literal["all", "bitmap", "gaps", "like"] = "all"
    values: Literal["raw", "codebook", "scaled"] = "raw"
    count: Size = 0
    bytes: Size = 0
    like: Size = 0
    bits: Annotated[int, Ge(2), Le(WIDEST)] = 8
    width: Annotated[int, Ge(0), Le(WIDEST)] = 0
    levels: Size = 0

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor in memory."""
        return self.numel * DTYPES[self.dtype].itemsize

    @property
    def stored(self) -> int:
        """How many codes or values are stored."""
        return self.numel if self.positions == "all" else self.count

    @property
    def part(self) -> str:
        """Where its values are stored: with codebooks and scales, among weights, or among biases and norms."""
        raw = "weights" if len(self.shape) > 1 else "vectors"
        return f"{raw if self.values == 'raw' else 'scales'}.{self.dtype}"

    def needs(self) -> dict[str, int]:
        """How much of every part is its own."""
        values = self.stored if self.values == "raw" else self.levels
        places = {"bitmap": -(-self.numel // 8), "gaps": self.bytes}.get(self.positions, 0)
        codes = 0 if self.values == "raw" else -(-self.stored * self.width // 8)
        return {"positions": places, "codes": codes, self.part: values}


@dataclass(frozen=True)
class Grid:
    """What a quantizer says of its weight: codes of `bits` bits, a scale per output channel or one for all."""

    bits: int
    per_channel: bool


@dataclass(frozen=True, eq=False)
class Content:
    """What an entry stores: places (N,) or None for all, codes (N,) or None, and raw values, a codebook or largest values.

    `bits` is the grid of codes that are no codebook's, else None.
    """

    places: np.ndarray | None
    codes: np.ndarray | None
    values: Tensor
    bits: int | None = None


# -------------------------------------------------------------------------------------------------------- encoding


def split(tensor: Tensor, grid: Grid | None = None) -> Content:
    """The content from which `join` restores a tensor exactly; the sign of a zero may be lost."""
    flat = tensor.detach().cpu().contiguous().flatten()
    places = None
    if int(flat.count_nonzero()) <= SPARSE * len(flat):
        places = flat.nonzero().flatten().numpy()
        flat = flat[torch.from_numpy(places)]
    if grid and len(flat):
        content = _scaled(tensor, places, flat, grid)
        if torch.equal(scaled_values(content, tensor.numel()), flat):
            return content
    return _codebook(places, flat) or Content(places, None, flat)


def _scaled(tensor: Tensor, places: np.ndarray | None, flat: Tensor, grid: Grid) -> Content:
    rows = tensor.detach().cpu().reshape(len(tensor) if grid.per_channel else 1, -1)
    largest, last = rows.abs().amax(1), 2 ** (grid.bits - 1) - 1
    at = _channels(places, tensor.numel(), len(largest))
    codes = (flat / (largest / last).clamp_min(TINY)[at]).round().nan_to_num().clamp(-last, last)
    return Content(places, codes.int().numpy() + last, largest, grid.bits)


def _channels(places: np.ndarray | None, numel: int, channels: int) -> Tensor:
    """The channel of every stored value."""
    index = torch.arange(numel) if places is None else torch.from_numpy(places)
    return index.div(max(1, numel // max(1, channels)), rounding_mode="floor")


def _codebook(places: np.ndarray | None, flat: Tensor) -> Content | None:
    """Codes into the different values in order, if these are few enough to be worth it."""
    if not len(flat) or len(flat[: 16 * LEVELS].unique()) > LEVELS:
        return None
    levels, codes = flat.unique(return_inverse=True)
    few = len(levels) <= min(LEVELS, len(flat) // 4) and torch.equal(levels[codes], flat)  # unequal: there is a nan
    return Content(places, codes.numpy(), levels) if few else None


# -------------------------------------------------------------------------------------------------------- decoding


def join(entry: Entry, content: Content) -> Tensor:
    """The tensor of an entry. Errors: a code beyond the codebook or the grid."""
    values = content.values
    if content.codes is not None:
        most, largest = entry.levels if content.bits is None else 2**content.bits - 1, int(content.codes.max(initial=0))
        if len(content.codes) and largest >= most:
            raise AdamasError(f"{entry.name}: expected codes below {most}, got {largest}")
        scaled = content.bits is not None
        values = scaled_values(content, entry.numel) if scaled else values[torch.from_numpy(content.codes.astype(np.int64))]
    if content.places is None:
        return values.reshape(entry.shape)
    tensor = torch.zeros(entry.numel, dtype=values.dtype)
    tensor[torch.from_numpy(content.places)] = values
    return tensor.reshape(entry.shape)


def scaled_values(content: Content, numel: int) -> Tensor:
    """Codes times the scale of their channel; the outermost codes are the channel's largest value itself.

    So a quantizer that computes its scale from these values finds the very same one.
    """
    assert content.codes is not None and content.bits is not None
    last = 2 ** (content.bits - 1) - 1
    codes = torch.from_numpy(content.codes.astype(np.int32)) - last
    at = _channels(content.places, numel, len(content.values))
    largest = content.values[at]
    values = codes * (content.values / last).clamp_min(TINY)[at]
    return torch.where(codes.abs() == last, largest * codes.sign(), values)
