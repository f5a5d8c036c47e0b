"""Auto-PGD towards the most likely wrong classes, one after the other."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from adamas.attacks.apgd import auto_climb, keep_highest
from adamas.attacks.crafting import crafting
from adamas.attacks.losses import likely_targets, target_dlr
from adamas.dice import Dice
from adamas.registry import Count, register
from adamas.roles import Attack, Family, Threat


@register("attack", "apgd_t")
class APGDT(Attack):
    """Auto-PGD on the targeted difference of logits ratio, once for each of the `targets` most likely wrong classes.

    The classes are those of the clean image; with K classes there are at most K - 1 of them. Whatever wrong class an image is
    given breaks it, and it is left there.
    Source: Croce, Hein 2020, section 4. Deviation: fewer than four classes: the plain difference of the two logits.
    """

    family: ClassVar[Family] = "margin-loss gradient"

    targets: Count = 9
    steps: Count = 100
    restarts: Count = 1

    @property
    def cost(self) -> float:
        return 1 + self.targets * self.restarts * (3 * self.steps + 1)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        dice, highest = Dice(x), x.new_full((len(x),), -torch.inf)
        with crafting(model) as victim:
            search = victim.search(x, y)
            targets = likely_targets(victim.logits(x), y, self.targets)
            for target in targets.repeat_interleave(self.restarts, dim=1).unbind(1):
                if not len(search):
                    break
                start, pairs = threat.sample(search.x, dice[search.rows]), torch.stack([search.y, target[search.rows]], 1)
                run = auto_climb(victim, search, pairs, threat, start=start, steps=self.steps, loss=target_dlr)
                keep_highest(search, highest, *run)
            return search.found
