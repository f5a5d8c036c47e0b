"""Projected gradient descent, the work-horse of training and evaluation."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Lt
from torch import Tensor, nn

from adamas.attacks.crafting import Craft, Victim, climb, crafting
from adamas.attacks.losses import LOSSES
from adamas.attacks.search import Search
from adamas.dice import Dice
from adamas.registry import Count, Number, Pixels, register
from adamas.roles import Attack, Family, Threat


@register("attack", "pgd")
class PGD(Attack):
    """Projected ascent on a loss from a random start; `restarts` attack again the images still classified right.

    `step_size` defaults to 2.5 * eps / steps, so that every point of the ball can be reached. `loss`: cross-entropy, the
    margin of the logits, or their difference ratio. `momentum`: share of the last direction that the next one keeps.
    Source: Madry et al. 2018, section 2.1; momentum: Dong et al. 2018, equation 6. Deviation: under evaluation, and with
    restarts, an image is left at its first wrong prediction, whichever iterate it is.
    """

    steps: Count = 20
    step_size: Pixels | None = None
    random_start: bool = True
    restarts: Count = 1
    loss: Literal["cross_entropy", "margin", "dlr"] = "cross_entropy"
    momentum: Annotated[Number, Ge(0), Lt(1)] = 0.0
    craft: Craft = "eval"

    def __post_init__(self) -> None:
        if self.craft == "train" and self.restarts > 1:
            raise ValueError("expected restarts: 1 with craft: train, whose predictions are not those of the evaluated network")

    @property
    def cost(self) -> float:
        return self.restarts * (3 * self.steps + 1)

    @property
    def family(self) -> Family:  # type: ignore[override]
        return "cross-entropy gradient" if self.loss == "cross_entropy" else "margin-loss gradient"

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        dice = Dice(x)
        with crafting(model, self.craft) as victim:
            if self.craft == "train" or (not victim.terms.search and self.restarts == 1):
                return self._climb(victim, x, y, threat, dice)
            search = victim.search(x, y)
            for _ in range(self.restarts):
                if len(search):
                    search.keep(self._climb(victim, search.x, search.y, threat, dice[search.rows], search))
            return search.found

    def _climb(self, victim: Victim, x: Tensor, y: Tensor, threat: Threat, dice: Dice, search: Search | None = None) -> Tensor:
        return climb(
            victim, x, y, threat, start=threat.sample(x, dice) if self.random_start else x, steps=self.steps,
            step_size=self.step_size, loss=LOSSES[self.loss], momentum=self.momentum, search=search,
        )  # fmt: skip
