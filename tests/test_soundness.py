"""The signs that a robustness figure is not what it seems: each by hand, then all of them on the zoo."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adamas.attacks.apgd import APGD
from adamas.attacks.apgd_targeted import APGDT
from adamas.attacks.crafting import Victim
from adamas.attacks.eot import EOT
from adamas.attacks.pgd import PGD
from adamas.attacks.square import Square
from adamas.attacks.transfer import Transfer
from adamas.data import Data
from adamas.evaluate import Evaluate, Evaluation, evaluate
from adamas.roles import Family
from adamas.soundness import comparison_flags, probe_flags
from adamas.threat import L1, L2, Linf
from adamas.verdict import AttackResult, Rate
from tests.helpers import Linear
from tests.zoo import BROKEN, HONEST

X, Y = 0.6 + 0.3 * torch.rand(40, 1, 2, 2, generator=torch.Generator().manual_seed(0)), torch.zeros(40, dtype=torch.long)
THREAT = Linf(eps=0.05)
BRIGHT = [[1.0] * 4, [0.0] * 4]
"""Class 0 above a mean of one half, with the bias of -2 below."""


def bright(scale: float = 1.0) -> Linear:
    return Linear(scale * torch.tensor(BRIGHT), bias=[-2.0 * scale, 0.0])


class Through(nn.Module):
    """The linear model behind something done to the images."""

    def __init__(self, change: Any):
        super().__init__()
        self.inner, self.change = bright(), change

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.change(x))


class Against(nn.Module):
    """Class 0 at zero against class 1 at the given function of each image's mean."""

    def __init__(self, rival: Any):
        super().__init__()
        self.rival = rival

    def forward(self, x: Tensor) -> Tensor:
        rival = self.rival(x.flatten(1).mean(1))
        return torch.stack([torch.zeros_like(rival), rival], 1)


def partly(share: float) -> Any:
    """The images themselves, with gradients only for the first `share` of the batch."""
    return lambda x: torch.cat([x[: round(share * len(x))], x[round(share * len(x)) :].detach()])


def reversed_gradient(x: Tensor) -> Tensor:
    return 2 * x.detach() - x


def hidden_bump(mean: Tensor) -> Tensor:
    """Highest .045 away from .748, where small steps stay, but for the corners beyond .09, where it is positive."""
    away = (mean - 0.748).abs()
    return torch.where(away > 0.09, away, -1 - (away - 0.045).abs())


def test_an_ordinary_model_has_no_flags_and_is_left_as_found():
    model = nn.Sequential(bright(), nn.Dropout(0.5)).train()
    for threat in (THREAT, L2(eps=0.1), L1(eps=0.2)):
        assert probe_flags(model, X, Y, threat) == []
    assert model.training and all(p.requires_grad and p.grad is None for p in model.parameters())


def test_randomised_outputs_are_flagged():
    assert probe_flags(Through(lambda x: x + 0.1 * torch.randn(())), X, Y, THREAT) == [
        "randomised output: two passes give different logits for 100% of the images (40 of 40); "
        "attack the expectation over the noise (eot) and evaluate the mean of many draws (samples)"
    ]


def test_answers_that_depend_on_the_batch_are_flagged():
    assert probe_flags(Through(lambda x: x - x.mean(0) + 0.75), X, Y, THREAT)[0] == (
        "batch statistics: the other images of the batch change the logits of 100% of the images (40 of 40); "
        "evaluate with statistics fixed in training, or with batch_size: 1"
    )


def test_last_bits_that_differ_from_pass_to_pass_are_no_noise():
    assert probe_flags(Through(lambda x: x + 1e-5 * torch.randn_like(x)), X, Y, THREAT) == []


def test_missing_gradients_are_counted_and_cause_no_second_flag():
    assert probe_flags(Through(partly(0.95)), X, Y, THREAT) == []  # up to 5 % is let pass
    assert probe_flags(Through(lambda x: x.round()), X, Y, THREAT) == [
        "zero gradients: 100% of the images (40 of 40) give gradient attacks nothing to follow; "
        "add a black-box attack (square) and a transferred one"
    ]


