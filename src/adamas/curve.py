"""The security curve: accuracy at every eps, from one run of an attack that looks for the nearest misclassified image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from adamas.attacks.crafting import Terms, crafting
from adamas.attacks.fmn import FMN
from adamas.check import checked_logits
from adamas.data import Data
from adamas.device import channels_last, device_of, seeded
from adamas.errors import AdamasError
from adamas.graph import modes_kept
from adamas.noise import SAMPLES, FixedDraws, draws_noise
from adamas.panel import check_inside, wrong
from adamas.progress import progress
from adamas.registry import label, registered
from adamas.roles import Attack, Threat
from adamas.verdict import Rate

GRID = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0)
"""The distances, in units of the threat's eps, at which a curve is read unless others are asked for."""
STRETCHES = (1.0, 1.001, 1.01)
"""An image on the very boundary may fall back in a batch of another size; then it is tried this much farther away."""


@dataclass(frozen=True)
class Curve:
    """How far away every test image's nearest misclassified image was found, and the accuracy that this leaves at each eps.

    `distances`: in the threat's norm and in pixel units, one per image in the order of the test split; 0 where the clean image
    is misclassified, infinite where nothing was found: such an image counts as right at every eps. A distance that was found
    is an upper bound of the true one, so every rate is one of the robust accuracy.
    """

    threat: str
    attack: str
    n: int
    seed: int
    distances: list[float]
    epsilons: list[float]
    rates: list[Rate]
    median: float
    flags: list[str] = field(default_factory=list)

    def at(self, eps: float) -> Rate:
        """The share of images that nothing within `eps` misclassifies; exact at any eps, not only at the `epsilons`."""
        return rate(self.distances, eps)

    def plain(self) -> dict[str, Any]:
        """Every field as JSON holds it: a distance that is infinite becomes null."""
        finite = [distance if math.isfinite(distance) else None for distance in self.distances]
        return asdict(self) | {"distances": finite, "median": self.median if math.isfinite(self.median) else None}


def security_curve(
    model: nn.Module,
    data: Data,
    threat: Threat,
    attack: Attack = FMN(),  # noqa: B008  (frozen)
    *,
    epsilons: Sequence[float] | None = None,
    seed: int = 0,
    batch_size: int = 250,
) -> Curve:
    """The accuracy on the test split at every one of `epsilons` (pixels, in the threat's norm), from one run of `attack`.

    `attack` is one with a method `nearest`, such as fmn. What it finds is classified again in fp32 before it counts. Without
    `epsilons` they are multiples of the threat's eps, from 0 to 4. A network that draws noise is measured by the mean of 8
    draws, which the seed fixes for every image.
    Source: Biggio, Roli 2018, section 4 (security evaluation curves).
    Errors: an attack that looks for no nearest image, or leaves [0, 1]; epsilons that are no distances; a model that gives no
    finite logits.
    """
    find, epsilons, device = _nearest(attack), _checked(epsilons, threat), device_of(model)
    distances: list[float] = []
    channels_last(model)
    with modes_kept(model), progress("curve", len(data.test) * attack.cost) as advance:
        flags, model = checked_logits(model.eval(), next(data.test[:64].batches(64, device=device))[0], len(data.classes))
        if draws_noise(model):
            model = FixedDraws(model, SAMPLES, seed).eval()
        terms = Terms(batch_size=batch_size, tick=lambda passes: advance(steps=passes))
        for x, y in data.test.batches(batch_size, device=device):
            found, right = x.clone(), (~wrong(model, x, y)).nonzero().squeeze(1)
            if len(right):
                with seeded(seed, device), crafting(model, terms=terms) as victim:
                    found[right] = find(victim, x[right], y[right], threat)
            distances += _confirmed(model, found, x, y, attack, threat).tolist()
            advance(f"{len(distances)} of {len(data.test)} images", steps=attack.cost * (len(x) - len(right)))
    rates = [rate(distances, eps) for eps in epsilons]
    return Curve(
        threat=threat.name, attack=label(attack), n=len(distances), seed=seed, distances=distances,
        epsilons=epsilons, rates=rates, median=median(distances), flags=flags,
    )  # fmt: skip


def rate(distances: Sequence[float], eps: float) -> Rate:
    """The share of images whose distance is more than `eps`; misclassified clean images (distance 0) count at no eps."""
    return Rate.of(sum(distance > eps for distance in distances), len(distances))


def _nearest(attack: Attack) -> Any:
    if not hasattr(attack, "nearest"):
        able = ", ".join(name for name, cls in registered("attack").items() if hasattr(cls, "nearest"))
        raise AdamasError(f"curve: expected an attack that looks for the nearest image, got {label(attack)}; valid: {able}")
    return attack.nearest  # type: ignore[attr-defined]


def _checked(epsilons: Sequence[float] | None, threat: Threat) -> list[float]:
    """The distances in order, each once."""
    if epsilons is None:
        epsilons = [share * threat.eps for share in GRID]
    if not epsilons or not all(math.isfinite(eps) and eps >= 0 for eps in epsilons):
        raise AdamasError(f"epsilons: expected distances in pixels, finite and at least 0, got {list(epsilons)}")
    return sorted(set(epsilons))


def _confirmed(model: nn.Module, found: Tensor, x: Tensor, y: Tensor, attack: Attack, threat: Threat) -> Tensor:
    """The distance (N,) of every image found that is misclassified in a pass of its own; infinite for the others."""
    farthest = threat.distance((x < 0.5).to(x.dtype), x).max()
    check_inside(attack, found, x, replace(threat, eps=float(farthest)))  # type: ignore[type-var]
    distance = torch.full((len(x),), torch.inf, device=x.device)
    for stretch in STRETCHES:
        x_adv = found if stretch == 1 else (x + stretch * (found - x)).clamp(0, 1)
        holds = wrong(model, x_adv, y) & distance.isinf()
        distance = threat.distance(x_adv, x).where(holds, distance)
    return distance
