"""Methods timed in turn, in one process: what else the machine does then falls on all of them alike."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from adamas.device import seeded

COLUMNS = ("method", "robust", "seconds", "ratio", "min", "max")


@dataclass(frozen=True)
class Rounds:
    """Seconds and results of every method, one of each per round; methods that find nothing have no accuracy."""

    seconds: dict[str, list[float]]
    results: dict[str, list[Any]]

    def rows(self, floor: str, accuracy: Callable[[Any], float | None]) -> list[tuple[str, ...]]:
        """By method medians of robust accuracy, seconds and ratio to `floor` within the round, then the range of that ratio."""
        return [(name, self._accuracy(name, accuracy), *self._times(name, floor)) for name in self.seconds]

    def _times(self, name: str, floor: str) -> tuple[str, ...]:
        ratios = [mine / bare for mine, bare in zip(self.seconds[name], self.seconds[floor], strict=True)]
        shown = statistics.median(ratios), min(ratios), max(ratios)
        return f"{statistics.median(self.seconds[name]):.2f}", *(f"{ratio:.3f}" for ratio in shown)

    def _accuracy(self, name: str, accuracy: Callable[[Any], float | None]) -> str:
        found = [value for result in self.results[name] if (value := accuracy(result)) is not None]
        return f"{statistics.median(found):.3f}" if found else ""


def interleaved(methods: dict[str, Callable[[], Any]], repeats: int, *, warm_up: bool = True) -> Rounds:
    """Call every method once a round, in an order shuffled anew; all of a round start from the same random streams."""
    rounds = Rounds({name: [] for name in methods}, {name: [] for name in methods})
    shuffle = random.Random(0).shuffle
    for number in range(repeats + warm_up):
        names = list(methods)
        shuffle(names)
        for name in names:
            np.random.seed(number)  # ART draws its starts from numpy
            with seeded(number):
                start = time.perf_counter()
                result = methods[name]()
                seconds = time.perf_counter() - start
            if number >= warm_up:
                rounds.seconds[name].append(seconds)
                rounds.results[name].append(result)
    return rounds
