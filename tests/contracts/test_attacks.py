"""What every registered attack must keep, under every threat that it can do; a new attack is covered by registering it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from adamas.attacks.crafting import Craft, Terms, crafting
from adamas.attacks.losses import cross_entropy, margin
from adamas.errors import AdamasError
from adamas.panel import check_inside
from adamas.registry import registered
from adamas.roles import Attack, Family, Threat
from adamas.threat import L1, L2, Linf
from adamas.weights import effective_weights
from tests.helpers import Counting, SmallNet, accuracy, first_batch, quick

THREATS = {"linf": Linf(eps=0.1), "l2": L2(eps=1.0), "l1": L1(eps=6.0)}


EASED: dict[str, dict[str, Any]] = {"cw_linf_adam": {"lr": 0.01}}
"""Settings of attacks that are too weak by default to hurt in the few steps of a test."""


def variants(name: str) -> list[tuple[str, dict[str, Any]]]:
    """An attack as it is by default and, if it can, crafting in train mode."""
    modes = get_args(Craft) if any(field.name == "craft" for field in fields(registered("attack")[name])) else ()
    return [(f"{name}-{mode}", {"craft": mode}) for mode in modes] or [(name, EASED.get(name, {}))]


ATTACKS = {
    variant: quick(registered("attack")[name], **values) for name in registered("attack") for variant, values in variants(name)
}


@pytest.fixture(autouse=True)
def quick_parts(monkeypatch):
    """Lists of attacks, whose budgets no setting changes, with quick parts."""
    for attack in registered("attack").values():
        if attack.parts is not Attack.parts:
            parts = attack.parts.fget
            monkeypatch.setattr(attack, "parts", property(lambda self, parts=parts: tuple(map(quickened, parts(self)))))


def quickened(attack: Any) -> Any:
    inner = {"attack": quickened(attack.attack)} if hasattr(attack, "attack") else {}
    return replace(
        attack, **inner, **{f.name: min(20, value) for f in fields(attack) if type(value := getattr(attack, f.name)) is int}
    )


@dataclass
class Case:
    attack: Any
    threat: Any
    model: nn.Module
    x: Tensor
    y: Tensor

    def craft(self) -> Tensor:
        return self.attack(self.model, self.x, self.y, self.threat)


@pytest.fixture(params=[f"{attack}-{threat}" for attack in ATTACKS for threat in THREATS])
def case(request, trained, digits) -> Case:
    name, _, threat = request.param.rpartition("-")
    x, y = first_batch(digits, 48)
    case = Case(ATTACKS[name], THREATS[threat], trained, x, y)
    if not can(case.attack, case.threat):
        pytest.skip(f"{name} refuses {threat}")
    return case


def can(attack: Attack, threat: Threat) -> bool:
    """Whether the attack works under this threat; where it does not, it must say so and name the threat."""
    try:
        attack(SmallNet().eval(), torch.rand(2, 1, 8, 8), torch.tensor([0, 1]), threat)
    except AdamasError as error:
        assert threat.name in str(error)
        return False
    return True


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_every_attack_can_do_at_least_one_threat(attack):
    assert any(can(attack, threat) for threat in THREATS.values())


def test_the_result_is_inside_the_threat_and_hurts(case):
    x_adv = case.craft()
    check_inside(case.attack, x_adv, case.x, case.threat)
    assert x_adv.shape == case.x.shape and x_adv.dtype == case.x.dtype and not x_adv.requires_grad
    assert accuracy(case.model, x_adv, case.y) < accuracy(case.model, case.x, case.y) - 0.1


def test_nearly_every_image_is_broken_or_nearer_to_it(case):
    """By the cross-entropy or by the margin: attacks climb one or the other."""
    x_adv = case.craft()
    before, after = case.model(case.x).detach(), case.model(x_adv).detach()
    risen = torch.stack([loss(after, case.y) >= loss(before, case.y) - 1e-4 for loss in (cross_entropy, margin)]).any(0)
    risen = (risen | (after.argmax(1) != case.y)).float().mean()
    same_model = getattr(case.attack, "craft", "eval") == "eval"  # in train mode another network is attacked than measured
    assert risen >= (0.97 if same_model else 0.9)


def test_the_model_is_left_as_found(case):
    model = case.model.train()
    model[1].eval()
    model[4].weight.requires_grad_(False)
    model[0].weight.grad = torch.rand_like(model[0].weight)
    before = snapshot(model)
    case.craft()
    after = snapshot(model)
    assert before["modes"] == after["modes"] and before["requires_grad"] == after["requires_grad"]
    assert before["grads"].keys() == after["grads"].keys() == {"0.weight"}
    for kind in ("grads", "state"):
        assert all(torch.equal(tensor, after[kind][name]) for name, tensor in before[kind].items())


def snapshot(model: nn.Module) -> dict[str, Any]:
    return {
        "modes": [module.training for module in model.modules()],
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
        "grads": {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None},
        "state": {name: tensor.clone() for name, tensor in model.state_dict().items()},
    }


def test_the_images_and_labels_are_left_as_found(case):
    x, y = case.x.clone(), case.y.clone()
    case.craft()
    assert torch.equal(case.x, x) and torch.equal(case.y, y) and not case.x.requires_grad


def test_a_threat_of_nothing_changes_nothing(case):
    assert torch.equal(case.attack(case.model, case.x, case.y, replace(case.threat, eps=0.0)), case.x)


def test_equal_seeds_craft_equal_images_and_random_starts_differ(case):
    first, second, third = (torch.manual_seed(seed) and case.craft() for seed in (3, 3, 4))
    assert torch.equal(first, second)
    if getattr(case.attack, "random_start", False):
        assert not torch.equal(first, third)


def test_an_image_fares_the_same_in_any_order_and_batch(case):
    def craft(rows: Tensor) -> Tensor:
        torch.manual_seed(3)
        return case.attack(case.model, case.x[rows], case.y[rows], case.threat)

    if getattr(case.attack, "craft", "eval") == "train":
        pytest.skip("in train mode the batch is part of the model")
    together, order = craft(torch.arange(48)), torch.arange(47, -1, -1)
    same = (craft(order)[order] - together).flatten(1).abs().amax(1) < 1e-4
    some = torch.tensor([40, 3, 17, 21, 8])
    same_alone = (craft(some) - together[some]).flatten(1).abs().amax(1) < 1e-4
    assert same.float().mean() > 0.95 and same_alone.sum() >= 4  # sums of floats may turn a sign here and there


def test_under_evaluation_leaving_broken_images_alone_loses_nothing(case):
    if getattr(case.attack, "craft", "eval") == "train":
        pytest.skip("in train mode another network is attacked than measured")

    def broken(active: bool) -> Tensor:
        torch.manual_seed(3)
        with crafting(case.model, terms=Terms(search=True, active=active)) as victim:
            x_adv = case.attack(victim, case.x, case.y, case.threat)
        check_inside(case.attack, x_adv, case.x, case.threat)
        return case.model(x_adv).argmax(1) != case.y

    lost = (broken(active=False) & ~broken(active=True)).sum()
    assert lost <= 1  # one image in 48 for the rounding of floats


def test_the_cost_bounds_the_passes_and_the_family_is_a_known_one(case):
    passes = []
    with crafting(case.model, terms=Terms(tick=passes.append)) as victim:
        case.attack(victim, case.x, case.y, case.threat)
    assert sum(passes) / len(case.x) <= case.attack.cost * 1.05 + 3
    assert case.attack.family in get_args(Family)


@pytest.mark.parametrize("size", [1, 3])
def test_two_classes_and_a_single_image_are_enough(case, size):
    model = SmallNet(classes=2, channels=3).eval()
    x, y = torch.rand(size, 3, 8, 8), torch.arange(size) % 2
    check_inside(case.attack, case.attack(model, x, y, case.threat), x, case.threat)


def test_it_works_where_gradients_are_switched_off(case):
    torch.manual_seed(1)
    expected = case.craft()
    torch.manual_seed(1)
    with torch.no_grad():
        assert torch.equal(case.craft(), expected)


def test_weights_are_computed_once_per_call_and_not_again_inside_a_training_step(case):
    counting = Counting()
    parametrize.register_parametrization(case.model[0], "weight", counting)
    original = case.model[0].parametrizations.weight.original
    counting.calls = 0
    case.craft()
    assert counting.calls == 1
    with effective_weights(case.model):
        x_adv = case.craft()
        F.cross_entropy(case.model(x_adv), case.y).backward()
    assert counting.calls == 2
    assert original.grad.abs().sum() > 0