def test_a_cross_entropy_too_flat_for_float32_is_flagged():
    assert probe_flags(bright(scale=1000.0), X, Y, THREAT) == [
        "vanishing gradients: the cross-entropy of 100% of the images (40 of 40) is too flat for float32; "
        "add attacks on the margin of the logits (apgd_t, or pgd with loss: margin)"
    ]
    assert probe_flags(bright(scale=10.0), X, Y, THREAT) == []


def test_gradients_that_do_not_raise_the_loss_are_flagged():
    assert probe_flags(Through(reversed_gradient), X, Y, THREAT) == [
        "loss not rising with steps: 10 steps along the gradient leave the loss of 100% of the images (40 of 40) no higher "
        "than it was; add a black-box attack (square) and a transferred one",
        "robust accuracy above zero at eps = large: 40 of 40 images withstand linf(eps=0.5), "
        "which can turn every image grey; gradient attacks fail here: add black-box (square) and transferred ones",
    ]


def test_images_that_stand_without_any_bounds_are_flagged():
    (flag,) = probe_flags(Against(lambda mean: -0.1 - (mean - 0.3) ** 2), X, Y, THREAT)
    assert flag.startswith("robust accuracy above zero at eps = large: 40 of 40 images withstand linf(eps=0.5)")


def test_one_step_that_breaks_more_than_ten_is_flagged():
    flags = probe_flags(Against(hidden_bump), torch.full_like(X, 0.75) + 1e-4 * X, Y, Linf(eps=0.3))
    assert any(flag.startswith("FGSM beats PGD: from the same start one step breaks") for flag in flags)


def test_no_images_raise_no_flag():
    assert probe_flags(bright(), X[:0], Y[:0], THREAT) == []


def test_the_probes_cost_at_most_108_passes_per_image(monkeypatch):
    passes = []
    monkeypatch.setattr(Victim, "_tick", lambda self, n: passes.append(n))
    probe_flags(Through(reversed_gradient), X, Y, THREAT)  # no image is ever broken
    assert sum(passes) == 108 * len(X)


# ------------------------------------------------------------------------------------------------- attacks compared

CE: Family = "cross-entropy gradient"
MARGIN: Family = "margin-loss gradient"


def ran(*attacks: tuple[str, Any, int, int]) -> list[AttackResult]:
    return [AttackResult(name, family, n, broken, Rate.of(0, 1), 0.0) for name, family, n, broken in attacks]


@pytest.mark.parametrize("margins", [False, True])
def test_a_black_box_may_find_a_few_images_more(margins):
    last: Family = MARGIN if margins else CE
    allowed = 3 if margins else 10  # of 100 images attacked
    for beyond in (allowed, allowed + 1):
        results = ran(("pgd", CE, 100, 40), ("apgd", last, 60, 10), ("square", "black-box", 50, beyond))
        assert bool(comparison_flags(results)) == (beyond > allowed)


def test_black_boxes_and_transfers_that_beat_white_boxes_say_by_how_much():
    results = ran(("pgd", CE, 100, 10), ("pgd on parent", "transfer", 90, 30), ("square", "black-box", 60, 20))
    assert comparison_flags(results) == [
        f"{kind} beats white box: {name} breaks {n} of 100 images more than the white-box attacks; "
        "their gradients mislead: add margin losses (apgd_t), restarts, and transfer from an undefended network"
        for kind, name, n in (("transfer", "pgd on parent", 30), ("black box", "square", 20))
    ]


def test_where_every_attack_saw_every_image_the_best_white_box_counts():
    white = ("pgd", CE, 100, 40), ("apgd_t", MARGIN, 100, 45)
    assert comparison_flags(ran(*white, ("square", "black-box", 100, 48))) == []
    (flag,) = comparison_flags(ran(*white, ("square", "black-box", 100, 49)))
    assert "square breaks 4 of 100 images more" in flag


def test_few_images_prove_nothing_and_neither_does_a_black_box_alone():
    assert comparison_flags(ran(("apgd_t", MARGIN, 10, 5), ("square", "black-box", 5, 2))) == []
    assert comparison_flags(ran(("square", "black-box", 100, 90))) == []
    assert comparison_flags([]) == []


