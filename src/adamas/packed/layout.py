"""Many tensors as an index and a few parts: all positions, all codes, all values of one type."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import zstandard
from torch import Tensor

from adamas.errors import AdamasError, nearest
from adamas.packed.bits import gaps, packed, places_after, places_in, unpacked
from adamas.packed.tensors import DTYPES, Content, Entry, Grid, join, split

LEVEL = 19
"""How hard zstd looks for a small file."""
BYTES = ("positions", "codes")
"""Parts that are bytes; the others are named after their type, as in `weights.float32`."""

Parts = dict[str, np.ndarray]


# --------------------------------------------------------------------------------------------------------- writing


def arranged(state: Mapping[str, Tensor], grids: Mapping[str, Grid]) -> tuple[list[Entry], Parts]:
    """The index of a state dict and the parts it speaks of: bytes, and values byte by byte, shape (bytes of one, N).

    Tensors named in `grids` are tried as codes times scales; what does not come back exactly is stored as it is.
    Errors: a type of numbers that is not in `DTYPES`.
    """
    entries: list[Entry] = []
    pieces: dict[str, list[Any]] = defaultdict(list)
    seen: dict[tuple[int, bytes], int] = {}
    for name, tensor in state.items():
        dtype = str(tensor.dtype).removeprefix("torch.")
        if dtype not in DTYPES:
            raise AdamasError(f"{name}: expected a type of numbers that can be packed, got {dtype}{nearest(dtype, DTYPES)}")
        content = split(tensor, grids.get(name))
        places = _places(content, tensor.numel(), seen, len(entries), pieces["positions"])
        entry = Entry(name, dtype, tuple(tensor.shape), **places, **_codes(content, pieces["codes"]))
        pieces[entry.part].append(content.values)
        entries.append(entry)
    parts = {part: _joined(found) if part in BYTES else _planes(torch.cat(found)) for part, found in pieces.items()}
    return entries, parts


def _joined(pieces: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0, np.uint8), *pieces])


def _planes(values: Tensor) -> np.ndarray:
    return values.view(torch.uint8).reshape(len(values), values.element_size()).T.contiguous().numpy()


def _places(
    content: Content, numel: int, seen: dict[tuple[int, bytes], int], number: int, pieces: list[np.ndarray]
) -> dict[str, Any]:
    """Add the positions, unless an earlier entry has the same; what the entry says of them."""
    places = content.places
    if places is None:
        return {}
    earlier = seen.setdefault((numel, hashlib.blake2b(places.tobytes()).digest()), number)
    if earlier != number:
        return {"positions": "like", "like": earlier, "count": len(places)}
    skipped, bitmap = gaps(places), np.zeros(numel, bool)
    bitmap[places] = True
    pieces.append(_smallest(skipped, np.packbits(bitmap)))
    if pieces[-1] is skipped:
        return {"positions": "gaps", "count": len(places), "bytes": len(skipped)}
    return {"positions": "bitmap", "count": len(places)}


def _codes(content: Content, pieces: list[np.ndarray]) -> dict[str, Any]:
    """Add the codes at the width that gets smallest; what the entry says of them."""
    codes, levels = content.codes, len(content.values)
    if codes is None:
        return {}
    width = content.bits or (levels - 1).bit_length()
    whole = 8 if width <= 8 else 16
    tight, loose = packed(codes, width), packed(codes, whole)
    pieces.append(_smallest(tight, loose))
    grid = {"values": "codebook"} if content.bits is None else {"values": "scaled", "bits": content.bits}
    return grid | {"width": width if pieces[-1] is tight else whole, "levels": levels}


def _smallest(*candidates: np.ndarray) -> np.ndarray:
    compressor = zstandard.ZstdCompressor(level=LEVEL)
    return min(candidates, key=lambda data: len(compressor.compress(data.tobytes())))


# --------------------------------------------------------------------------------------------------------- reading


def check(entries: list[Entry], parts: Parts, limit: int) -> None:
    """Compare the lengths of the parts with those that the index asks for, before anything is decoded or allocated.

    Errors: a length that differs; tensors of more than `limit` bytes; an entry that contradicts itself.
    """
    for number, entry in enumerate(entries):
        _check_entry(entries, number, entry)
    total = sum(entry.nbytes for entry in entries)
    if total > limit:
        raise AdamasError(f"expected tensors of at most {limit:,} bytes in so small a file, the index asks for {total:,}")
    needed: Counter[str] = Counter()
    for entry in entries:
        needed.update(entry.needs())
    sizes = {part: 1 if part in BYTES else DTYPES[part.partition(".")[2]].itemsize for part in needed}
    wanted = {part: (length,) if part in BYTES else (sizes[part], length) for part, length in needed.items()}
    for part in sorted(wanted | parts):
        found = parts.get(part, np.empty(0))
        if found.dtype != np.uint8 or found.shape != wanted.get(part):
            raise AdamasError(f"expected {part} of shape {wanted.get(part)}, as the index says, got {found.shape}")


def _check_entry(entries: list[Entry], number: int, entry: Entry) -> None:
    if entry.dtype not in DTYPES:
        raise AdamasError(f"{entry.name}: expected a known type of numbers, got {entry.dtype!r}{nearest(entry.dtype, DTYPES)}")
    if entry.count > entry.numel:
        raise AdamasError(f"{entry.name}: expected at most {entry.numel} positions, the index asks for {entry.count}")
    if entry.values == "scaled" and (entry.dtype != "float32" or not entry.levels or entry.numel % entry.levels):
        raise AdamasError(f"{entry.name}: expected scales for equal runs of float32, got {entry.levels} for {entry.dtype}")
    if entry.positions == "like":
        like = entries[entry.like] if entry.like < number else None
        if not like or (like.numel, like.count) != (entry.numel, entry.count) or like.positions not in ("bitmap", "gaps"):
            raise AdamasError(f"{entry.name}: expected positions like those of an earlier tensor, got number {entry.like}")


def contents(entries: list[Entry], parts: Parts) -> Iterator[tuple[Entry, Content]]:
    """The content of every entry; `check` comes first. Errors: positions that contradict the index."""
    used: Counter[str] = Counter()
    places: dict[int, np.ndarray] = {}

    def take(part: str, length: int) -> np.ndarray:
        used[part] += length
        return parts[part][..., used[part] - length : used[part]]

    for number, entry in enumerate(entries):
        needs = entry.needs()
        where, data = None, take("positions", needs["positions"])
        if entry.positions != "all":
            where = places[entry.like] if entry.positions == "like" else _where(entry, data)
            places[number] = where
        data = take("codes", needs["codes"])
        codes = None if entry.values == "raw" else unpacked(data, entry.stored, entry.width)
        values = _values(take(entry.part, needs[entry.part]), DTYPES[entry.dtype])
        yield entry, Content(where, codes, values, entry.bits if entry.values == "scaled" else None)


def _where(entry: Entry, data: np.ndarray) -> np.ndarray:
    read = places_in if entry.positions == "bitmap" else places_after
    try:
        return read(data, entry.count, entry.numel)
    except AdamasError as error:
        raise AdamasError(f"{entry.name}: {error}") from None


def _values(planes: np.ndarray, dtype: torch.dtype) -> Tensor:
    data = torch.from_numpy(planes.T.copy()).flatten()
    return data != 0 if dtype == torch.bool else data.view(dtype)


def state_of(entries: list[Entry], parts: Parts) -> dict[str, Tensor]:
    """The state dict of an index and its parts; `check` comes first. Errors: positions or codes that contradict the index."""
    return {entry.name: join(entry, content) for entry, content in contents(entries, parts)}
