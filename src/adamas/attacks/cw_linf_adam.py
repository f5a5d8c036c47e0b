"""What the EnResNet paper calls the attack of Carlini and Wagner: short, weak, and in effect bounded in every pixel."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn

from adamas.attacks.carlini_wagner import adam
from adamas.attacks.crafting import Victim, crafting
from adamas.attacks.losses import likely_targets, target_margin
from adamas.errors import AdamasError
from adamas.registry import Count, Number, label, register
from adamas.roles import Attack, Threat, per_image


@register("attack", "cw_linf_adam")
class CWLinfAdam(Attack):
    """A weak attack, for comparison with published figures only: Adam on |change|^2 + constant * hinge towards the runner-up.

    It is no evidence of robustness: 50 steps of .0006 move a pixel by about .03, and the iterate of the lowest total loss is
    returned even where another one was misclassified. For evidence take pgd, fmn or carlini_wagner.
    Source: Li, Wang, Xin 2021 (binary EnResNets), attack A3, and its code. Deviation: the class pushed down is the label,
    not the prediction; the runner-up is the best wrong class whatever the sign of the logits; the result is projected into
    the threat, not shrunk towards the image.
    """

    family = "margin-loss gradient"
    steps: Count = 50
    lr: Annotated[Number, Gt(0)] = 0.0006
    constant: Annotated[Number, Gt(0)] = 10.0

    @property
    def cost(self) -> float:
        return 1 + 3 * self.steps

    def check(self, threat: Threat) -> None:
        if threat.name != "linf":
            raise AdamasError(
                f"attack {label(self)}: expected the threat linf, which its published figures are for, got {threat}; "
                "carlini_wagner works in l2, fmn in every norm"
            )

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        self.check(threat)
        with crafting(model) as victim:
            search = victim.search(x, y)
            search.keep(threat.project(self._descend(victim, x, y), x))
            return search.found

    def _descend(self, victim: Victim, x: Tensor, y: Tensor) -> Tensor:
        """The iterate (steps of them, the image itself first) with the lowest total loss, in [0, 1]."""
        pairs = torch.cat([y[:, None], likely_targets(victim.logits(x), y, 1)], 1)
        best, lowest = x, torch.full((len(x),), torch.inf, device=x.device)
        x_adv, mean, square = x, torch.zeros_like(x), torch.zeros_like(x)
        for step in range(self.steps):
            _, lead, grad = victim.differentiate(x_adv, pairs, target_margin)
            loss = (x_adv - x).flatten(1).square().sum(1) + self.constant * (-lead).clamp_min(0)
            best, lowest = x_adv.where(per_image(loss < lowest, x), best), torch.minimum(loss, lowest)
            slope = 2 * (x_adv - x) - self.constant * per_image(lead < 0, x) * grad
            move, mean, square = adam(slope, mean, square, step + 1)
            x_adv = (x_adv - self.lr * move).clamp(0, 1)
        return best
