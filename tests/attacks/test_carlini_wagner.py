from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from adamas.attacks.carlini_wagner import CarliniWagner, adam
from adamas.attacks.crafting import Terms, crafting
from adamas.data import Data
from adamas.errors import AdamasError
from adamas.threat import L1, L2, Linf
from tests.attacks.test_fmn import Constant, dual, line
from tests.helpers import SmallNet

QUICK = CarliniWagner(steps=100, searches=6, initial_constant=0.01)


def test_the_distance_to_a_plane_is_found():
    model, x, y, gap = line(12, far=4.0)
    x_adv = QUICK.nearest(model, x, y, L2())
    assert (model(x_adv).argmax(1) != y).all() and x_adv.min() >= 0 and x_adv.max() <= 1
    ratio = L2().distance(x_adv, x) * dual(model, L2()) / gap
    assert ratio.min() > 0.999 and ratio.max() < 1.02


def test_as_an_attack_exactly_what_is_near_enough_is_broken():
    model, x, y, gap = line(12, far=4.0)
    true = gap / dual(model, L2())
    eps = float(true.median()) * 1.03
    clear = (true / eps - 1).abs() > 0.02
    broken = model(QUICK(model, x, y, L2(eps=eps))).argmax(1) != y
    assert 0 < broken.sum() < len(x) and torch.equal(broken[clear], (true < eps)[clear])


def test_confidence_is_the_margin_that_the_wrong_class_wins_by():
    model, x, y, gap = line(12, far=4.0)
    sure = replace(QUICK, confidence=0.4)
    x_adv = sure.nearest(model, x, y, L2())
    logits = model(x_adv).detach()
    assert (logits[range(len(x)), 1 - y] - logits[range(len(x)), y] >= 0.4 - 1e-5).all()
    ratio = L2().distance(x_adv, x) * dual(model, L2()) / (gap + 0.4)
    assert ratio.min() > 0.999 and ratio.max() < 1.02


def test_the_constant_is_searched_for_each_image_alone():
    """Alone and beside an image that needs a constant a hundred times larger, an image gets the same answer."""
    model, x, y, _ = line()
    quick = replace(QUICK, steps=40)
    x[1] = 0.5 + 0.5 * (x[1] - 0.5) / (x[1] - 0.5).abs().max()
    y[1] = model(x).argmax(1)[1]
    both = quick.nearest(model, x[:2], y[:2], L2())
    for i in (0, 1):
        torch.testing.assert_close(quick.nearest(model, x[i : i + 1], y[i : i + 1], L2())[0], both[i], rtol=0, atol=1e-5)


def test_neither_batch_nor_order_matters(trained, digits: Data):
    x, y = next(digits.test.batches(6))
    attack = CarliniWagner(steps=20, searches=3, initial_constant=1.0)
    whole, order = attack.nearest(trained, x, y, L2()), torch.tensor([3, 5, 0, 4, 1, 2])
    torch.testing.assert_close(attack.nearest(trained, x[order], y[order], L2()), whole[order], rtol=0, atol=1e-4)


def test_where_nothing_is_found_or_needed_the_image_stays():
    x, y = torch.rand(5, 1, 4, 4), torch.zeros(5, dtype=torch.long)
    quick = CarliniWagner(steps=9, searches=2)
    assert torch.equal(quick.nearest(Constant(), x, y, L2()), x)
    assert torch.equal(quick(Constant(), x, y, L2()), x)
    assert torch.equal(quick.nearest(Constant(), x, y + 1, L2()), x)


def test_an_image_that_is_done_costs_nothing_more():
    passes: list[int] = []
    model, x, y, gap = line()
    with crafting(model, terms=Terms(search=True, tick=passes.append)) as victim:
        QUICK(victim, x, y, L2(eps=float(gap.max() / dual(model, L2())) * 2))
    assert 0 < sum(passes) < 0.2 * QUICK.cost * len(x)


def test_early_abort_saves_passes_and_loses_next_to_nothing():
    model, x, y, _ = line(6, far=4.0)
    passes: dict[bool, list[int]] = {True: [], False: []}
    distance = {}
    for abort, seen in passes.items():
        with crafting(model, terms=Terms(tick=seen.append)) as victim:
            distance[abort] = L2().distance(replace(QUICK, early_abort=abort).nearest(victim, x, y, L2()), x)
    assert sum(passes[False]) == QUICK.cost * 6 > 1.2 * sum(passes[True])
    assert (distance[True] / distance[False]).median() < 1.01


def test_few_classes_are_enough():
    for classes in (2, 3):
        model, x = SmallNet(classes=classes).eval(), torch.rand(4, 1, 8, 8)
        y = model(x).argmax(1)
        assert CarliniWagner(steps=5, searches=2).nearest(model, x, y, L2()).shape == x.shape


@pytest.mark.parametrize("threat", [Linf(), L1()])
def test_other_norms_are_refused(threat):
    model, x, y, _ = line()
    message = (
        rf"attack carlini_wagner: expected the threat l2, whose norm it minimises, got {threat.name}\(.*fmn works in every"
    )
    with pytest.raises(AdamasError, match=message):
        CarliniWagner()(model, x, y, threat)
    with pytest.raises(AdamasError, match=message):
        CarliniWagner().nearest(model, x, y, threat)


def test_adam_moves_as_torchs():
    parameter = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.Adam([parameter], lr=0.01)
    at, mean, square = torch.zeros(3), torch.zeros(3), torch.zeros(3)
    for step in range(1, 6):
        parameter.grad = torch.randn(3)
        move, mean, square = adam(parameter.grad, mean, square, step)
        at = at - 0.01 * move
        optimizer.step()
        torch.testing.assert_close(at, parameter.detach())
