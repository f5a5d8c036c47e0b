"""Numbers and names as a reader wants to see them."""

from __future__ import annotations

import re

DASH = "–"


def percent(share: float) -> str:
    """A share in [0, 1] as per cent with one decimal, without the sign: 0.6125 is 61.3."""
    return f"{100 * share + 1e-9:.1f}"


def short(count: float) -> str:
    """A count in three digits: 549,994 is 550k."""
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= 0.9995 * scale:
            return f"{three(count / scale)}{unit}"
    return f"{count:.0f}"


def size(count: float) -> str:
    """Bytes in decimal units: 2,203,118 is 2.20 MB."""
    number, unit = re.fullmatch(r"([\d.]+)(\D?)", short(count)).groups()  # type: ignore[union-attr]
    return f"{number} {unit}B"


def ms(milliseconds: float) -> str:
    """A latency, to the microsecond below one: 0.071, 1.23, 12.3, 123."""
    return f"{milliseconds:.3f}" if milliseconds < 0.9995 else three(milliseconds)


def three(value: float) -> str:
    """Three digits, and all digits before the point."""
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def listed(names: list[str]) -> str:
    """a, b and c."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def cut(name: str, length: int) -> str:
    """A long name with its end left out."""
    return name if len(name) <= length else name[: length - 1] + "…"


def escaped(name: object) -> str:
    """A foreign name as inert Markdown text on one line."""
    return re.sub(r"([\\`*_\[\]<>|#~&])", r"\\\1", " ".join(str(name).split()))


def fenced(text: str, language: str = "") -> str:
    """A Markdown code block whose fence is longer than any run of backticks inside."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
