from __future__ import annotations

import json
import math
from statistics import median
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from adamas.attacks.carlini_wagner import CarliniWagner
from adamas.attacks.crafting import crafting
from adamas.attacks.fmn import FMN
from adamas.attacks.losses import margin
from adamas.attacks.pgd import PGD
from adamas.curve import security_curve
from adamas.data import Data, Images
from adamas.errors import AdamasError
from adamas.evaluate import Evaluate, evaluate
from adamas.noise import Noise
from adamas.registry import settings
from adamas.roles import Attack, Family, Threat, per_image
from adamas.threat import L1, L2, Linf
from tests.attacks.test_fmn import Constant, dual, line
from tests.helpers import Sealed

QUICK = FMN(steps=40)


def data_of(x: Tensor, y: Tensor, classes: int = 2) -> Data:
    images = Images(x, y)
    return Data("made", tuple("abc"[:classes]), images[:0], images[:0], images)


@pytest.mark.parametrize("threat", [Linf(eps=0.01), L2(eps=0.05), L1(eps=0.1)], ids=lambda threat: threat.name)
def test_the_curve_of_a_plane_is_the_true_one(threat):
    model, x, y, gap = line(16)
    y[:4] = 1 - y[:4]  # clean errors
    true = (gap / dual(model, threat)).tolist()
    curve = security_curve(model, data_of(x, y), threat, epsilons=[d * 1.01 for d in true[4:]], batch_size=5)
    assert curve.distances[:4] == [0.0] * 4
    assert curve.distances[4:] == pytest.approx(true[4:], rel=0.005) and curve.n == 16
    assert curve.epsilons == sorted(d * 1.01 for d in true[4:])
    expected = [sum(d > eps for d in true[4:]) for eps in curve.epsilons]
    assert [rate.right for rate in curve.rates] == expected and {rate.n for rate in curve.rates} == {16}
    assert curve.threat == threat.name and curve.attack == "fmn"
    assert curve.median == pytest.approx(median([0.0] * 4 + true[4:]), rel=0.02)


def test_what_is_never_found_counts_as_right_everywhere():
    x, y = torch.rand(6, 1, 4, 4), torch.tensor([0, 0, 0, 0, 1, 2])
    curve = security_curve(Constant(), data_of(x, y, 3), Linf(eps=0.1), QUICK, epsilons=[0, 1])
    assert curve.distances == [math.inf] * 4 + [0.0] * 2
    assert [rate.right for rate in curve.rates] == [4, 4] and curve.median == math.inf
    written = json.loads(json.dumps(curve.plain(), allow_nan=False))
    assert written["distances"] == [None] * 4 + [0.0] * 2 and written["median"] is None
    assert written["rates"][0]["value"] == pytest.approx(4 / 6) and written["n"] == 6


def test_it_falls_from_clean_accuracy_and_agrees_with_pgd(trained, digits: Data):
    threat = Linf(eps=0.1)
    curve = security_curve(trained, digits, threat, QUICK)
    values = [rate.value for rate in curve.rates]
    assert values == sorted(values, reverse=True) and curve.epsilons[0] == 0 and threat.eps in curve.epsilons
    found = evaluate(trained, digits, Evaluate(attacks=(PGD(steps=20, restarts=2),), checks=False), threat)
    assert curve.at(0) == found.clean
    assert abs(curve.at(threat.eps).value - found.worst_case.value) <= 0.05
    assert curve.at(threat.eps) == curve.rates[curve.epsilons.index(threat.eps)]


def test_the_same_seed_gives_the_same_curve_whatever_the_batch_size(trained, digits: Data):
    some = Data("d", digits.classes, digits.train, digits.validation, digits.test[:20])
    one, other = (security_curve(trained, some, L2(eps=0.5), FMN(steps=15), batch_size=size) for size in (20, 7))
    assert one.distances == pytest.approx(other.distances, abs=1e-3)
    assert one == security_curve(trained, some, L2(eps=0.5), FMN(steps=15), batch_size=20)


