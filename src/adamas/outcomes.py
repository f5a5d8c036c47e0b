"""What happened to every image, kept chunk by chunk, so that an evaluation can be killed, resumed, split and merged."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from adamas.errors import AdamasError
from adamas.files import read_json, write_json

Letters = dict[str, str]
"""By classifier one letter per image: 0 wrong or broken, 1 right or stood, - not attacked."""


@dataclass
class Chunk:
    """Consecutive test images: the outcome of the clean pass and of every finished attack, with what each took."""

    first: int
    n: int
    clean: Letters = field(default_factory=dict)
    attacks: list[Letters] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Store:
    """Chunks as files of one folder (or nowhere, without one); `key` tells one evaluation from another."""

    folder: Path | None
    key: str

    def load(self, first: int, n: int) -> Chunk:
        """The chunk as far as it was kept. Errors: a file of another evaluation, or a damaged one."""
        if self.folder is None or not self._path(first).exists():
            return Chunk(first, n)
        path = self._path(first)
        kept = read_json(path)
        if kept.pop("key", None) != self.key:
            raise AdamasError(
                f"{path}: expected the state of this evaluation, got another's (model, data, attacks, threat, seed or settings "
                "differ); choose another --state directory or delete this one"
            )
        chunk = _checked(path, kept)
        if (chunk.first, chunk.n) != (first, n):
            raise AdamasError(f"{path}: expected {n} images from {first}, got {chunk.n} from {chunk.first}")
        return chunk

    def save(self, chunk: Chunk) -> None:
        if self.folder is not None:
            write_json(self._path(chunk.first), {"key": self.key, **asdict(chunk)})

    def merge(self, chunks: Sequence[Chunk], labels: Sequence[str]) -> None:
        """Write every image's outcomes, without times, as outcomes.json: equal bytes however the work was split."""
        if self.folder is not None:
            whole = {name: "".join(chunk.clean[name] for chunk in chunks) for name in chunks[0].clean}
            attacks = [
                {name: "".join(chunk.attacks[i][name] for chunk in chunks) for name in whole} for i in range(len(labels))
            ]
            by_label = [{"attack": label, **letters} for label, letters in zip(labels, attacks, strict=True)]
            write_json(self.folder / "outcomes.json", {"key": self.key, "clean": whole, "attacks": by_label})

    def _path(self, first: int) -> Path:
        assert self.folder is not None
        return self.folder / f"images-{first:07d}.json"


def _checked(path: Path, kept: dict[str, Any]) -> Chunk:
    damaged = AdamasError(f"{path}: expected the outcomes of one chunk, got a damaged file; delete it to have it made again")
    try:
        chunk = Chunk(**kept)
        whole = all(
            re.fullmatch(r"[01-]*", text) and len(text) == chunk.n
            for by in [chunk.clean, *chunk.attacks]
            for text in by.values()
        )
        sound = whole and len(chunk.attacks) == len(chunk.seconds) and bool(chunk.clean)
    except (TypeError, AttributeError):
        raise damaged from None
    if not sound:
        raise damaged
    return chunk


def content_key(*parts: Any) -> str:
    """A short name for JSON values: equal names mean equal values."""
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=10).hexdigest()
