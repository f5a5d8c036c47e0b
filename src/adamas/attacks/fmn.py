"""The fast minimum-norm attack: how far away the nearest misclassified image is, in one short walk along the boundary."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Gt, Lt
from torch import Tensor, nn

from adamas.attacks.crafting import Victim, crafting
from adamas.attacks.losses import margin
from adamas.attacks.search import Search
from adamas.registry import Count, Number, register
from adamas.roles import Attack, Threat, per_image

Step = Annotated[Number, Gt(0)]
Growth = Annotated[Number, Gt(0), Lt(1)]


@register("attack", "fmn")
class FMN(Attack):
    """Gradient steps inside a ball of each image's own, which shrinks while the image is misclassified and else grows.

    Until the first wrong prediction the radius is the distance at which the boundary would be if the margin were linear.
    `alpha_init` to `alpha_final`: length of a step, in pixels, and `gamma_init` to `gamma_final`: share by which the radius
    changes, both falling along a cosine. As an attack inside a threat only what lies within eps counts; `nearest` ignores eps.
    Source: Pintor et al. 2021, algorithm 1. Deviation: a step is cut to [0, 1] before, not after, it is projected to the ball:
    cut after, steps that push black or white pixels out of range get stuck. The first estimate of the radius, too, grows by
    gamma: without, the walk may end on the boundary itself, where rounding decides. The last iterate is looked at, too.
    """

    family = "minimum-norm gradient"
    steps: Count = 100
    alpha_init: Step = 1.0
    alpha_final: Step = 0.01
    gamma_init: Growth = 0.05
    gamma_final: Growth = 0.001

    @property
    def cost(self) -> float:
        return 3 * self.steps + 1

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        with crafting(model) as victim:
            search = victim.search(x, y)
            best, distance, last = self._walk(victim, x, y, threat, search)
            if len(search):
                found = per_image(distance.isfinite(), best)
                search.keep(threat.project(best.where(found, last), search.x))
            return search.found

    def nearest(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        """The nearest misclassified image found for each `x`, in the threat's norm and at any distance; `x` where none was."""
        with crafting(model) as victim:
            return self._walk(victim, x, y, threat)[0]

    def _walk(
        self, victim: Victim, x: Tensor, y: Tensor, threat: Threat, search: Search | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The nearest misclassified image (`x` where there was none), its distance (inf) and the last iterate."""
        x_adv = best = x
        radius = distance = torch.full((len(x),), torch.inf, device=x.device)
        for step in range(self.steps):
            logits, loss, grad = victim.differentiate(x_adv, y, margin)
            hit, seen = logits.argmax(1) != y, x_adv
            best, distance = closest(seen, hit, x, threat, best, distance)
            reach = threat.distance(seen, x) - loss / threat.dual(grad).clamp_min(1e-12)
            radius = self._radius(radius, hit, distance, reach, _cosine(self.gamma_init, self.gamma_final, step / self.steps))
            radius = torch.minimum(radius, threat.distance((x < 0.5).to(x.dtype), x))  # no valid image is farther away
            alpha = _cosine(self.alpha_init, self.alpha_final, step / self.steps)
            moved = (seen + alpha * grad / per_image(grad.flatten(1).norm(dim=1).clamp_min(1e-12), x)).clamp(0, 1)
            x_adv = (x + threat.shrink(moved - x, radius)).clamp(0, 1)
            if search is not None:
                inside = hit & (threat.distance(seen, x) <= threat.eps)
                _, x_adv, best, distance, radius = search.take(seen, inside, x_adv, best, distance, radius)
                x, y = search.x, search.y
            if not len(x):
                return best, distance, x_adv
        hit = victim.wrong(x_adv, y)
        best, distance = closest(x_adv, hit, x, threat, best, distance)
        if search is None:
            return best, distance, x_adv
        inside = hit & (threat.distance(x_adv, x) <= threat.eps)
        x_adv, best, distance = search.take(x_adv, inside, best, distance)
        best, distance, x_adv = search.settle(best, distance, x_adv)
        return best, distance, x_adv

    @staticmethod
    def _radius(radius: Tensor, hit: Tensor, distance: Tensor, reach: Tensor, gamma: float) -> Tensor:
        """The next radius (N,): smaller where the image is misclassified, larger where it was, else as far as `reach`."""
        outward = torch.where(distance.isfinite(), radius, reach) * (1 + gamma)
        return torch.where(hit, torch.minimum(radius * (1 - gamma), distance), outward)


def closest(x_adv: Tensor, hit: Tensor, x: Tensor, threat: Threat, best: Tensor, distance: Tensor) -> tuple[Tensor, Tensor]:
    """`best` and its `distance`, replaced by those of `x_adv` where that is a hit and nearer to `x`."""
    length = threat.distance(x_adv, x)
    nearer = hit & (length < distance)
    return x_adv.where(per_image(nearer, x), best), length.where(nearer, distance)


def _cosine(first: float, last: float, progress: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * progress)) / 2
