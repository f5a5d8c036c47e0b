"""What an evaluation found of one classifier: shares of images with their intervals, attack by attack."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from adamas.outcomes import Chunk
from adamas.registry import label
from adamas.roles import Attack, Family


@dataclass(frozen=True)
class Rate:
    """A share of n images with its 95 % Wilson interval."""

    right: int
    n: int
    value: float
    low: float
    high: float

    @classmethod
    def of(cls, right: int, n: int) -> Rate:
        """Source: Wilson 1927, with z = 1.96."""
        z = 1.959963984540054
        share, scale = right / n, 1 + z * z / n
        middle = (share + z * z / (2 * n)) / scale
        half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / scale
        low, high = max(0.0, middle - half), min(1.0, middle + half)
        return cls(right, n, share, min(low, share), max(high, share))  # at 0 and 1 rounding would leave the share outside


@dataclass(frozen=True)
class AttackResult:
    """One attack: images it was run on, images it broke that no attack before it had, the accuracy left after it."""

    attack: str
    family: Family
    attacked: int
    broken: int
    accuracy: Rate
    seconds: float


@dataclass(frozen=True)
class Verdict:
    """What one classifier made of the clean images, of every attack's candidates, and of the worst of all."""

    clean: Rate
    attacks: list[AttackResult]
    worst_case: Rate


def counted(name: str, chunks: Sequence[Chunk], parts: Sequence[Attack], exhaustive: bool) -> Verdict:
    """One classifier's verdict, from the letters that `Chunk`s keep of every image."""
    clean = "".join(chunk.clean[name] for chunk in chunks)
    standing, results = clean, []
    for i, attack in enumerate(parts):
        letters = "".join(chunk.attacks[i][name] for chunk in chunks)
        attacked, broken = len(letters) - letters.count("-"), letters.count("0")
        standing = "".join("0" if now == "0" else before for before, now in zip(standing, letters, strict=True))
        left = clean.count("1") - broken if exhaustive else standing.count("1")
        seconds = round(sum(chunk.seconds[i] for chunk in chunks), 3)
        results.append(AttackResult(label(attack), attack.family, attacked, broken, Rate.of(left, len(clean)), seconds))
    return Verdict(Rate.of(clean.count("1"), len(clean)), results, Rate.of(standing.count("1"), len(clean)))
