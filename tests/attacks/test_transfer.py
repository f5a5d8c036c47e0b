"""Images crafted elsewhere, scored here."""

from __future__ import annotations

import torch
from torch import nn

from adamas.attacks.crafting import Terms, crafting
from adamas.attacks.fgsm import FGSM
from adamas.attacks.pgd import PGD
from adamas.attacks.square import Square
from adamas.attacks.transfer import Transfer
from adamas.noise import Noise
from adamas.registry import label
from adamas.threat import Linf
from tests.attacks.reference import MIDDLE, ZERO
from tests.helpers import Linear

PARENT = Linear([[1.0, -2.0], [-1.0, 2.0]])
CHILD = Linear([[1.0, 0.0], [-1.0, 0.0]])
THREAT = Linf(eps=0.1)


def test_the_gradient_is_the_parents():
    crafted = Transfer(source=PARENT, origin="parent", attack=FGSM())(CHILD, MIDDLE, ZERO, THREAT)
    torch.testing.assert_close(crafted.flatten(), torch.tensor([0.4, 0.6]))
    both = Transfer(source=CHILD, origin="child", attack=FGSM())(PARENT, MIDDLE, ZERO, THREAT)
    torch.testing.assert_close(both.flatten(), torch.tensor([0.4, 0.5]))


def test_under_evaluation_an_image_is_attacked_on_until_the_model_that_counts_falls():
    """The parent errs once x0 - 2 x1 < -.5 (at once), the child only from x0 < .45 on."""
    child = Linear([[10.0, 0.0], [-10.0, 0.0]], bias=[-4.5, 4.5])
    attack = Transfer(source=PARENT, origin="parent", attack=PGD(steps=10, step_size=0.02, random_start=False))

    def accept(rows: torch.Tensor, x_adv: torch.Tensor) -> torch.Tensor:
        return child(x_adv).argmax(1) != 0

    with torch.no_grad(), crafting(child, terms=Terms(search=True, accept=accept)) as victim:
        crafted = attack(victim, MIDDLE, ZERO, THREAT)
    torch.testing.assert_close(crafted.flatten()[0], torch.tensor(0.44))  # the third step: .48, .46, .44
    assert child(crafted).argmax(1) == 1


def test_its_name_says_what_ran_where_and_its_family_what_it_knew():
    white = Transfer(source=PARENT, origin="fp32 parent", attack=PGD(steps=3))
    black = Transfer(source=PARENT, origin="model.int8.onnx", attack=Square(queries=100))
    assert label(white) == "pgd(steps=3) on fp32 parent" and white.family == "transfer" and white.cost == PGD(steps=3).cost
    assert label(black) == "square(queries=100) on model.int8.onnx" and black.family == "black-box"


def test_both_models_are_left_as_found():
    parent, child = Linear([[1.0, -2.0], [-1.0, 2.0]]).train(), Linear([[1.0, 0.0], [-1.0, 0.0]]).train()
    Transfer(source=parent, origin="parent")(child, MIDDLE, ZERO, THREAT)
    assert parent.training and child.training
    assert all(p.requires_grad and p.grad is None for p in (*parent.parameters(), *child.parameters()))


def test_noise_of_the_source_is_turned_off():
    noisy = nn.Sequential(nn.Flatten(), nn.Linear(4, 16), Noise(5.0), nn.ReLU(), nn.Linear(16, 2)).eval()
    x, y = torch.rand(6, 1, 2, 2), torch.zeros(6, dtype=torch.long)
    attack = Transfer(source=noisy, origin="noisy", attack=PGD(steps=3, random_start=False))
    child = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    whole = attack(child, x, y, THREAT)
    halves = torch.cat([attack(child, x[part], y[part], THREAT) for part in (slice(0, 2), slice(2, 6))])
    assert torch.equal(whole, halves) and not torch.equal(whole, x)
    assert any(isinstance(layer, Noise) for layer in noisy)
