"""The fast gradient sign method."""

from __future__ import annotations

from torch import Tensor, nn

from adamas.attacks.crafting import climb, crafting
from adamas.dice import Dice
from adamas.registry import register
from adamas.roles import Attack, Threat


@register("attack", "fgsm")
class FGSM(Attack):
    """One ascent step of length eps from the clean image (with `random_start`: from a random point of the ball).

    Source: Goodfellow et al. 2015, equation 1. Deviation: in L2 the step is the normalised gradient.
    """

    family = "cross-entropy gradient"
    random_start: bool = False

    @property
    def cost(self) -> float:
        return 3

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        start = threat.sample(x, Dice(x)) if self.random_start else x
        with crafting(model) as victim:
            return climb(victim, x, y, threat, start=start, steps=1, step_size=threat.eps)
