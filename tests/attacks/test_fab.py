from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from adamas.attacks.crafting import Terms, crafting
from adamas.attacks.fab import FAB
from adamas.errors import AdamasError
from adamas.threat import L1, L2, Linf
from tests.attacks.reference import MIDDLE, TWO_PIXELS, ZERO
from tests.helpers import Linear, SmallNet, first_batch

OUT_OF_REACH = torch.tensor([100.0, 0.0, 0.0])
THREATS = [Linf(eps=0.1), L2(eps=0.5), L1(eps=1.0)]


def right_ones(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    right = model(x).argmax(1) == y
    return x[right], y[right]


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_on_a_linear_model_it_finds_the_nearest_image_of_all_classes(threat):
    model, x = Linear(torch.randn(5, 12)), torch.rand(20, 1, 3, 4)
    y = model(x).argmax(1)
    planes = model.weight[None] - model.weight[y][:, None]  # (N, 5, 12), one boundary per class
    least = torch.full((20,), torch.inf)
    for target in range(5):
        w = planes[:, target].detach().view_as(x)
        on_it = threat.to_plane(x, w, (model.bias[target] - model.bias[y]).detach())
        met = ((w * on_it).flatten(1).sum(1).abs() < 1e-5) & (y != target)
        least = torch.where(met, torch.minimum(least, threat.distance(on_it, x)), least)
    found = FAB(steps=30).nearest(model, x, y, threat)
    reachable = least < torch.inf
    assert reachable.sum() > 10 and torch.equal(model(found).argmax(1) != y, reachable)
    ratio = threat.distance(found, x)[reachable] / least[reachable]
    assert ratio.min() >= 1 - 1e-4 and ratio.max() < 1.02
    assert torch.equal(found[~reachable], x[~reachable])


def test_by_hand_where_the_box_is_in_the_way():
    """For label 0 the gap is 4 * second - 2 * first - .6 = -.44; the first pixel can give .04 only, the second .4 for .1."""
    model, x = Linear([[1.0, -2.0], [-1.0, 2.0]], bias=[0.3, -0.3]), torch.tensor([[0.02, 0.05]]).view(1, 1, 1, 2)
    found = FAB(steps=30).nearest(model, x, ZERO, Linf())
    assert model(found).argmax(1) == 1 and found.flatten()[0] == 0
    assert Linf().distance(found, x).item() == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize(
    ("steps", "change"),
    [
        (1, 0.14),  # 1.05 * .8 / 6
        (
            2,
            0.134030,
        ),  # back to .126, plane at .8 / 6: 1.05 of the way there, and alpha = .0073333 / .1406667 of the first step
    ],
)
def test_steps_by_hand(steps, change):
    """For label 0 the gap at (.5, .5) is 2 * (1 - .5) - 1.8 = -.8, and the weights' absolute sum 6."""
    model = Linear([[1.0, -2.0], [-1.0, 2.0]], bias=[0.9, -0.9])
    found = FAB(steps=steps).nearest(model, MIDDLE, ZERO, Linf())
    torch.testing.assert_close(found.flatten(), torch.tensor([0.5 - change, 0.5 + change]), atol=2e-6, rtol=0)


def test_as_an_attack_only_what_is_within_eps_counts(trained, digits):
    x, y = right_ones(trained, *first_batch(digits, 40))
    attack, threat = FAB(steps=8, targets=3), Linf(eps=0.1)
    near = attack.nearest(trained, x, y, threat)
    within = (trained(near).argmax(1) != y) & (threat.distance(near, x) <= threat.eps)
    assert 5 < within.sum() < len(x) - 5
    x_adv = attack(trained, x, y, threat)
    assert (trained(x_adv).argmax(1) != y)[within].all()
    assert threat.distance(x_adv, x).max() <= threat.eps * (1 + 1e-5)


def test_where_nothing_is_found_the_image_is_returned_and_stands():
    class Deaf(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 0 + torch.tensor([1.0, 0.0])

    deaf = Deaf([[1.0, -2.0], [-1.0, 2.0]])
    assert torch.equal(FAB(steps=3).nearest(deaf, MIDDLE, ZERO, Linf()), MIDDLE)
    assert torch.equal(FAB(steps=3)(deaf, MIDDLE, ZERO, Linf()), MIDDLE)


def test_an_image_that_is_wrong_already_is_its_own_nearest():
    assert torch.equal(FAB(steps=3).nearest(TWO_PIXELS, MIDDLE, ZERO, Linf()), MIDDLE)


def outcome(attack: FAB, model: nn.Module, x: Tensor, y: Tensor, **terms) -> tuple[list[bool], int]:
    """Which images break, and the passes made."""
    passes = []
    with crafting(model, terms=Terms(tick=passes.append, **terms)) as victim:
        x_adv = attack(victim, x, y, Linf(eps=0.1))
    return (model(x_adv).argmax(1) != y).tolist(), sum(passes)


def test_leaving_loses_nothing_and_saves_passes(trained, digits):
    x, y = right_ones(trained, *first_batch(digits, 40))
    attack = FAB(steps=8, targets=3)
    active, passes = outcome(attack, trained, x, y, search=True)
    official, all_passes = outcome(attack, trained, x, y, search=True, active=False)
    assert active == official and passes < 0.9 * all_passes
    assert all_passes == len(x) * attack.cost


@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes_have_as_many_targets_as_there_are(classes):
    model, x = SmallNet(classes=classes).eval(), torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        model.get_parameter("11.bias").copy_(OUT_OF_REACH[:classes])
    broken, passes = outcome(FAB(steps=5), model, x, torch.zeros(4, dtype=torch.long))
    assert not any(broken) and passes == 4 * FAB(steps=5, targets=classes - 1).cost


def test_results_do_not_depend_on_what_else_is_in_the_batch(trained, digits):
    x, y = right_ones(trained, *first_batch(digits, 12))
    attack = FAB(steps=5, targets=2, restarts=2)

    def nearest(x: Tensor, y: Tensor) -> Tensor:
        torch.manual_seed(3)
        return attack.nearest(trained, x, y, L2())

    together = L2().distance(nearest(x, y), x)
    alone = torch.cat([L2().distance(nearest(*row), row[0]) for row in zip(x.split(1), y.split(1), strict=True)])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-5)


class Recording(Linear):
    """Remembers every batch it sees."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        return super().forward(x)


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_a_restart_begins_half_of_eps_away(threat):
    model, x = Recording(torch.randn(2, 12)), torch.full((5, 1, 3, 4), 0.5)
    FAB(steps=4, restarts=3).nearest(model, x, model(x).argmax(1), threat)
    starts = [model.seen[2 + 5 * restart] for restart in range(3)]  # the clean pass twice, then steps + 1 passes each
    assert torch.equal(starts[0], x) and not torch.equal(starts[1], starts[2])
    for start in starts[1:]:
        torch.testing.assert_close(threat.distance(start, x), torch.full((5,), threat.eps / 2))


def test_it_ends_when_nothing_stands():
    model, x = Recording([[1.0, -2.0], [-1.0, 2.0]], [0.9, -0.9]), MIDDLE.expand(3, -1, -1, -1)
    FAB(steps=9, restarts=3)(model, x, ZERO.expand(3), L2(eps=0.5))
    assert len(model.seen) == 3  # the clean images, the first step's gradient, its result


def test_a_restart_forgets_nothing(trained, digits):
    x, y = right_ones(trained, *first_batch(digits, 16))
    once, often = (
        Linf().distance(FAB(steps=4, targets=1, restarts=n).nearest(trained, x, y, Linf(eps=0.3)), x) for n in (1, 3)
    )
    assert (once > 0).any() and (often > 0).sum() >= (once > 0).sum() and (often <= once + 1e-6)[once > 0].all()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"alpha_max": 0}, "alpha_max: input should be greater than 0, got 0"),
        ({"beta": 1}, "beta: input should be less than 1, got 1"),
        ({"eta": 0.9}, r"eta: input should be greater than or equal to 1, got 0\.9"),
        ({"target": 9}, "unknown key 'target'; did you mean 'targets'"),
    ],
)
def test_wrong_settings_are_refused(values, sentence):
    with pytest.raises(AdamasError, match=sentence):
        FAB(**values)
