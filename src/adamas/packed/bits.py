"""Codes of a few bits, bitmaps and gaps as bytes, and back."""

from __future__ import annotations

import numpy as np

from adamas.errors import AdamasError

WIDEST = 16
SKIP = 255
"""The byte that stands for 255 places without an entry; every other byte ends at one."""


def packed(codes: np.ndarray, width: int) -> np.ndarray:
    """Codes in 0..2^width-1 (N,), `width` bits each (0 to 16), highest bit first; the last byte is filled up with zeros."""
    bits = np.empty((len(codes), width), np.uint8)
    for i in range(width):
        bits[:, i] = codes >> (width - 1 - i) & 1
    return np.packbits(bits)


def unpacked(data: np.ndarray, count: int, width: int) -> np.ndarray:
    """The first `count` codes of `packed`, as uint16 (count,)."""
    codes = np.zeros(count, np.uint16)
    for bit in np.unpackbits(data, count=count * width).reshape(count, width).T:
        codes = codes << 1 | bit
    return codes


def gaps(places: np.ndarray) -> np.ndarray:
    """Increasing places (N,) as the number of places skipped before each, one byte per gap below 255."""
    skipped = np.diff(places, prepend=-1) - 1
    long = skipped // SKIP
    data = np.full(len(places) + long.sum(), SKIP, np.uint8)
    data[np.cumsum(long + 1) - 1] = skipped % SKIP
    return data


def places_after(data: np.ndarray, count: int, length: int) -> np.ndarray:
    """The places that `gaps` stands for. Errors: not `count` of them, or one that is not below `length`."""
    ends = data != SKIP
    places = np.cumsum(data.astype(np.int64) + ends)[ends] - 1
    return _checked(places, count, length)


def places_in(bitmap: np.ndarray, count: int, length: int) -> np.ndarray:
    """The places of the ones in a bitmap, highest bit first. Errors: not `count` of them, or one not below `length`."""
    return _checked(np.flatnonzero(np.unpackbits(bitmap)), count, length)


def _checked(places: np.ndarray, count: int, length: int) -> np.ndarray:
    if len(places) != count or (count and places[-1] >= length):
        last = int(places[-1]) if len(places) else None
        raise AdamasError(f"expected {count} positions below {length}, got {len(places)}, the last at {last}")
    return places
