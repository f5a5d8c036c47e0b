"""DeepFool: a small change to a wrong class, by stepping onto the nearest of all linearised decision boundaries."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from adamas.attacks.crafting import Victim, crafting
from adamas.attacks.losses import likely_targets, target_margin
from adamas.attacks.search import Search
from adamas.registry import Count, Number, register
from adamas.roles import Attack, Threat, per_image


@register("attack", "deepfool")
class DeepFool(Attack):
    """Steps onto the nearest linearised boundary until the prediction changes, then no further.

    `classes`: most likely classes looked at, the label among them; `steps` at most; `overshoot`: what is added to the whole
    change, as a share of it. As an attack it counts where the change found is within eps; `nearest` gives it whatever eps.

    Source: Moosavi-Dezfooli et al. 2016, algorithm 2; section 3.3 for norms other than L2.
    Deviation: the step onto the plane stays in [0, 1]; a step in Linf therefore is as long as the box makes it.
    """

    family = "minimum-norm gradient"
    steps: Count = 50
    classes: Annotated[int, Ge(2)] = 10
    overshoot: Annotated[Number, Ge(0)] = 0.02

    @property
    def cost(self) -> float:
        return self.steps * (3 * (self.classes - 1) + 1) + 2

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        with crafting(model) as victim:
            search = victim.search(x, y)
            near = self._nearest(victim, x, y, threat)
            hit = victim.wrong(near, y) & (threat.distance(near, x) <= threat.eps)
            search.settle(*search.take(near, hit))
            search.keep(threat.project(near[search.rows], search.x))
            return search.found

    def nearest(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        """The first misclassified image on the way of each, in [0, 1], however far; `x` itself where there was none."""
        with crafting(model) as victim:
            return self._nearest(victim, x, y, threat)

    def _nearest(self, victim: Victim, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        walk = Search(x, y)
        logits = victim.logits(x)
        x_adv, targets = walk.narrow(x, logits, likely_targets(logits, y, self.classes - 1))
        change = torch.zeros_like(x_adv)
        for _ in range(self.steps):
            if not len(walk):
                break
            change = change + self._step(victim, x_adv, walk.y, targets, threat)
            x_adv = (walk.x + (1 + self.overshoot) * change).clamp(0, 1)
            x_adv, targets, change = walk.narrow(x_adv, victim.logits(x_adv), targets, change)
        walk.settle()
        return walk.found

    def _step(self, victim: Victim, x_adv: Tensor, y: Tensor, targets: Tensor, threat: Threat) -> Tensor:
        """The change that takes each image onto the nearest of its targets' planes."""
        nearest = x_adv.new_full((len(x_adv),), torch.inf)
        gap, grad = torch.zeros_like(nearest), torch.zeros_like(x_adv)
        for target in targets.unbind(1):
            _, its_gap, its_grad = victim.differentiate(x_adv, torch.stack([y, target], 1), target_margin)
            away = its_gap.abs() / threat.dual(its_grad).clamp_min(1e-30)
            nearer = away < nearest
            nearest, gap = away.where(nearer, nearest), its_gap.where(nearer, gap)
            grad = its_grad.where(per_image(nearer, grad), grad)
        b = gap - torch.linalg.vecdot(grad.flatten(1), x_adv.flatten(1))
        return threat.to_plane(x_adv, grad, b) - x_adv
