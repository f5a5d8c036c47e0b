from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from adamas.attacks.crafting import Terms, crafting
from adamas.attacks.fmn import FMN
from adamas.data import Data
from adamas.threat import L1, L2, Linf
from tests.helpers import Linear, SmallNet

THREATS = [Linf(eps=0.05), L2(eps=0.3), L1(eps=0.5)]


def line(images: int = 20, far: float = 1.0) -> tuple[Linear, Tensor, Tensor, Tensor]:
    """Two classes, mid-grey images on both sides, their labels and how far the logits are apart: `far` times .12 to .6."""
    model = Linear(torch.stack([weight := torch.randn(16), -weight]))
    x = 0.5 + 0.02 * torch.randn(images, 16)
    aside = far * torch.linspace(0.06, 0.3, images) * torch.tensor([1.0, -1.0]).repeat(images)[:images]  # half the gap
    x = x + ((aside - x @ weight) / weight.square().sum())[:, None] * weight
    return model, x.view(-1, 1, 4, 4), (aside < 0).long(), 2 * aside.abs()


def dual(model: Linear, threat) -> Tensor:
    slope = (model.weight[0] - model.weight[1]).detach()
    return {"linf": slope.abs().sum(), "l2": slope.norm(), "l1": slope.abs().max()}[threat.name]


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.name)
def test_the_distance_to_a_plane_is_found(threat):
    model, x, y, gap = line()
    x_adv = FMN().nearest(model, x, y, threat)
    assert (model(x_adv).argmax(1) != y).all() and x_adv.min() >= 0 and x_adv.max() <= 1
    ratio = threat.distance(x_adv, x) * dual(model, threat) / gap
    assert ratio.min() > 0.999 and ratio.max() < 1.02


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.name)
def test_as_an_attack_exactly_what_is_near_enough_is_broken(threat):
    model, x, y, gap = line()
    true = gap / dual(model, threat)
    eps = float(true.median()) * 1.03
    clear = (true / eps - 1).abs() > 0.02
    x_adv = FMN()(model, x, y, type(threat)(eps=eps))
    broken = model(x_adv).argmax(1) != y
    assert 0 < broken.sum() < len(x) and torch.equal(broken[clear], (true < eps)[clear])


def test_a_black_and_white_image_is_no_trap():
    """The steepest pixels are black and would go below 0; the only way is through the others."""
    model = Linear([[5.0, 5.0, 1.0, 1.0], [-5.0, -5.0, -1.0, -1.0]], bias=[-0.5, 0.5])
    x, y = torch.tensor([0.0, 0.0, 1.0, 0.5]).view(1, 1, 2, 2), torch.tensor([0])
    x_adv = FMN().nearest(model, x, y, L2())
    assert model(x_adv).argmax(1) == 1
    assert float(L2().distance(x_adv, x)) == pytest.approx(0.5**0.5, rel=0.05)  # 1 in all, shared by two pixels


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.name)
def test_where_nothing_is_found_the_image_stays(threat):
    x, y = torch.rand(5, 1, 4, 4), torch.zeros(5, dtype=torch.long)
    assert torch.equal(FMN(steps=9).nearest(Constant(), x, y, threat), x)
    assert torch.equal(FMN(steps=9)(Constant(), x, y, threat), x)


class Constant(nn.Module):
    """Always class 0, whatever it sees."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tensor([1.0, 0.0, 0.0]) + 0 * x.flatten(1).sum(1, keepdim=True)


def test_an_image_that_is_misclassified_is_its_own_nearest():
    model, x, y, _ = line()
    assert torch.equal(FMN(steps=9).nearest(model, x, 1 - y, Linf()), x)


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.name)
def test_neither_batch_nor_order_matters(threat, trained, digits: Data):
    x, y = next(digits.test.batches(12))
    attack = FMN(steps=15)
    whole = attack.nearest(trained, x, y, threat)
    order = torch.tensor([7, 2, 11, 0, 5, 3, 1, 10, 4, 9, 8, 6])
    torch.testing.assert_close(attack.nearest(trained, x[order], y[order], threat), whole[order], rtol=0, atol=1e-4)
    alone = torch.cat([attack.nearest(trained, x[i : i + 1], y[i : i + 1], threat) for i in range(12)])
    torch.testing.assert_close(alone, whole, rtol=0, atol=1e-4)


def test_few_classes_are_enough():
    for classes in (2, 3):
        model, x = SmallNet(classes=classes).eval(), torch.rand(4, 1, 8, 8)
        y = model(x).argmax(1)
        assert FMN(steps=5).nearest(model, x, y, L2()).shape == x.shape


def test_a_broken_image_is_left_and_the_others_cost_what_they_should():
    model, x, y, gap = line()
    threat = Linf(eps=float((gap / dual(model, Linf())).median()))
    passes, attack = [], FMN(steps=30)
    with crafting(model, terms=Terms(search=True, tick=passes.append)) as victim:
        attack(victim, x, y, threat)
    assert max(passes) == passes[0] == 3 * len(x) and sum(passes) < 0.8 * attack.cost * len(x)
    passes.clear()
    with crafting(model, terms=Terms(search=True, tick=passes.append)) as victim:
        attack(victim, x, y, Linf(eps=1e-4))
    assert sum(passes) == attack.cost * len(x)
