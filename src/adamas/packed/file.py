"""The packed file: a version and a checksum, then safetensors under zstd.

Bytes 0 to 31 are a frame that zstd skips: "adamas", 0, the version, and 16 bytes of BLAKE2b of all that follows. So `zstd -d`
gives the safetensors container, whose tensors are bytes: `card` and `index` (JSON) and the parts of `layout`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import Tensor

from adamas.errors import AdamasError
from adamas.files import write
from adamas.packed.entropy import entropy_bound
from adamas.packed.layout import LEVEL, Parts, arranged, check, state_of
from adamas.packed.limits import TEXT, WINDOW, content_limit, tensor_limit
from adamas.packed.tensors import Entry, Grid
from adamas.registry import parse

VERSION = 1
HEAD = (0x184D2A50).to_bytes(4, "little") + (24).to_bytes(4, "little") + b"adamas\0"
DIGEST = 16


@dataclass(frozen=True, eq=False)
class Packed:
    """What a packed file holds: the card, the index, and parts of the very lengths that the index asks for."""

    card: dict[str, Any]
    entries: list[Entry]
    parts: Parts

    def state(self) -> dict[str, Tensor]:
        """All tensors by name. Errors: positions or codes that contradict the index."""
        return state_of(self.entries, self.parts)

    def entropy_bound(self) -> int:
        """See `entropy_bound`."""
        return entropy_bound(self.entries, self.parts)


# --------------------------------------------------------------------------------------------------------- writing


def write_packed(path: Path, card: Mapping[str, Any], state: Mapping[str, Tensor], grids: Mapping[str, Grid]) -> dict[str, int]:
    """Write a packed file, whole or not at all; its bytes on disk by part. For `grids` and errors see `arranged`.

    What was written is read back before it takes its place.
    """
    entries, parts = arranged(state, grids)
    defaults = {field.name: field.default for field in fields(Entry) if field.default is not MISSING}
    index = [{key: value for key, value in vars(entry).items() if value != defaults.get(key)} for entry in entries]
    blob = save({"card": _text(card), "index": _text(index)} | parts)
    compressed = _compressed(blob)
    body = b"".join(compressed.values())
    head = HEAD + bytes([VERSION]) + hashlib.blake2b(body, digest_size=DIGEST).digest()
    write(path, lambda temporary: _write_checked(temporary, head + body, state))
    sizes = {part: len(piece) for part, piece in compressed.items()}
    return sizes | {"container": sizes["container"] + len(head)}


def _write_checked(path: Path, data: bytes, state: Mapping[str, Tensor]) -> None:
    path.write_bytes(data)
    for name, tensor in read_packed(path).state().items():
        same = (tensor == state[name].cpu()) | (tensor != tensor)  # nan is no number's equal
        assert bool(same.all()), f"{name} does not come back"


def _text(value: Any) -> np.ndarray:
    return np.frombuffer(json.dumps(value, separators=(",", ":"), allow_nan=False).encode(), np.uint8)


def _compressed(blob: bytes) -> dict[str, bytes]:
    """One zstd frame in pieces: the container's own header, then every part."""
    start = 8 + int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8:start])
    ends = {"container": start} | {
        part: start + header[part]["data_offsets"][1] for part in sorted(header, key=lambda part: header[part]["data_offsets"])
    }
    frame = zstandard.ZstdCompressor(level=LEVEL).compressobj(size=len(blob))
    pieces, done = {}, 0
    for part, end in ends.items():
        pieces[part] = frame.compress(blob[done:end]) + frame.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        done = end
    last = list(pieces)[-1]
    pieces[last] += frame.flush()
    return pieces


# --------------------------------------------------------------------------------------------------------- reading


def read_packed(path: Path) -> Packed:
    """Read a packed file; every length and the checksum are verified before anything is made of it.

    Errors: not a packed file, another version, damaged, or asking for more than a file of its size may (see `limits`).
    """
    try:
        with path.open("rb") as file:
            data = _known(file.read(len(HEAD))) + file.read()
        card, entries, parts = _opened(data)
        if not isinstance(card, dict):
            raise AdamasError(f"expected a card that is a JSON object, got {type(card).__name__}")
        index = _index(entries)
        check(index, parts, tensor_limit(len(data)))
    except AdamasError as error:
        raise AdamasError(f"{path}: {error}") from None
    return Packed(card, index, parts)


def _index(raw: Any) -> list[Entry]:
    try:
        return parse(list[Entry], raw)  # type: ignore[arg-type]
    except AdamasError as error:
        raise AdamasError(f"expected an index of tensors, got one with {str(error).splitlines()[0]}") from None


def _opened(data: bytes) -> tuple[Any, Any, Parts]:
    """Card, index and the other parts of the container."""
    blob = _decompressed(_verified(data), content_limit(len(data)))
    try:
        parts = load(blob)
    except (SafetensorError, KeyError, ValueError) as error:
        raise AdamasError(f"expected a safetensors container, got {error}") from None
    texts = [parts.pop(name, np.empty(0, np.uint8)) for name in ("card", "index")]
    if max(text.nbytes for text in texts) > TEXT:
        raise AdamasError(f"expected a card and an index of at most {TEXT:,} bytes, got more")
    try:
        card, index = (json.loads(text.tobytes()) for text in texts)
    except (ValueError, RecursionError) as error:
        raise AdamasError(f"expected a card and an index in JSON, got {error}") from None
    return card, index, parts


def _known(head: bytes) -> bytes:
    if head != HEAD:
        raise AdamasError("expected a file that `adamas pack` wrote, got something else")
    return head


def _verified(data: bytes) -> bytes:
    """What follows the head and its version and checksum."""
    start = len(HEAD) + 1 + DIGEST
    version = int.from_bytes(data[len(HEAD) : len(HEAD) + 1], "little")
    if version != VERSION:
        raise AdamasError(f"expected version {VERSION} of the packed format, got {version}; a newer adamas may read it")
    if hashlib.blake2b(data[start:], digest_size=DIGEST).digest() != data[len(HEAD) + 1 : start]:
        raise AdamasError("expected the file as it was written, its checksum says that it is damaged or cut short")
    return data[start:]


def _decompressed(body: bytes, limit: int) -> bytes:
    try:
        frame = zstandard.get_frame_parameters(body)
        if frame.content_size > limit:
            declared = "no size" if frame.content_size == zstandard.CONTENTSIZE_UNKNOWN else f"{frame.content_size:,} bytes"
            raise AdamasError(f"expected at most {limit:,} bytes of content in so small a file, it declares {declared}")
        return zstandard.ZstdDecompressor(max_window_size=WINDOW).decompress(body, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise AdamasError(f"expected one zstd frame, got {error}") from None
