from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from adamas.attacks.apgd import APGD, checkpoints
from adamas.attacks.apgd_targeted import APGDT
from adamas.attacks.crafting import Terms, crafting
from adamas.errors import AdamasError
from adamas.threat import L1, L2, Linf
from tests.helpers import Linear, first_batch

THREATS = {"linf": Linf(eps=0.1), "l2": L2(eps=1.0), "l1": L1(eps=6.0)}
ATTACKS = {"apgd": APGD(steps=12), "dlr": APGD(steps=12, loss="dlr"), "apgd_t": APGDT(steps=12, targets=3)}
FAR = [5.0, 0.0]
"""Bias that keeps label 0 right whatever is done to two pixels."""


def attacked(attack, model: nn.Module, x: Tensor, y: Tensor, threat, **terms) -> tuple[Tensor, int]:
    """Images and the number of passes, under given terms, always with the same seed."""
    passes: list[int] = []
    torch.manual_seed(1)
    with crafting(model, terms=Terms(search=True, tick=passes.append, **terms)) as victim:
        return attack(victim, x, y, threat), sum(passes)


@pytest.mark.parametrize("attack", [APGD(), APGD(loss="margin"), APGD(loss="dlr"), APGDT(), APGD(restarts=3)])
@pytest.mark.parametrize(
    ("threat", "optimum"), [(Linf(eps=0.1), [0.4, 0.6]), (L2(eps=0.5), [0.2, 0.9]), (L1(eps=0.3), [0.5, 0.8])]
)
def test_on_a_linear_model_the_optimum_is_found(attack, threat, optimum):
    model = Linear([[3.0, -4.0], [0.0, 0.0]], bias=FAR)  # the loss of label 0 rises along (-3, 4)
    x = torch.full((1, 1, 1, 2), 0.5)
    found = attack(model, x, torch.tensor([0]), threat).flatten()
    torch.testing.assert_close(found, torch.tensor(optimum), atol=2e-3, rtol=0)


def test_an_image_is_left_at_its_first_wrong_prediction():
    model = Linear([[1.0, -2.0], [-1.0, 2.0]], bias=[1.5, 0.0])  # label 0 while 2 * x0 - 4 * x1 + 1.5 > 0
    x, y = torch.full((1, 1, 1, 2), 0.5), torch.tensor([0])
    _, passes = attacked(APGD(), model, x, y, Linf(eps=0.2))
    assert passes == 6  # broken by the first step: two looks with a gradient


