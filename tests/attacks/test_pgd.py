from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adamas.attacks.pgd import PGD
from adamas.threat import L2, Linf
from tests.attacks.reference import MIDDLE, ZERO, assert_follows
from tests.helpers import Linear


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
    torch.manual_seed(1)
    once = PGD(steps=2)(model, x, y, Linf(eps=0.2))
    assert (model(once).argmax(1) == y).tolist() == [False, True, False]
    model.sizes = ()
    torch.manual_seed(1)
    thrice = PGD(steps=2, restarts=3)(model, x, y, Linf(eps=0.2))
    assert model.sizes == (3, 3, 3, 1, 1, 3, 1, 1)
    assert torch.equal(thrice[[0, 2]], once[[0, 2]])


def test_restarts_end_when_nothing_stands():
    model = Recording([[1.0, -2.0], [-1.0, 2.0]])
    PGD(steps=2, restarts=9)(model, MIDDLE, ZERO, Linf(eps=0.2))
    assert model.sizes == (1, 1, 1)
