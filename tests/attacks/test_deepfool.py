from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adamas.attacks.crafting import Terms, crafting
from adamas.attacks.deepfool import DeepFool
from adamas.errors import AdamasError
from adamas.threat import L1, L2, Linf
from tests.attacks.reference import MIDDLE, TWO_PIXELS, ZERO
from tests.helpers import Linear, SmallNet, first_batch

FAR = Linear([[1.0, -2.0], [-1.0, 2.0]], bias=[0.9, -0.9])  # label 0 at (.5, .5): the gap is -.8, its gradient (-2, 4)


@pytest.mark.parametrize(
    ("threat", "change"),
    [(Linf(), (-0.8 / 6, 0.8 / 6)), (L2(), (-1.6 / 20, 3.2 / 20)), (L1(), (0.0, 0.2))],
    ids=["linf", "l2", "l1"],
)
def test_one_step_by_hand(threat, change):
    found = DeepFool().nearest(FAR, MIDDLE, ZERO, threat)
    torch.testing.assert_close(found.flatten(), 0.5 + 1.02 * torch.tensor(change))


def test_the_nearest_of_all_boundaries_is_taken():
    """From (.5, .5) as class 0, class 1 is at .4 / 1 along the first pixel and class 2 at .4 / 4 along the second."""
    model = Linear([[0.0, 0.0], [1.0, 0.0], [0.0, 4.0]], bias=[0.0, -0.9, -2.4])
    found = DeepFool().nearest(model, MIDDLE, ZERO, L2())
    torch.testing.assert_close(found.flatten(), torch.tensor([0.5, 0.602]))
    missed = DeepFool(classes=2).nearest(model, MIDDLE, ZERO, L2())  # both are equally likely, the first counts
    torch.testing.assert_close(missed.flatten(), torch.tensor([0.908, 0.5]))


def test_overshoots_do_not_add_up():
    """Gap x^2 - .49 at x = .5: Newton's steps .24, then from x + 1.02 * .24 no more, for it is past the root .7."""
    found = DeepFool(steps=1).nearest(Square(), torch.full((1, 1, 1, 1), 0.5), ZERO, L2())
    torch.testing.assert_close(found.flatten(), torch.tensor([0.5 + 1.02 * 0.24]))


class Square(Linear):
    """Class 1 wherever a pixel's square is above .49."""

    def __init__(self) -> None:
        super().__init__([[1.0]])

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([torch.zeros(len(x), 1), x.flatten(1) ** 2 - 0.49], 1)


def test_the_box_is_kept_and_what_it_takes_is_made_up_elsewhere():
    model, x = Linear([[1.0, -2.0], [-1.0, 2.0]], bias=[0.3, -0.3]), torch.tensor([[0.02, 0.05]]).view(1, 1, 1, 2)
    found = DeepFool().nearest(model, x, ZERO, Linf())  # .44 missing, .04 from the first pixel, .4 from the second
    torch.testing.assert_close(found.flatten(), torch.tensor([0.0, 0.152]))


def test_what_is_found_is_near_on_a_trained_network(trained, digits):
    x, y = first_batch(digits, 48)
    found = DeepFool().nearest(trained, x, y, L2())
    assert (trained(found).argmax(1) != y).float().mean() > 0.9
    assert L2().distance(found, x).median() < 1.5


def test_as_an_attack_only_what_is_within_eps_counts(trained, digits):
    x, y = first_batch(digits, 48)
    right, threat = trained(x).argmax(1) == y, Linf(eps=0.1)
    near = DeepFool().nearest(trained, x, y, threat)
    within = (trained(near).argmax(1) != y) & (threat.distance(near, x) <= threat.eps)
    assert (within & right).sum() > 3 and (~within).sum() > 3
    x_adv = DeepFool()(trained, x, y, threat)
    assert torch.equal(x_adv[within], near[within])
    assert threat.distance(x_adv, x).max() <= threat.eps * (1 + 1e-5)


def test_where_nothing_is_found_the_image_is_returned_and_stands():
    out_of_reach = Linear([[1.0, -2.0], [-1.0, 2.0]], bias=[9.0, -9.0])
    assert torch.equal(DeepFool(steps=3).nearest(out_of_reach, MIDDLE, ZERO, L2()), MIDDLE)
    assert torch.equal(DeepFool(steps=3)(out_of_reach, MIDDLE, ZERO, L2(eps=0.0)), MIDDLE)
    assert torch.equal(DeepFool().nearest(TWO_PIXELS, MIDDLE, ZERO, L2()), MIDDLE)  # wrong already


@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes_and_the_cost_of_an_image_that_is_never_broken(classes):
    model, x, passes = SmallNet(classes=classes).eval(), torch.rand(4, 1, 8, 8), []
    with torch.no_grad():
        model.get_parameter("11.bias").copy_(torch.tensor([100.0, 0.0, 0.0])[:classes])
    with crafting(model, terms=Terms(tick=passes.append)) as victim:
        DeepFool(steps=5)(victim, x, torch.zeros(4, dtype=torch.long), L2())
    assert sum(passes) == 4 * DeepFool(steps=5, classes=classes).cost


def test_results_do_not_depend_on_what_else_is_in_the_batch(trained, digits):
    x, y = first_batch(digits, 10)
    together = DeepFool().nearest(trained, x, y, L2())
    alone = torch.cat([DeepFool().nearest(trained, *row, L2()) for row in zip(x.split(1), y.split(1), strict=True)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"classes": 1}, "classes: input should be greater than or equal to 2, got 1"),
        ({"overshoot": -1}, "overshoot: input should be greater than or equal to 0, got -1"),
    ],
)
def test_wrong_settings_are_refused(values, sentence):
    with pytest.raises(AdamasError, match=sentence):
        DeepFool(**values)
