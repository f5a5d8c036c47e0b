"""One row per recipe: the figures of an artifact, or their mean over artifacts that differ only in their seed."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from adamas.artifact import Artifact
from adamas.deploy.files import FP32, INT8
from adamas.errors import AdamasError


@dataclass(frozen=True)
class Run:
    """One artifact's card and evaluation."""

    card: dict[str, Any]
    evaluation: dict[str, Any]

    @property
    def seed(self) -> int:
        return self.card["recipe"]["seed"]


@dataclass(frozen=True)
class Share:
    """A share of the test images and its 95 % Wilson interval; over seeds the means of both, and the standard deviation.

    Seeds share their test images, so the mean over seeds is no surer about other images than one seed is.
    """

    value: float
    low: float
    high: float
    sd: float | None = None

    @property
    def half(self) -> float:
        """The wider side of the interval."""
        return max(self.value - self.low, self.high - self.value)


@dataclass(frozen=True)
class Row:
    """What a table needs of one recipe; shares in [0, 1], sizes in bytes, latency in milliseconds (p50, one image, by file).

    `attacks`: what each attack left by its label; after all attacks before it, unless `exhaustive`; `families` of the same.
    `agreement`: the lowest over seeds, of the shipped file with the network it was made from. `samples`: draws averaged where
    the network draws noise; `noise_off`: its clean and worst case without.
    """

    name: str
    runs: tuple[Run, ...]
    threat: str
    test: int
    exhaustive: bool
    params: int
    nonzeros: int
    paper_bits: int
    packed_bytes: int
    macs: int
    shipped: str
    bytes_on_disk: dict[str, int]
    clean: Share
    attacks: dict[str, Share]
    families: tuple[str, ...]
    worst_case: Share
    shipped_clean: Share
    shipped_worst_case: Share
    agreement: float
    latency: dict[str, float]
    flags: tuple[str, ...]
    samples: int = 1
    noise_off: tuple[Share, Share] | None = None

    @property
    def size(self) -> int:
        """Bytes on disk of the shipped file."""
        return self.bytes_on_disk[self.shipped]

    @property
    def seeds(self) -> list[int]:
        return [run.seed for run in self.runs]

    @property
    def filled(self) -> float:
        """The share of the parameters that is not zero."""
        return self.nonzeros / self.params


def rows(artifacts: Iterable[Artifact]) -> list[Row]:
    """One row per recipe in the order given; artifacts whose recipes differ in nothing but `seed` share a row.

    Errors: no artifact.
    """
    artifacts = list(artifacts)
    if not artifacts:
        raise AdamasError("expected at least one artifact to report on, got none")
    groups: dict[tuple[str, int], list[Run]] = defaultdict(list)
    seen: Counter[tuple[str, int]] = Counter()
    for artifact in artifacts:
        run = Run(artifact.card, artifact.evaluation)
        same = _identity(run)
        groups[same, seen[same, run.seed]].append(run)  # the same recipe and seed once more is a row of its own
        seen[same, run.seed] += 1
    return _numbered([_row(tuple(sorted(runs, key=lambda run: run.seed))) for runs in groups.values()])


def without_seed(run: Run) -> str:
    """The run's name without "seed=K", or what else tells it apart."""
    name = re.sub(r"(^|[\s/])seed=[^\s/]+", r"\1", run.card["name"]).strip(" /")
    return " ".join(name.split()) or run.card["title"] or run.card["network"]


def _identity(run: Run) -> str:
    """Everything that decides the result but the seed; a user's own network is known by the run's name."""
    recipe = {key: value for key, value in run.card["recipe"].items() if key != "seed"}
    own = without_seed(run) if recipe["model"] is None else ""
    parts = [recipe, own, run.card["network"], run.card["image_shape"], run.card["data"]["fingerprint"]]
    return json.dumps(parts, sort_keys=True)


def _numbered(made: list[Row]) -> list[Row]:
    """Rows with names of their own: a second "model" is "model (2)"."""
    count: Counter[str] = Counter()
    named = []
    for row in made:
        count[row.name] += 1
        number = f" ({count[row.name]})" if count[row.name] > 1 else ""
        named.append(Row(**{**vars(row), "name": row.name + number}))
    return named


def _row(runs: tuple[Run, ...]) -> Row:
    first = runs[0].evaluation
    shipped = INT8 if INT8 in first["bytes_on_disk"] else FP32

    def mean(pick: Callable[[dict[str, Any]], float]) -> int:
        return round(fmean(pick(run.evaluation) for run in runs))

    def share(pick: Callable[[dict[str, Any]], dict[str, Any]]) -> Share:
        return _share([pick(run.evaluation) for run in runs])

    return Row(
        name=without_seed(runs[0]),
        runs=runs,
        threat=first["threat"],
        test=first["test"],
        exhaustive=runs[0].card["recipe"]["evaluate"]["exhaustive"],
        params=mean(lambda e: e["cost"]["params"]),
        nonzeros=mean(lambda e: e["cost"]["nonzeros"]),
        paper_bits=mean(lambda e: e["cost"]["paper_bits"]),
        packed_bytes=mean(lambda e: e["cost"]["packed_bytes"]),
        macs=mean(lambda e: e["cost"]["macs"]),
        shipped=shipped,
        bytes_on_disk={file: mean(lambda e, file=file: e["bytes_on_disk"][file]) for file in first["bytes_on_disk"]},
        clean=share(lambda e: e["clean"]),
        attacks={a["attack"]: share(lambda e, i=i: e["attacks"][i]["accuracy"]) for i, a in enumerate(first["attacks"])},
        families=tuple(attack["family"] for attack in first["attacks"]),
        worst_case=share(lambda e: e["worst_case"]),
        shipped_clean=share(lambda e: e["judged"][shipped]["clean"]),
        shipped_worst_case=share(lambda e: e["judged"][shipped]["worst_case"]),
        agreement=min(run.evaluation["parity"][shipped]["agreement"] for run in runs),
        latency=_latency(runs),
        flags=tuple(dict.fromkeys(flag for run in runs for flag in run.evaluation["flags"])),
        samples=first.get("samples", 1),
        noise_off=(share(lambda e: e["noise_off"]["clean"]), share(lambda e: e["noise_off"]["worst_case"]))
        if all(run.evaluation.get("noise_off") for run in runs)
        else None,
    )


def _share(rates: list[dict[str, Any]]) -> Share:
    values = [rate["value"] for rate in rates]
    sd = stdev(values) if len(values) > 1 else None
    return Share(fmean(values), fmean(rate["low"] for rate in rates), fmean(rate["high"] for rate in rates), sd)


def _latency(runs: tuple[Run, ...]) -> dict[str, float]:
    """Mean p50 at batch 1 by file, where it was measured."""
    timed: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        for file, batches in run.evaluation.get("latency", {}).items():
            if "1" in batches:
                timed[file].append(batches["1"]["p50"])
    return {file: fmean(values) for file, values in timed.items()}
