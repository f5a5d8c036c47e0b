"""Projected gradient descent, the work-horse of training and evaluation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adamas.attacks.crafting import Craft, climb, crafting
from adamas.registry import Count, Pixels, register
from adamas.roles import Attack, Threat


@register("attack", "pgd")
class PGD(Attack):
    """Projected ascent on the cross-entropy from a random start; `restarts` attack again the images still classified right.

    `step_size` defaults to 2.5 * eps / steps, so that every point of the ball can be reached.
    Source: Madry et al. 2018, section 2.1. Deviation: the last iterate of the first successful restart is returned.
    """

    steps: Count = 20
    step_size: Pixels | None = None
    random_start: bool = True
    restarts: Count = 1
    craft: Craft = "eval"

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        with crafting(model, self.craft):
            x_adv = self._run(model, x, y, threat)
            for _ in range(1, self.restarts):
                with torch.no_grad():
                    standing = model(x_adv).argmax(1) == y
                if not standing.any():
                    break
                x_adv[standing] = self._run(model, x[standing], y[standing], threat)
        return x_adv

    def _run(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        start = threat.sample(x) if self.random_start else x
        return climb(model, x, y, threat, start=start, steps=self.steps, step_size=self.step_size)
