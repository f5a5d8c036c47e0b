"""How small a packed file could be: the order-0 entropy of what it stores, which no code for single symbols undercuts."""

from __future__ import annotations

import math

import numpy as np

from adamas.packed.layout import BYTES, Parts, contents
from adamas.packed.tensors import Entry


def entropy(symbols: np.ndarray) -> float:
    """Bits per symbol of non-negative integers (N,), by their own frequencies."""
    counts = np.bincount(symbols.reshape(-1))
    shares = counts[counts > 0] / max(1, symbols.size)
    return float(-(shares * np.log2(shares)).sum())


def entropy_bound(entries: list[Entry], parts: Parts) -> int:
    """Bytes below which positions, codes and values cannot be stored symbol by symbol; card and index are not counted.

    Positions and codes are counted tensor by tensor, as if their frequencies were known for free; values byte by byte.
    """
    bits = 0.0
    for entry, content in contents(entries, parts):
        if entry.positions in ("bitmap", "gaps"):
            bits += entry.numel * _binary(entry.count / max(1, entry.numel))
        if content.codes is not None:
            bits += len(content.codes) * entropy(content.codes)
    bits += sum(plane.size * entropy(plane) for part, planes in parts.items() if part not in BYTES for plane in planes)
    return math.ceil(bits / 8)


def _binary(share: float) -> float:
    return -sum(p * math.log2(p) for p in (share, 1 - share) if p)
