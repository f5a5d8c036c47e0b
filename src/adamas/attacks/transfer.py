"""Images crafted on another model: a parent, a sibling, or the shipped file itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor, nn

from adamas.attacks.crafting import crafting
from adamas.attacks.pgd import PGD
from adamas.noise import without_noise
from adamas.registry import label
from adamas.roles import Attack, Family, Threat


@dataclass(frozen=True)
class Transfer(Attack):
    """Runs `attack` on `source`, called `origin` in results, and counts what also fools the model under attack.

    Under evaluation every iterate that fools the source is scored, and an image is attacked on until the evaluated model
    falls, too. A black-box attack stays one: it queries the source's predictions alone. Noise that the source draws is turned
    off, as anyone who has it can.
    Source: Papernot et al. 2016; from dense parents to compressed children: Zhao et al. 2022.
    """

    kind: ClassVar[str] = "attack"
    name: ClassVar[str] = "transfer"
    source: nn.Module
    origin: str
    attack: Attack = PGD()  # noqa: RUF009  (frozen)

    def __str__(self) -> str:
        return f"{label(self.attack)} on {self.origin}"

    @property
    def cost(self) -> float:
        return self.attack.cost

    @property
    def family(self) -> Family:  # type: ignore[override]
        return "black-box" if self.attack.family == "black-box" else "transfer"

    def check(self, threat: Threat) -> None:
        self.attack.check(threat)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        with crafting(model) as victim, crafting(without_noise(self.source), terms=replace(victim.terms, samples=1)) as source:
            return self.attack(source, x, y, threat)