def test_one_hundred_steps_are_checked_at_the_published_places():
    assert checkpoints(100) == [0, 22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(10) == [0, 3, 5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize("threat", THREATS.values(), ids=THREATS)
@pytest.mark.parametrize(("classes", "targets"), [(2, 1), (3, 2), (4, 3), (8, 7), (12, 9)])
def test_any_number_of_classes_is_attacked_at_the_announced_cost(threat, classes, targets):
    model, x = Linear(torch.randn(classes, 6)), torch.rand(7, 1, 2, 3)
    y = model(x).argmax(1)
    whole_box = {"linf": 1.0, "l2": 3.0, "l1": 6.0}[threat.name]
    for attack in (APGD(steps=20), APGD(steps=20, loss="dlr"), APGDT(steps=20)):
        x_adv, _ = attacked(attack, model, x, y, type(threat)(eps=whole_box))
        assert (model(x_adv).argmax(1) != y).sum() >= (7 if isinstance(attack, APGDT) else 4)
        _, passes = attacked(attack, model, x, y, type(threat)(eps=0.0))
        announced = attack.cost if isinstance(attack, APGD) else 1 + targets * 61
        assert passes == 7 * announced
    assert APGDT(steps=20, targets=targets).cost == 1 + targets * 61


def test_restarts_cost_their_passes_and_start_elsewhere():
    model, x, y = Linear([[0.0, 0.0], [0.0, 0.0]], bias=FAR), torch.full((1, 1, 1, 2), 0.5), torch.tensor([0])
    starts: list[Tensor] = []
    model.register_forward_pre_hook(lambda _, inputs: starts.append(inputs[0].clone()))
    for attack in (APGD(steps=2, restarts=3), APGDT(steps=2, restarts=3)):
        starts.clear()
        _, passes = attacked(attack, model, x, y, Linf(eps=0.1))
        assert passes == (attack.cost if isinstance(attack, APGD) else 1 + 3 * 7)
        assert len({tuple(start.flatten().tolist()) for start in starts}) == 3 + isinstance(attack, APGDT)


@pytest.mark.parametrize("threat", THREATS.values(), ids=THREATS)
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_leaving_broken_images_loses_nothing(attack, threat, trained, digits):
    x, y = first_batch(digits, 64)
    (left, few), (stayed, all_) = (attacked(attack, trained, x, y, threat, active=active) for active in (True, False))
    broken, also = trained(left).argmax(1) != y, trained(stayed).argmax(1) != y
    assert broken.sum() >= also.sum() > 10 and few < all_


@pytest.mark.parametrize("threat", [Linf(eps=0.01), L2(eps=0.05), L1(eps=0.2)], ids=THREATS)
@pytest.mark.parametrize("attack", [APGD(steps=12), APGD(steps=12, loss="dlr"), APGDT(steps=12, targets=1)], ids=ATTACKS)
def test_where_nothing_breaks_the_active_set_changes_nothing(attack, threat, trained, digits):
    x, y = first_batch(digits, 64)
    sure = trained(x).softmax(1).gather(1, y[:, None])[:, 0] > 0.99
    (first, passes), (second, same) = (attacked(attack, trained, x[sure], y[sure], threat, active=a) for a in (True, False))
    assert torch.equal(first, second) and passes == same and not torch.equal(first, x[sure])


@pytest.mark.parametrize("threat", THREATS.values(), ids=THREATS)
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_neither_batch_nor_order_matters(attack, threat, trained, digits):
    model, (x, y) = copy.deepcopy(trained).double(), first_batch(digits, 12)
    x = x.double()
    together, _ = attacked(attack, model, x, y, threat)
    alone = torch.cat([attacked(attack, model, x[i : i + 1], y[i : i + 1], threat)[0] for i in range(12)])
    order = torch.tensor([7, 2, 9, 0, 5])
    some, _ = attacked(attack, model, x[order], y[order], threat)
    torch.testing.assert_close(alone, together, atol=1e-6, rtol=0)
    torch.testing.assert_close(some, together[order], atol=1e-6, rtol=0)


@pytest.mark.parametrize(("second", "pixel"), [([6.0, 0.0], 0), ([4.0, 0.0], 1)])
def test_of_all_targets_that_fail_the_highest_loss_is_returned(second, pixel):
    model = Linear([[0.0, 0.0], second, [0.0, 1.0]], bias=[9.0, -0.5, 3.0])  # class 2 is tried first and comes as near as -5
    found = APGDT()(model, torch.full((1, 1, 1, 2), 0.5), torch.tensor([0]), Linf(eps=0.5)).flatten()
    assert found[pixel] == 1 and found[1 - pixel] < 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: APGD(loss="dlrr"), "APGD.loss: got 'dlrr'; did you mean 'dlr'?"),  # type: ignore[arg-type]
        (lambda: APGD(steps=0), "APGD.steps: input should be greater than or equal to 1, got 0"),
        (lambda: APGD(rho=0.0), "APGD.rho: input should be greater than 0, got 0.0"),
        (lambda: APGD(alpha=1.5), "APGD.alpha: input should be less than or equal to 1, got 1.5"),
        (lambda: APGDT(targets=0), "APGDT.targets: input should be greater than or equal to 1, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(AdamasError) as caught:
        make()
    assert message in str(caught.value)
