"""Fixed lists of attacks, each run on what the ones before it left standing."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from adamas.attacks.apgd import APGD, keep_highest
from adamas.attacks.apgd_targeted import APGDT
from adamas.attacks.crafting import crafting
from adamas.attacks.eot import EOT
from adamas.attacks.fab import FAB
from adamas.attacks.losses import margin
from adamas.attacks.search import Accept
from adamas.attacks.square import Square
from adamas.errors import AdamasError
from adamas.registry import register
from adamas.roles import Attack, Family, Threat


@register("attack", "autoattack")
class AutoAttack(Attack):
    """AutoAttack with its published budgets, which no setting changes.

    `standard`: APGD on the cross-entropy, APGD-T and FAB-T towards 9 classes, 100 steps each, and Square with 5,000 queries.
    `rand`, for randomised models: APGD on the cross-entropy and on the difference of logits ratio, every pass averaged over 20
    draws. Errors: L1, for which other budgets are published.
    Source: Croce, Hein 2020, section 6.
    """

    family: ClassVar[Family] = "margin-loss gradient"

    version: Literal["standard", "rand"] = "standard"

    @property
    def parts(self) -> tuple[Attack, ...]:
        if self.version == "rand":
            return EOT(attack=APGD(), samples=20), EOT(attack=APGD(loss="dlr"), samples=20)
        return APGD(), APGDT(), FAB(), Square()

    @property
    def cost(self) -> float:
        return sum(part.cost for part in self.parts)

    def check(self, threat: Threat) -> None:
        if threat.name == "l1":
            raise AdamasError(
                f"attack autoattack: expected the threat linf or l2, got {threat}; for l1 list its attacks: apgd, apgd_t"
            )

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        self.check(threat)
        return run_in_order(self.parts, model, x, y, threat)


@register("attack", "screen")
class Screen(Attack):
    """The two gradient attacks of AutoAttack, APGD on the cross-entropy and APGD-T, with their published budgets.

    Left out are FAB-T and Square: next to nothing is broken by them alone where gradients are sound, but they, Square above
    all, are what exposes masked gradients; a figure by `screen` is an upper bound of AutoAttack's.
    Source: Croce, Hein 2020, section 6.
    """

    family: ClassVar[Family] = "margin-loss gradient"

    @property
    def parts(self) -> tuple[Attack, ...]:
        return APGD(), APGDT()

    @property
    def cost(self) -> float:
        return sum(part.cost for part in self.parts)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        return run_in_order(self.parts, model, x, y, threat)


def run_in_order(attacks: tuple[Attack, ...], model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
    """Images by the first attack that breaks them; for those that none breaks, what came closest to a wrong prediction."""
    highest = x.new_full((len(x),), -torch.inf)
    with crafting(model) as victim:
        search = victim.search(x, y)
        for attack in attacks:
            if not len(search):
                break
            terms = replace(victim.terms, accept=_among(search.rows, victim.terms.accept))
            with crafting(victim.model, terms=terms) as inner:
                x_adv = attack(inner, search.x, search.y, threat)
            logits = victim.logits(x_adv)
            x_adv, value = search.settle(*search.narrow(x_adv, logits, margin(logits, search.y)))
            keep_highest(search, highest, x_adv, value)
        return search.found


def _among(rows: Tensor, accept: Accept | None) -> Accept | None:
    """`accept` for an attack that sees only these rows."""
    return accept and (lambda some, x_adv: accept(rows[some], x_adv))
