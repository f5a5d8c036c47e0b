from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from adamas.attacks.apgd import APGD
from adamas.attacks.autoattack import Screen
from adamas.attacks.crafting import Terms, crafting
from adamas.attacks.eot import EOT
from adamas.attacks.fgsm import FGSM
from adamas.attacks.pgd import PGD
from adamas.errors import AdamasError
from adamas.threat import L2, Linf
from tests.helpers import Linear, first_batch


class Noisy(nn.Module):
    """Two classes; the wrong one's logit is slope * x + offset, both with normal noise drawn anew at every pass."""

    def __init__(self, slope: list[float], offset: float, slope_noise: float = 0.0, offset_noise: float = 0.0):
        super().__init__()
        self.slope, self.offset, self.noise = torch.tensor(slope), offset, (slope_noise, offset_noise)
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        slope = self.slope + self.noise[0] * torch.randn(len(x), len(self.slope))
        wrong = (slope * x.flatten(1)).sum(1) + self.offset + self.noise[1] * torch.randn(len(x))
        return torch.stack([torch.zeros_like(wrong), wrong], 1)


GREY = torch.full((50, 1, 1, 4), 0.5)
ZEROS = torch.zeros(50, dtype=torch.long)


def test_every_pass_is_so_many_draws():
    model = Noisy([1.0, 1.0, 1.0, 1.0], offset=-9.0)
    ticks: list[int] = []
    with crafting(model, terms=Terms(search=True, tick=ticks.append)) as victim:
        EOT(attack=APGD(steps=5), samples=7)(victim, GREY, ZEROS, Linf(eps=0.1))
    assert model.passes == 6 * 7
    assert sum(ticks) == 50 * EOT(attack=APGD(steps=5), samples=7).cost == 50 * 16 * 7


@pytest.mark.parametrize(("of_the_evaluation", "draws"), [(3, 7), (11, 11)])
def test_the_larger_number_of_draws_counts(of_the_evaluation, draws):
    model = Noisy([1.0, 1.0, 1.0, 1.0], offset=-9.0)
    with crafting(model, terms=Terms(samples=of_the_evaluation)) as victim:
        EOT(attack=FGSM(), samples=7)(victim, GREY, ZEROS, Linf(eps=0.1))
    assert model.passes == draws


def test_the_mean_gradient_points_where_single_draws_do_not():
    model = Noisy([1.0, -1.0, 1.0, -1.0], offset=-9.0, slope_noise=3.0)
    one_step = PGD(steps=1, step_size=0.1, random_start=False, loss="margin")
    best = torch.tensor([0.6, 0.4, 0.6, 0.4]).expand(50, 4)
    right = [
        (attack(model, GREY, ZEROS, Linf(eps=0.1)).flatten(1) - best).abs().lt(1e-6).float().mean()
        for attack in (one_step, EOT(attack=one_step, samples=100))
    ]
    assert right[0] < 0.75 and right[1] > 0.99  # P(3 z < 1) = 0.63 for one draw, P(0.3 z < 1) = 0.9996 for a hundred


def test_noise_alone_is_no_success():
    model = Noisy([0.0, 0.0, 0.0, 0.0], offset=-1.0, offset_noise=1.0)  # 16 % of single draws are wrong, whatever the image
    before = GREY.clone()

    def taken(attack) -> int:
        hits: list[Tensor] = []

        def accept(rows: Tensor, _: Tensor) -> Tensor:
            hits.append(rows)
            return torch.ones(len(rows), dtype=torch.bool)

        with crafting(model, terms=Terms(search=True, accept=accept)) as victim:
            attack(victim, GREY, ZEROS, Linf(eps=0.1))
        return sum(map(len, hits))

    assert taken(APGD(steps=30)) > 45
    assert taken(EOT(attack=APGD(steps=30), samples=40)) == 0
    assert torch.equal(GREY, before)


@pytest.mark.parametrize("threat", [Linf(eps=0.1), L2(eps=0.5)])
def test_without_noise_it_is_the_inner_attack(threat, digits):
    x, y = first_batch(digits, 16)
    model = Linear(torch.randn(10, 64))
    found = []
    for attack in (PGD(steps=5), EOT(attack=PGD(steps=5), samples=4)):
        torch.manual_seed(1)
        found.append(attack(model, x, y, threat))
    torch.testing.assert_close(found[0], found[1])


def test_family_and_parts_are_those_of_the_inner_attack():
    assert EOT(attack=APGD(loss="dlr")).family == "margin-loss gradient"
    assert EOT(attack=APGD()).family == "cross-entropy gradient"
    assert EOT(attack=PGD(), samples=3).parts == (EOT(attack=PGD(), samples=3),)
    assert EOT(attack=Screen(), samples=3).parts == tuple(EOT(attack=part, samples=3) for part in Screen().parts)


def test_no_draws_are_refused():
    with pytest.raises(AdamasError, match=r"EOT.samples: input should be greater than or equal to 1, got 0"):
        EOT(samples=0)