def test_fewer_steps_that_break_more_of_the_same_images_are_flagged():
    assert comparison_flags(ran(("fgsm", CE, 100, 50), ("pgd(steps=10)", CE, 100, 40))) == [
        "FGSM beats PGD: fgsm breaks 50 of 100 images, pgd(steps=10), with more passes, 40; "
        "check its step size, add restarts and a black-box attack (square)"
    ]
    assert comparison_flags(ran(("fgsm", CE, 100, 43), ("pgd", CE, 100, 40))) == []
    assert comparison_flags(ran(("fgsm", CE, 100, 50), ("pgd", CE, 50, 40))) == []  # it saw only what was left
    assert comparison_flags(ran(("fgsm", CE, 100, 50), ("apgd_t", MARGIN, 100, 40))) == []
    assert comparison_flags(ran(("pgd", MARGIN, 100, 50), ("cw_linf_adam", MARGIN, 100, 10))) == []  # weak on purpose


# ----------------------------------------------------------------------------------------------------------- the zoo

SIGNS = {
    "quantized_input": "zero gradients: 100%",
    "saturated_logits": "vanishing gradients: the cross-entropy of 100%",
    "k_winners": "vanishing gradients",
    "noisy_input": "randomised output",
    "thermometer": "zero gradients: 100%",
    "constant_gradient": "loss not rising with steps",
    "rounded_features": "zero gradients: 100%",
    "batch_statistics": "batch statistics",
    "conflicting_vote": "robust accuracy above zero at eps = large",
    "jpeg": "zero gradients: 100%",
}
"""What gives each broken defence away, before any attack is run."""
BEATEN = {"quantized_input", "thermometer", "constant_gradient", "rounded_features", "conflicting_vote", "jpeg"}
"""Defences against which transfer does better than the gradient of the defence itself."""
SUITE: Any = (APGD(steps=25), APGDT(steps=20, targets=3), Square(queries=300))
MEAN: Any = EOT(attack=PGD(steps=10), samples=8)
BARE = 0.1
"""Robust accuracy at linf .2 that a broken defence may have beyond the bare network's own, which is 0; measured: 0 to .07."""


@cache
def evaluated(name: str, digits: Data, eps: float) -> Evaluation:
    attacks = (*SUITE, MEAN) if name == "noisy_input" else SUITE
    bare = Transfer((BROKEN["batch_statistics"] if name == "small_net" else HONEST["small_net"])(digits), "bare", PGD(steps=20))
    images = replace(digits, test=digits.test[:60])
    return evaluate((BROKEN | HONEST)[name](digits), images, Evaluate(attacks=attacks), Linf(eps=eps), also=[bare])


def test_every_broken_defence_has_its_sign():
    assert SIGNS.keys() == BROKEN.keys() and len(HONEST) == 10


@pytest.mark.parametrize("name", BROKEN)
def test_every_broken_defence_is_flagged(name, digits):
    flags = evaluated(name, digits, 0.2).flags
    assert any(flag.startswith(SIGNS[name]) for flag in flags)
    assert any(flag.startswith("transfer beats white box") for flag in flags) == (name in BEATEN)


@pytest.mark.parametrize("name", BROKEN)
def test_every_broken_defence_is_broken_by_some_attack(name, digits):
    bare, found = evaluated("small_net", digits, 0.2), evaluated(name, digits, 0.2)
    assert found.clean.value >= 0.85 and bare.worst_case.value == 0
    assert found.worst_case.value <= BARE


@pytest.mark.parametrize("eps", [0.1, 0.2])
@pytest.mark.parametrize("name", HONEST)
def test_no_honest_model_is_flagged(name, eps, digits):
    assert evaluated(name, digits, eps).flags == []


@pytest.mark.parametrize("name", HONEST)
def test_no_honest_model_is_flagged_by_the_probes_under_other_threats(name, digits):
    model, (x, y) = HONEST[name](digits), next(digits.test.batches(32))
    right = model(x).argmax(1) == y
    for threat in (Linf(eps=8 / 255), L2(eps=0.5), L1(eps=2.0)):
        assert probe_flags(model, x[right], y[right], threat) == []
