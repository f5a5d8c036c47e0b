"""One-dimensional k-means, exactly: values are sorted once, and every iteration costs the number of centres, not of values."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def lloyd(values: Tensor, start: Tensor | int, iterations: int = 50) -> Tensor:
    """The centres (K,), in order, after Lloyd's iterations over values (N,), at least one, from given centres.

    A number K starts from the middles of K equally large shares of the sorted values. A centre that loses all its values takes
    the place of a value that is farthest from its own, so all stay of use. Iterations end when no assignment changes.
    Source: Lloyd 1982.
    """
    ordered = np.sort(values.detach().flatten().float().cpu().numpy()).astype(np.float64)  # searching would cast each time
    sums = np.zeros(len(ordered) + 1)
    np.cumsum(ordered, out=sums[1:])
    found, before = _start(ordered, start), np.empty(0)
    for _ in range(iterations):
        edges = _edges(ordered, found)
        if np.array_equal(edges, before):
            break
        counts = np.diff(edges)
        means = np.divide(sums[edges[1:]] - sums[edges[:-1]], counts, out=found.copy(), where=counts > 0)
        found, before = np.sort(_revived(ordered, edges, means, counts)), edges
    return torch.from_numpy(found).to(values)


def _start(ordered: np.ndarray, start: Tensor | int) -> np.ndarray:
    if isinstance(start, Tensor):
        return np.sort(start.detach().double().cpu().numpy())
    return ordered[((np.arange(start) + 0.5) / start * len(ordered)).astype(int)]


def _edges(ordered: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Where the values of each centre begin in the sorted ones, and where those of the last end."""
    between = np.searchsorted(ordered, (centres[1:] + centres[:-1]) / 2, side="right")
    return np.concatenate([[0], between, [len(ordered)]])


def _revived(ordered: np.ndarray, edges: np.ndarray, means: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Give centres without values those values that are farthest from the centre of their own, one from each cell."""
    empty = np.flatnonzero(counts == 0)
    if not len(empty):
        return means
    full = np.flatnonzero(counts > 0)
    low, high = ordered[edges[full]], ordered[edges[full + 1] - 1]
    away = np.maximum(means[full] - low, high - means[full])
    worst = np.argsort(-away, kind="stable")[: len(empty)]
    ends = np.where(means[full] - low >= high - means[full], low, high)[worst]
    revived = means.copy()
    revived[empty[: len(worst)]] = np.where(away[worst] > 0, ends, means[empty[: len(worst)]])
    return revived


def nearest(values: Tensor, centres: Tensor) -> Tensor:
    """The centre nearest to each value, any shape."""
    ordered = centres.sort().values
    return ordered[torch.bucketize(values.contiguous(), (ordered[1:] + ordered[:-1]) / 2)]
