"""The one exception that means "the user can mend this", and the words that help them do it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AdamasError(Exception):
    """A mistake that the user can mend: the message says what was expected, what was got and the nearest valid choice."""


def nearest(name: object, choices: Iterable[object]) -> str:
    """End a sentence about an unknown name: the closest valid name, then all of them."""
    valid = sorted(map(str, choices))
    close = difflib.get_close_matches(str(name), valid, n=1, cutoff=0.4)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    return f"{hint} Valid: {', '.join(valid) or 'none'}"