def test_a_network_that_draws_noise_has_one_curve_per_seed(trained, digits: Data):
    some, noisy = (
        Data(digits.name, digits.classes, digits.train, digits.train, digits.test[:20]),
        nn.Sequential(Noise(0.3), trained),
    )
    one, again, other = (security_curve(noisy, some, L2(eps=0.5), FMN(steps=5), seed=seed) for seed in (0, 0, 1))
    assert one == again and one.distances != other.distances


def test_carlini_wagner_can_draw_it():
    model, x, y, gap = line(6, far=4.0)
    attack = CarliniWagner(steps=100, searches=6, initial_constant=0.01)
    curve = security_curve(model, data_of(x, y), L2(eps=0.1), attack)
    assert curve.distances == pytest.approx((gap / dual(model, L2())).tolist(), rel=0.03)


@settings
class Claims(Attack):
    """Claims that the point at `share` of the way to the plane of `line` is misclassified, whether it is or not."""

    name: ClassVar[str] = "claims"
    family: ClassVar[Family] = "minimum-norm gradient"
    share: float = 1.0

    @property
    def cost(self) -> float:
        return 3

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        return x

    def nearest(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
        with crafting(model) as victim:
            _, gap, grad = victim.differentiate(x, y, margin)
        return x - self.share * per_image(gap, x) * grad / per_image(grad.flatten(1).square().sum(1), x)


def test_only_what_is_really_misclassified_counts_and_at_the_distance_where_it_is():
    model, x, y, gap = line(6)
    data, true = data_of(x, y), gap / dual(model, L2())
    for share, expected in ((0.5, math.inf), (0.98, math.inf), (0.9995, 0.9995 * 1.001), (0.995, 0.995 * 1.01), (1.2, 1.2)):
        found = torch.tensor(security_curve(model, data, L2(), Claims(share=share)).distances) / true
        torch.testing.assert_close(found, torch.full((6,), expected), rtol=1e-4, atol=0)


def test_an_attack_that_leaves_the_pixels_is_a_mistake():
    model, x, y, _ = line(6)
    with pytest.raises(AdamasError, match=r"attack claims.*expected images in \[0, 1\]"):
        security_curve(model, data_of(x, y), L2(), Claims(share=1e3))


def test_an_attack_without_nearest_is_refused():
    model, x, y, _ = line(6)
    message = r"curve: expected an attack that looks for the nearest image, got pgd\(steps=3\); valid: .*carlini_wagner.*fmn"
    with pytest.raises(AdamasError, match=message):
        security_curve(model, data_of(x, y), L2(), PGD(steps=3))


@pytest.mark.parametrize("epsilons", [[], [-0.1], [0.1, math.nan], [math.inf]])
def test_epsilons_that_are_no_distances_are_refused(epsilons):
    model, x, y, _ = line(6)
    with pytest.raises(AdamasError, match="epsilons: expected distances in pixels, finite and at least 0, got"):
        security_curve(model, data_of(x, y), L2(), QUICK, epsilons=epsilons)


def test_probabilities_are_flagged():
    model, x, y, gap = line(6)
    curve = security_curve(nn.Sequential(model, nn.Softmax(1)), data_of(x, y), L2(), QUICK)
    assert ["probabilities" in flag for flag in curve.flags] == [True]
    assert curve.distances == pytest.approx((gap / dual(model, L2())).tolist(), rel=0.03)


def test_the_model_and_the_random_stream_are_left_as_found(trained, digits: Data):
    some = Data("d", digits.classes, digits.train, digits.validation, digits.test[:4])
    trained.train()
    trained[1].eval()
    modes, before = [m.training for m in trained.modules()], {k: v.clone() for k, v in trained.state_dict().items()}
    torch.manual_seed(3)
    security_curve(trained, some, Linf(), FMN(steps=2))
    assert [m.training for m in trained.modules()] == modes and all(p.requires_grad for p in trained.parameters())
    assert all(torch.equal(v, before[k]) for k, v in trained.state_dict().items())
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1))


def test_only_test_images_are_looked_at(trained, digits: Data):
    sealed = Data("d", digits.classes, Sealed(), Sealed(), digits.test[:4])  # type: ignore[arg-type]
    assert security_curve(trained, sealed, Linf(), FMN(steps=2)).n == 4
