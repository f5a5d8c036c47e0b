"""Integer arrays in MATLAB 5 files, with every declared size checked before it is used."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from adamas.errors import AdamasError

_HEADER, _VERSION = 128, b"\x00\x01IM"
_MATRIX, _COMPRESSED = 14, 15
_INTEGERS = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 12: "<i8", 13: "<u8"}
_NUMERIC, _COMPLEX = range(6, 16), 0x800


def read_mat(path: Path, names: tuple[str, ...], limit: int) -> dict[str, np.ndarray]:
    """Those of the named arrays that a little-endian file holds; no compressed array may expand to more than `limit` bytes.

    Errors: no MATLAB 5 file, a damaged one, a named array that is not stored as integers.
    Source: MathWorks, MAT-File Format (level 5). Deviation: not scipy's reader, which a damaged file can crash.
    """
    try:
        content = memoryview(path.read_bytes())
        if content[_HEADER - 4 : _HEADER] != _VERSION:
            raise ValueError
        found = (_matrix(kind, body, names, limit) for kind, body in _elements(content[_HEADER:]))
        return dict(filter(None, found))
    except (OSError, ValueError, LookupError, struct.error, zlib.error) as error:
        raise AdamasError(
            f"{path}: expected a readable MATLAB 5 file of integer arrays, got {type(error).__name__}; copy it again"
        ) from error


def _elements(content: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The type number and the bytes of every element, in order."""
    at = 0
    while at < len(content):
        kind, size = struct.unpack_from("<II", content, at)
        start, padding = at + 8, 0 if kind == _COMPRESSED else -size % 8
        if kind >> 16:  # up to four bytes, packed into the second half of the tag
            kind, size, start, padding = kind & 0xFFFF, kind >> 16, at + 4, 4 - (kind >> 16)
        body = content[start : start + size]
        if len(body) != size or padding < 0:
            raise ValueError
        yield kind, body
        at = start + size + padding


def _matrix(kind: int, body: memoryview, names: tuple[str, ...], limit: int) -> tuple[str, np.ndarray] | None:
    """The name and the array of one element, or None if it is not asked for."""
    if kind == _COMPRESSED:
        body = _inflated(body, limit)
    elif kind != _MATRIX:
        return None
    (_, flags), (_, sizes), (_, title), (stored, data) = islice(_elements(body), 4)
    name, shape = bytes(title).decode("latin-1"), np.frombuffer(sizes, "<i4").tolist()
    if name not in names:
        return None
    (flag,) = struct.unpack_from("<I", flags)
    array = np.frombuffer(data, _INTEGERS[stored])
    if flag & 0xFF not in _NUMERIC or flag & _COMPLEX or math.prod(shape) != array.size:
        raise ValueError
    return name, array.reshape(shape, order="F")


def _inflated(body: memoryview, limit: int) -> memoryview:
    """The content of a compressed matrix, whole and with the right checksum."""
    stream = zlib.decompressobj()
    kind, size = struct.unpack("<II", stream.decompress(body, 8))
    if kind != _MATRIX or size > limit:
        raise ValueError
    content = stream.decompress(stream.unconsumed_tail, size + 1)
    if len(content) != size or not stream.eof:
        raise ValueError
    return memoryview(content)
