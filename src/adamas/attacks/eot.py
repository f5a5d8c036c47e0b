"""Attack the expectation over a randomised model's noise."""

from __future__ import annotations

from torch import Tensor, nn

from adamas.attacks.crafting import crafting
from adamas.registry import Count, register
from adamas.roles import AnyAttack, Attack, Family, Threat


@register("attack", "eot")
class EOT(Attack):
    """Another attack whose every pass is averaged over `samples` draws of a randomised model: logits, loss and gradient.

    The mean gradient is that of the expected loss. An image counts as misclassified by its mean logits, and under evaluation
    by one more draw as well, so that one unlucky draw among many breaks nothing. An evaluation with more `samples` of its own
    keeps them.
    Source: Athalye et al. 2018, section 4.2. Deviation: the authors of AutoAttack judge by the last draw alone.
    """

    attack: AnyAttack = "pgd"  # type: ignore[assignment]
    samples: Count = 20

    @property
    def cost(self) -> float:
        return self.samples * self.attack.cost

    @property
    def family(self) -> Family:  # type: ignore[override]
        return self.attack.family

    @property
    def parts(self) -> tuple[Attack, ...]:
        if self.attack.parts == (self.attack,):
            return (self,)
        return tuple(EOT(attack=part, samples=self.samples) for part in self.attack.parts)

    def check(self, threat: Threat) -> None:
        self.attack.check(threat)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        with crafting(model) as victim:
            return self.attack(victim.with_samples(max(self.samples, victim.terms.samples)), x, y, threat)
