from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from adamas.attacks.autoattack import AutoAttack, Screen, run_in_order
from adamas.attacks.crafting import Terms, crafting
from adamas.errors import AdamasError
from adamas.evaluate import Evaluate, evaluate
from adamas.registry import parse, plain
from adamas.roles import Attack
from adamas.threat import L1, Linf
from tests.helpers import Linear, shapes_data

APGD_SETTINGS = {"name": "apgd", "loss": "cross_entropy", "steps": 100, "restarts": 1, "rho": 0.75, "alpha": 0.75}


def test_standard_is_what_was_published():
    first, second, third, fourth = (plain(part) for part in AutoAttack().parts)
    assert first == APGD_SETTINGS
    assert second == {"name": "apgd_t", "targets": 9, "steps": 100, "restarts": 1}
    assert third.items() >= {"name": "fab_t", "targets": 9, "steps": 100, "restarts": 1}.items()
    assert fourth.items() >= {"name": "square", "queries": 5000}.items()


def test_rand_is_what_was_published():
    first, second = (plain(part) for part in AutoAttack(version="rand").parts)
    assert first == {"name": "eot", "attack": APGD_SETTINGS, "samples": 20}
    assert second == {"name": "eot", "attack": APGD_SETTINGS | {"loss": "dlr"}, "samples": 20}


@pytest.mark.parametrize("attack", [AutoAttack(), AutoAttack(version="rand"), Screen()])
def test_the_cost_is_that_of_the_parts(attack):
    assert attack.cost == sum(part.cost for part in attack.parts)
    assert all(part.parts == (part,) for part in attack.parts)


def test_screen_is_the_first_half():
    assert Screen().parts == AutoAttack().parts[:2]


@dataclass
class Paints(Attack):
    """Paints every image in one grey and remembers which images it was given."""

    grey: float
    given: list[int] = field(default_factory=list)
    asks: bool = False

    family = "black-box"

    @property
    def cost(self) -> float:
        return 1.0

    def __call__(self, model, x, y, threat) -> Tensor:
        self.given += (x[:, 0, 0, 0] * 10).round().int().tolist()
        painted = torch.full_like(x, self.grey)
        if self.asks:
            with crafting(model) as victim:
                search = victim.search(x, y)
                search.settle(*search.narrow(painted, victim.logits(painted)))
                return search.found
        return painted


GREYS = torch.tensor([0.1, 0.2, 0.3, 0.4]).view(4, 1, 1, 1)
LIMIT = Linear([[0.0], [1.0]], bias=[0.0, -0.7])
"""Wrong for label 0 above 0.7."""


def test_each_attack_gets_what_still_stands_and_the_best_is_kept():
    first, second, third = Paints(0.6), Paints(0.8), Paints(0.5)
    y = torch.tensor([0, 0, 0, 0])
    x = GREYS.clone()
    x_adv = run_in_order((first, second, third), LIMIT, x, y, Linf(eps=1.0))
    assert first.given == second.given == [1, 2, 3, 4] and third.given == []
    assert x_adv.flatten().tolist() == pytest.approx([0.8] * 4)
    x_adv = run_in_order((Paints(0.6), Paints(0.5)), LIMIT, x, y, Linf(eps=1.0))
    assert x_adv.flatten().tolist() == pytest.approx([0.6] * 4)  # none breaks: margin -0.1 against -0.2
    assert torch.equal(x, GREYS)


def test_inside_an_attack_rows_are_still_those_of_the_whole_call():
    asked: list[tuple[list[int], float]] = []

    def accept(rows: Tensor, x_adv: Tensor) -> Tensor:
        asked.append((rows.tolist(), round(float(x_adv[0, 0, 0, 0]), 2)))
        return rows % 2 == 1 if x_adv[0, 0, 0, 0] > 0.75 else rows >= 0

    first, second = Paints(0.8, asks=True), Paints(0.72, asks=True)
    with crafting(LIMIT, terms=Terms(search=True, accept=accept)) as victim:
        x_adv = run_in_order((first, second), victim, GREYS, torch.zeros(4, dtype=torch.long), Linf(eps=1.0))
    assert first.given == [1, 2, 3, 4] and second.given == [1, 3]
    assert asked[0] == ([0, 1, 2, 3], 0.8) and asked[-1] == ([0, 2], 0.72)
    assert ([0, 2], 0.72) in asked[1:-1]
    assert x_adv.flatten().tolist() == pytest.approx([0.72, 0.8, 0.72, 0.8])


def test_an_evaluation_takes_the_list_apart():
    model = Linear(torch.cat([torch.ones(1, 16), -torch.ones(1, 16)]))
    found = evaluate(model, shapes_data(), Evaluate(attacks=(Screen(),)), Linf(eps=0.05))
    assert [result.attack for result in found.attacks] == ["apgd", "apgd_t"]


@pytest.mark.parametrize("attack", [AutoAttack(version="rand"), Screen()])
def test_called_directly_it_breaks_what_can_be_broken(attack):
    model, x = Linear([[1.0, -2.0], [-1.0, 2.0]], bias=[0.3, -0.3]), torch.tensor([[0.5, 0.5], [0.9, 0.1], [0.45, 0.5]])
    x, y = x.view(3, 1, 1, 2), torch.tensor([0, 0, 0])  # by 0.2 a pixel, image 1 is out of reach
    x_adv = attack(model, x, y, Linf(eps=0.2))
    assert (model(x_adv).argmax(1) == y).tolist() == [False, True, False]
    assert (x_adv - x).abs().max() <= 0.2 + 1e-6


def test_l1_is_refused():
    message = r"attack autoattack: expected the threat linf or l2, got l1\(eps=12.0\); for l1 list its attacks: apgd, apgd_t"
    with pytest.raises(AdamasError, match=message):
        AutoAttack()(LIMIT, GREYS, torch.zeros(4, dtype=torch.long), L1(eps=12.0))


def test_its_budgets_cannot_be_set():
    with pytest.raises(AdamasError, match="unknown key 'steps'; did you mean 'version'|unknown key 'steps'"):
        parse(AutoAttack, {"steps": 10})
    with pytest.raises(AdamasError, match="got 'plus'.* Valid: rand, standard"):
        AutoAttack(version="plus")  # type: ignore[arg-type]
