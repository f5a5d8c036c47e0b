"""Clean and robust accuracy on test data: each attack, and the per-image worst case over all of them."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from adamas.check import check_model
from adamas.data import Data
from adamas.device import channels_last, seeded
from adamas.errors import AdamasError
from adamas.graph import modes_kept
from adamas.progress import progress
from adamas.registry import Count, label, settings
from adamas.roles import AnyAttack, Attack, Threat
from adamas.soundness import gradient_flags


@settings
class Evaluate:
    """Which attacks are run, in this order, on the test images that still stand.

    `exhaustive`: every attack attacks every image that is classified right, so that each figure stands for itself.
    """

    attacks: tuple[AnyAttack, ...] = ("pgd",)  # type: ignore[assignment]
    exhaustive: bool = False
    batch_size: Count = 250


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
    """One attack: images it was run on, images it broke, and the accuracy that was left after it."""

    attack: str
    attacked: int
    broken: int
    accuracy: Rate
    seconds: float


@dataclass(frozen=True)
class Verdict:
    """The same clean and crafted images, judged by another classifier: a shipped file, say."""

    clean: Rate
    worst_case: Rate


@dataclass(frozen=True)
class Evaluation:
    """What a robustness claim needs to be honest: threat, seed, every attack, worst case, flags."""

    threat: str
    seed: int
    clean: Rate
    attacks: list[AttackResult]
    worst_case: Rate
    flags: list[str] = field(default_factory=list)
    judged: dict[str, Verdict] = field(default_factory=dict)


def evaluate(
    model: nn.Module,
    data: Data,
    settings: Evaluate,
    threat: Threat,
    *,
    seed: int = 0,
    judges: Mapping[str, nn.Module] | None = None,
    title: str = "evaluate",
) -> Evaluation:
    """Clean accuracy, accuracy after each attack and per-image worst case on the test split.

    `judges` are other classifiers that score every crafted image too, such as the exported file in its runtime.
    Errors: a model that gives no logits; an attack that leaves the threat.
    """
    device = next(model.parameters()).device
    judges = judges or {}
    channels_last(model)
    check_model(model, next(data.test[:2].batches(2, device=device))[0], len(data.classes))
    tally = _Tally(settings.attacks, judges)
    flags: list[str] = []
    batches = math.ceil(len(data.test) / settings.batch_size)
    with modes_kept(model), progress(title, batches) as advance:
        model.eval()
        for index, (x, y) in enumerate(data.test.batches(settings.batch_size, device=device)):
            with seeded(seed * 1_000_003 + index, device):
                if index == 0:
                    flags = gradient_flags(model, x, y)
                _evaluate_batch(model, x, y, threat, settings, judges, tally)
            advance(tally.note)
    return tally.evaluation(threat, seed, flags)


def _evaluate_batch(
    model: nn.Module, x: Tensor, y: Tensor, threat: Threat, settings: Evaluate, judges: Mapping[str, nn.Module], tally: _Tally
) -> None:
    right = predicts(model, x, y)
    standing = right.clone()
    judged = {name: predicts(judge, x, y) for name, judge in judges.items()}
    tally.add_clean(right, judged)
    for i, attack in enumerate(settings.attacks):
        start = time.perf_counter()
        targets = (right if settings.exhaustive else standing).nonzero().squeeze(1)
        broken = torch.zeros_like(targets, dtype=torch.bool)
        if len(targets):
            x_adv = attack(model, x[targets], y[targets], threat)
            check_inside(attack, x_adv, x[targets], threat)
            broken = ~predicts(model, x_adv, y[targets])
            for name, judge in judges.items():
                judged[name][targets] &= predicts(judge, x_adv, y[targets])
        standing[targets[broken]] = False
        tally.add_attack(i, len(targets), int(broken.sum()), time.perf_counter() - start)
    tally.add_worst(standing, {name: there & right for name, there in judged.items()})  # what was never attacked proves nothing


def predicts(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Which images are classified as their labels say, (N,) bool."""
    with torch.no_grad():
        return model(x).argmax(1) == y


def check_inside(attack: Attack, x_adv: Tensor, x: Tensor, threat: Threat) -> None:
    """Raise an AdamasError unless every crafted image is in [0, 1] and inside the threat, in the dtype evaluated."""
    if x_adv.shape != x.shape or x_adv.dtype != x.dtype:
        raise AdamasError(
            f"attack {label(attack)}: expected {x.dtype} images of shape {tuple(x.shape)}, "
            f"got {x_adv.dtype} of shape {tuple(x_adv.shape)}"
        )
    if not x_adv.isfinite().all():
        raise AdamasError(f"attack {label(attack)}: expected finite images, got nan or inf")
    furthest = float(threat.distance(x_adv, x).max())
    low, high = float(x_adv.min()), float(x_adv.max())
    if furthest > threat.eps * (1 + 1e-5) + 1e-6 or low < 0 or high > 1:
        raise AdamasError(
            f"attack {label(attack)}: expected images in [0, 1] within {threat}, "
            f"got pixels in [{low:.6g}, {high:.6g}] and a distance of {furthest:.6g}"
        )


class _Tally:
    """Counts over batches."""

    def __init__(self, attacks: tuple[Attack, ...], judges: Mapping[str, nn.Module]):
        self.attacks = attacks
        self.n = self.clean = self.worst = 0
        self.attacked, self.broken = [0] * len(attacks), [0] * len(attacks)
        self.left, self.seconds = [0] * len(attacks), [0.0] * len(attacks)
        self.judged = {name: [0, 0] for name in judges}

    @property
    def note(self) -> str:
        return f"clean {self.clean / self.n:.3f}, worst case {self.worst / self.n:.3f}" if self.n else ""

    def add_clean(self, right: Tensor, judged: Mapping[str, Tensor]) -> None:
        self.n += len(right)
        self.clean += int(right.sum())
        for name, right_there in judged.items():
            self.judged[name][0] += int(right_there.sum())

    def add_attack(self, i: int, attacked: int, broken: int, seconds: float) -> None:
        self.attacked[i] += attacked
        self.broken[i] += broken
        self.left[i] += attacked - broken
        self.seconds[i] += seconds

    def add_worst(self, standing: Tensor, judged: Mapping[str, Tensor]) -> None:
        self.worst += int(standing.sum())
        for name, standing_there in judged.items():
            self.judged[name][1] += int(standing_there.sum())

    def evaluation(self, threat: Threat, seed: int, flags: list[str]) -> Evaluation:
        rows = zip(self.attacks, self.attacked, self.broken, self.left, self.seconds, strict=True)
        return Evaluation(
            threat=str(threat),
            seed=seed,
            clean=Rate.of(self.clean, self.n),
            attacks=[AttackResult(label(a), tried, broke, Rate.of(left, self.n), sec) for a, tried, broke, left, sec in rows],
            worst_case=Rate.of(self.worst, self.n),
            flags=flags,
            judged={name: Verdict(Rate.of(c, self.n), Rate.of(w, self.n)) for name, (c, w) in self.judged.items()},
        )
