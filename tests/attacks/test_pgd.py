from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adamas.attacks.crafting import Terms, crafting
from adamas.attacks.pgd import PGD
from adamas.errors import AdamasError
from adamas.threat import L2, Linf
from tests.attacks.reference import MIDDLE, ZERO, assert_follows
from tests.helpers import Linear, SmallNet


@pytest.mark.parametrize("threat", [Linf(eps=0.07), L2(eps=0.4)])
def test_every_step_follows_the_definition(threat):
    assert_follows(PGD(steps=6, step_size=0.03, random_start=False), threat, steps=6, step=0.03)
    assert_follows(PGD(steps=5), threat, steps=5, step=threat.eps / 2, random_start=True)


class Recording(Linear):
    """Remembers the size of every batch it sees."""

    sizes: tuple[int, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        self.sizes += (len(x),)
        return super().forward(x)


def test_a_restart_attacks_only_what_still_stands_and_keeps_what_fell():
    model = Recording([[1.0, -2.0], [-1.0, 2.0]], bias=[0.3, -0.3])
    x = torch.tensor([[0.5, 0.5], [0.9, 0.1], [0.45, 0.5]]).view(3, 1, 1, 2)  # image 1 is out of reach
    y = torch.tensor([0, 0, 0])
    thrice = PGD(steps=2, restarts=3, random_start=False)(model, x, y, Linf(eps=0.2))
    assert (Linear.forward(model, thrice).argmax(1) == y).tolist() == [False, True, False]
    assert model.sizes[0] == 3 and set(model.sizes[3:]) == {1}  # the start, one step, and then image 1 alone
    assert len(model.sizes) == 3 * 3  # in every restart two steps and a last look


def test_restarts_end_when_nothing_stands():
    model = Recording([[1.0, -2.0], [-1.0, 2.0]])
    PGD(steps=2, restarts=9, random_start=False)(model, MIDDLE, ZERO, Linf(eps=0.2))
    assert len(model.sizes) <= 3


def test_under_evaluation_an_image_is_left_at_its_first_wrong_prediction():
    model, x = Recording([[1.0, -2.0], [-1.0, 2.0]], bias=[0.75, -0.75]), MIDDLE.repeat(2, 1, 1, 1)
    x[1, ..., 0] = 0.9
    attack = PGD(steps=8, step_size=0.05, random_start=False)
    with crafting(model, terms=Terms(search=True)) as victim:
        found = attack(victim, x, torch.zeros(2).long(), Linf(eps=0.2))
    # image 0 has a margin of -.5 and gains .3 in every step; image 1 has -1.3 and may gain 1.2
    assert model.sizes == (2, 2, 2, *[1] * 6)
    torch.testing.assert_close(found[0].flatten(), torch.tensor([0.4, 0.6]))
    torch.testing.assert_close(found[1].flatten(), torch.tensor([0.7, 0.7]))


@pytest.mark.parametrize("loss", ["margin", "dlr"])
def test_margin_losses_break_what_saturated_logits_hide_from_the_cross_entropy(loss):
    model = Linear([[4e3, -8e3, 0.0], [-4e3, 8e3, 0.0], [0.0, 0.0, 0.0]], bias=[2.4e3, -2.4e3, 0.0])
    x = torch.full((1, 1, 1, 3), 0.5)
    blind = PGD(steps=5, random_start=False)(model, x, ZERO, Linf(eps=0.2))
    assert torch.equal(blind, x)  # the cross-entropy and its gradient are exactly zero
    assert model(PGD(steps=5, random_start=False, loss=loss)(model, x, ZERO, Linf(eps=0.2))).argmax(1) == 1


def test_what_an_image_starts_from_does_not_depend_on_its_batch():
    model, x, y = SmallNet().eval(), torch.rand(12, 1, 8, 8), torch.arange(12) % 10
    torch.manual_seed(3)
    together = PGD(steps=1, step_size=0.0)(model, x, y, Linf(eps=0.1))
    for rows in (torch.tensor([7]), torch.tensor([9, 2, 0]), torch.arange(11, -1, -1)):
        torch.manual_seed(3)
        assert torch.equal(PGD(steps=1, step_size=0.0)(model, x[rows], y[rows], Linf(eps=0.1)), together[rows])


def test_restarts_in_train_mode_are_refused():
    with pytest.raises(AdamasError, match="expected restarts: 1 with craft: train, whose predictions are not those of"):
        PGD(restarts=2, craft="train")
