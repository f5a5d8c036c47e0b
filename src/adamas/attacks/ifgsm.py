"""The iterative fast gradient sign method."""

from __future__ import annotations

from torch import Tensor, nn

from adamas.attacks.crafting import climb, crafting
from adamas.registry import Count, Pixels, register
from adamas.roles import Attack, Threat


@register("attack", "ifgsm")
class IFGSM(Attack):
    """Ascent steps from the clean image, without random start; also called BIM.

    `step_size` defaults to 2.5 * eps / steps, so that every point of the ball can be reached.
    Source: Kurakin et al. 2017, equation 2. Deviation: their fixed step of 1/255 is our default only for 20 steps in 8/255.
    """

    family = "cross-entropy gradient"
    steps: Count = 20
    step_size: Pixels | None = None

    @property
    def cost(self) -> float:
        return 3 * self.steps + 1

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        with crafting(model) as victim:
            search = victim.search(x, y) if victim.terms.search else None
            last = climb(victim, x, y, threat, start=x, steps=self.steps, step_size=self.step_size, search=search)
            if search is None:
                return last
            search.keep(last)
            return search.found
