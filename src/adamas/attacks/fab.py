"""The fast adaptive boundary attack, targeted: the smallest change found by walking along the linearised decision boundary."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn

from adamas.attacks.crafting import Victim, crafting
from adamas.attacks.losses import likely_targets, target_margin
from adamas.attacks.search import Search
from adamas.dice import Dice
from adamas.registry import Count, Number, Share, register
from adamas.roles import Attack, Threat, per_image


@register("attack", "fab_t")
class FAB(Attack):
    """The smallest change to a wrong class found by `steps` projections onto the linearised boundary to each likely class.

    `targets`: most likely wrong classes attacked in turn, at most all of them; `restarts`: walks per class, from a random point
    at eps / 2 after the first. `alpha_max`: the most that the way from the original image weighs; `eta`: how far a step goes
    past the plane; `beta`: what is left of a change after a success, where the walk goes on. As an attack it leaves an image
    once a change within eps is found; `nearest` looks for the smallest change whatever eps.

    Source: Croce, Hein 2020 (Minimally distorted adversarial examples), algorithm 1, targeted as in AutoAttack.
    Deviation: after a success the boundary is linearised at the success, not again at the point moved back towards the
    original. The network need not see that point, so a step saves the forward pass that looks for success; on trained networks
    the changes found are as small or slightly smaller.
    """

    family = "minimum-norm gradient"
    steps: Count = 100
    targets: Count = 9
    restarts: Count = 1
    alpha_max: Share = 0.1
    eta: Annotated[Number, Ge(1)] = 1.05
    beta: Annotated[Number, Gt(0), Lt(1)] = 0.9

    @property
    def cost(self) -> float:
        return self.targets * self.restarts * (3 * self.steps + 1) + 2

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        with crafting(model) as victim:
            search = victim.search(x, y)
            near = self._nearest(victim, search, threat, Dice(x), within=threat.eps)
            if len(search):
                x_adv = threat.project(near, search.x)
                (x_adv,) = search.narrow(x_adv, victim.logits(x_adv))
                search.keep(*search.settle(x_adv))
            return search.found

    def nearest(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        """The nearest misclassified images found in [0, 1], however far; `x` itself where none was found."""
        with crafting(model) as victim:
            return self._nearest(victim, Search(x, y), threat, Dice(x), within=-1.0)

    def _nearest(self, victim: Victim, search: Search, threat: Threat, dice: Dice, *, within: float) -> Tensor:
        """The nearest image found for each that the search leaves standing; those found at most `within` away leave it."""
        logits = victim.logits(search.x)
        near = _Nearest(search, threat, within, likely_targets(logits, search.y, self.targets))
        near.look(search.x, logits)
        for rank in range(near.targets.shape[1]):
            for restart in range(self.restarts):
                if len(search):
                    self._walk(victim, near, self._start(near, dice) if restart else search.x, rank)
        return near.settle()

    def _start(self, near: _Nearest, dice: Dice) -> Tensor:
        """A random image at most eps / 2 away."""
        x, threat = near.search.x, near.threat
        sample = threat.sample(x, dice[near.search.rows])
        stretch = threat.eps / 2 / threat.distance(sample, x).clamp_min(1e-12)
        return torch.lerp(x, sample, per_image(stretch, x)).clamp(0, 1)

    def _walk(self, victim: Victim, near: _Nearest, x_adv: Tensor, rank: int) -> None:
        """All steps of the standing images towards the targets of one rank."""
        for _ in range(self.steps):
            if not len(near.search):
                return
            pairs = torch.stack([near.search.y, near.targets[:, rank]], 1)
            logits, gap, grad = victim.differentiate(x_adv, pairs, target_margin)
            x_adv, wrong, gap, grad = near.look(x_adv, logits, gap, grad)
            x_adv = self._step(x_adv, wrong, gap, grad, near)
        if len(near.search):
            near.look(x_adv, victim.logits(x_adv))

    def _step(self, x_adv: Tensor, wrong: Tensor, gap: Tensor, grad: Tensor, near: _Nearest) -> Tensor:
        """Back towards the original where misclassified; then onto the plane and past it, the original's way weighed in."""
        x, threat = near.search.x, near.threat
        b = gap - torch.linalg.vecdot(grad.flatten(1), x_adv.flatten(1))
        point = torch.lerp(x, x_adv, self.beta).where(per_image(wrong, x), x_adv)
        here, there = threat.to_plane(point, grad, b), threat.to_plane(x, grad, b)
        d_here, d_there = (threat.distance(*way).clamp_min(1e-8) for way in ((here, point), (there, x)))
        alpha = per_image((d_here / (d_here + d_there)).clamp(max=self.alpha_max), x)
        return torch.lerp(torch.lerp(point, here, self.eta), torch.lerp(x, there, self.eta), alpha).clamp(0, 1)


class _Nearest:
    """The nearest misclassified image seen so far for every standing image of a search, and its targets."""

    def __init__(self, search: Search, threat: Threat, within: float, targets: Tensor):
        self.search, self.threat, self.within, self.targets = search, threat, within, targets
        self.x_adv, self.distance = search.x, search.x.new_full((len(search.x),), torch.inf)

    def look(self, x_adv: Tensor, logits: Tensor, *states: Tensor) -> list[Tensor]:
        """Remember what is misclassified and nearer than before; returns `x_adv`, whether it is misclassified, the states."""
        wrong = logits.argmax(1) != self.search.y
        distance = self.threat.distance(x_adv, self.search.x)
        closer = wrong & (distance < self.distance)
        self.x_adv, self.distance = x_adv.where(per_image(closer, x_adv), self.x_adv), distance.where(closer, self.distance)
        hit = wrong & (distance <= self.within)
        x_adv, self.x_adv, self.distance, self.targets, *rest = self.search.take(
            x_adv, hit, self.x_adv, self.distance, self.targets, wrong, *states
        )
        return [x_adv, *rest]

    def settle(self) -> Tensor:
        """The nearest images of those left standing."""
        (self.x_adv,) = self.search.settle(self.x_adv)
        return self.x_adv
