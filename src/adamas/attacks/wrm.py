"""The Wasserstein-robust adversary: ascent on the loss with a price on the distance instead of a ball."""

from __future__ import annotations

import math
from typing import Annotated

from annotated_types import Gt
from torch import Tensor, nn

from adamas.attacks.crafting import Victim, crafting
from adamas.attacks.losses import cross_entropy
from adamas.attacks.search import Search
from adamas.registry import Count, Number, register
from adamas.roles import Attack, Threat


@register("attack", "wrm")
class WRM(Attack):
    """Gradient ascent on strength * cross-entropy - |change|^2 / 2 in pixels, with steps of 1, 1/sqrt(2), 1/sqrt(3) and so on.

    A large `strength` is a strong attack. No ball bounds it: `perturb` returns what it finds, and whoever reports an accuracy
    on such images must report their distances, too. As an attack inside a threat only what lies within eps counts, so that
    it is weak where eps is small; what comes back for the other images is their last iterate, projected into the threat.
    Source: Sinha, Namkoong, Duchi 2018, equation 2b and algorithm 1, with gamma = 1 / (2 * strength); 7 steps and 1.3 as in
    Gui et al. 2019. Deviation: the image is kept in [0, 1].
    """

    family = "cross-entropy gradient"
    steps: Count = 7
    strength: Annotated[Number, Gt(0)] = 1.3

    @property
    def cost(self) -> float:
        return 3 * self.steps + 1

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        with crafting(model) as victim:
            search, x_adv = victim.search(x, y), x
            for step in range(self.steps):
                logits, moved = self._step(victim, x_adv, search.x, search.y, step)
                _, x_adv = search.take(x_adv, _counts(x_adv, logits, search, threat), moved)
                if not len(search):
                    return search.found
            search.keep(threat.project(x_adv, search.x))
            search.take(x_adv, _counts(x_adv, victim.logits(x_adv), search, threat))
            search.settle()
            return search.found

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The last iterate for each `x`, in [0, 1], at whatever distance it is."""
        x_adv = x
        with crafting(model) as victim:
            for step in range(self.steps):
                _, x_adv = self._step(victim, x_adv, x, y, step)
        return x_adv

    def _step(self, victim: Victim, x_adv: Tensor, x: Tensor, y: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Logits of `x_adv`, and the iterate after it."""
        logits, _, grad = victim.differentiate(x_adv, y, cross_entropy)
        slope = self.strength * grad - (x_adv - x)
        return logits, (x_adv + slope / math.sqrt(step + 1)).clamp(0, 1)


def _counts(x_adv: Tensor, logits: Tensor, search: Search, threat: Threat) -> Tensor:
    """Which candidates for the standing images are misclassified within eps, (N,) bool."""
    return (logits.argmax(1) != search.y) & (threat.distance(x_adv, search.x) <= threat.eps)
