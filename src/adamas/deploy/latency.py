"""How fast exported files are here: interleaved runs on equal threads, so that a busy machine is unfair to none of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adamas.deploy.runtime import open_session
from adamas.errors import AdamasError

WARM_UP = 3
FEWEST = 3


@dataclass(frozen=True)
class Latency:
    """Milliseconds per batch: median, 95th percentile and minimum over `runs` runs."""

    p50: float
    p95: float
    min: float
    runs: int


def latency(
    paths: Mapping[str, Path],
    image_shape: tuple[int, int, int],
    *,
    batch_sizes: Sequence[int] = (1, 64),
    threads: int = 1,
    repeats: int = 200,
    seconds: float = 20.0,
) -> dict[str, dict[int, Latency]]:
    """Time every ONNX file at every batch size, {name: {batch size: Latency}}, on random images.

    Files take turns (A B C A B C ...) after a warm-up, up to `repeats` rounds for each batch size; rounds stop early when
    `seconds` are used up in all, but three are always run. Reading in and copying out are included.
    Errors: a file that ONNX Runtime cannot run on such images.
    """
    sessions = {name: open_session(path, threads) for name, path in paths.items()}
    times: dict[str, dict[int, Latency]] = {name: {} for name in paths}
    for batch in batch_sizes:
        images = np.random.default_rng(0).random((batch, *image_shape), dtype=np.float32)
        runs = {name: _run(name, session, images) for name, session in sessions.items()}
        for name, taken in _take_turns(runs, repeats, seconds / len(batch_sizes)).items():
            low, middle, high = np.percentile(np.array(taken) * 1000, [0, 50, 95]).tolist()
            times[name][batch] = Latency(middle, high, low, len(taken))
    return times


def _run(name: str, session: object, images: np.ndarray) -> Callable[[], object]:
    feed = {session.get_inputs()[0].name: images}  # type: ignore[attr-defined]
    try:
        session.run(None, feed)  # type: ignore[attr-defined]
    except Exception as error:
        message = (str(error).splitlines() or [""])[0]
        raise AdamasError(f"{name}: expected a file that takes images {images.shape}, got {message}") from None
    return lambda: session.run(None, feed)  # type: ignore[attr-defined]


def _take_turns(runs: Mapping[str, Callable[[], object]], repeats: int, seconds: float) -> dict[str, list[float]]:
    end = time.perf_counter() + seconds
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for index in range(WARM_UP + max(repeats, FEWEST)):
        if index >= WARM_UP + FEWEST and time.perf_counter() > end:
            break
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if index >= WARM_UP:
                taken[name].append(time.perf_counter() - start)
    return taken
