"""The Square attack as evaluation uses it: its schedule, its budget, its images and whom it can attack."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from adamas.attacks.crafting import Terms, crafting
from adamas.attacks.losses import margin
from adamas.attacks.square import Square
from adamas.deploy.export import export_onnx
from adamas.deploy.runtime import OnnxModel
from adamas.errors import AdamasError
from adamas.panel import check_inside
from adamas.threat import L1, L2, Linf
from tests.helpers import Linear, SmallNet, first_batch

THREATS = [Linf(eps=0.1), L2(eps=1.0)]


class BlackBox(nn.Module):
    """Logits from numpy; refuses images that ask for a gradient, remembers what it is shown."""

    def __init__(self, weight: Tensor):
        super().__init__()
        self.numbers, self.shown = weight.numpy(), []

    def forward(self, x: Tensor) -> Tensor:
        assert not x.requires_grad and not torch.is_grad_enabled()
        self.shown.append(x.clone())
        return torch.from_numpy(x.flatten(1).numpy() @ self.numbers.T)

    def margin(self, x: Tensor, y: Tensor) -> Tensor:
        """Of images that are not to be remembered."""
        return margin(torch.from_numpy(x.flatten(1).numpy() @ self.numbers.T), y)


def unbreakable(shape: tuple[int, ...], n: int = 3) -> tuple[BlackBox, Tensor, Tensor]:
    """A model that is right by far, whose margin depends on every pixel; images; labels."""
    weight = torch.stack([torch.full((math.prod(shape),), 9.0), torch.randn(math.prod(shape))])
    return BlackBox(weight), torch.rand(n, *shape) * 0.6 + 0.2, torch.zeros(n, dtype=torch.long)


def test_the_share_of_the_square_is_halved_after_the_published_queries_of_ten_thousand():
    full = Square(queries=10_000)
    assert [full._share(q) for q in (1, 10, 11, 50, 51, 200, 201)] == [0.8, 0.8, 0.4, 0.4, 0.2, 0.2, 0.1]
    assert [full._share(q) for q in (500, 501, 1000, 1001, 2000, 2001)] == [0.1, 0.05, 0.05, 0.025, 0.025, 0.0125]
    assert [0.8 / full._share(q) for q in (4000, 4001, 6000, 6001, 8000, 8001, 9999)] == [64, 128, 128, 256, 256, 512, 512]


def test_the_schedule_is_stretched_to_the_budget():
    assert [Square(queries=5000)._share(q) for q in (5, 6, 25, 26, 4000, 4001)] == [0.8, 0.4, 0.4, 0.2, 0.8 / 256, 0.8 / 512]
    assert Square(queries=100, p_init=0.5)._share(99) == 0.5 / 512


@pytest.mark.parametrize("threat", THREATS, ids=str)
@pytest.mark.parametrize("restarts", [1, 3])
def test_every_query_is_one_pass_and_the_clean_image_one_more(threat, restarts):
    model, x, y = unbreakable((1, 6, 6))
    attack, passes = Square(queries=7, restarts=restarts), []
    with crafting(model, terms=Terms(tick=passes.append)) as victim:
        attack(victim, x, y, threat)
    assert [len(shown) for shown in model.shown] == [3] * (1 + 7 * restarts)
    assert sum(passes) == 3 * attack.cost == 3 * (1 + 7 * restarts)


def test_linf_begins_with_stripes_of_a_colour_per_channel():
    model, x, y = unbreakable((3, 8, 11))
    Square(queries=1)(model, x, y, Linf(eps=0.1))
    clean, stripes = model.shown
    moves = ((stripes - x) / 0.1).round()
    assert torch.equal(clean, x)
    assert torch.equal(moves.abs(), torch.ones_like(x)) and torch.equal(moves, moves[:, :, :1].expand_as(x))
    assert len({tuple(colours.tolist()) for colours in moves[:, :, 0].flatten(0, 1)}) == 9


def test_linf_goes_on_from_the_best_by_one_square_of_one_colour_per_channel():
    model, x, y = unbreakable((3, 8, 11))
    attack = Square(queries=12, p_init=0.3)
    attack(model, x, y, Linf(eps=0.1))
    best, moved = model.shown[1], 0
    for query, x_adv in enumerate(model.shown[2:], 1):
        side = max(1, round(math.sqrt(attack._share(query) * 88)))
        for one, before in zip(x_adv, best, strict=True):
            steps = one - before
            if (places := steps.abs().amax(0) > 1e-6).any():
                at, moved = places.nonzero(), moved + 1
                assert (at.amax(0) - at.amin(0) < side).all()
            for channel in steps:
                assert len(channel[channel.abs() > 1e-6].sign().unique()) <= 1
            assert ((steps.abs() < 1e-6) | ((steps.abs() - 0.2).abs() < 1e-6)).all()
        better = model.margin(x_adv, y) > model.margin(best, y)
        best = x_adv.where(better[:, None, None, None], best)
    assert moved > 20


def test_the_worst_corner_of_a_linear_model_is_found_in_linf_and_nearly_in_l2():
    weight = torch.randn(2, 16)
    model, x, y = Linear(weight), torch.full((4, 1, 4, 4), 0.5), torch.tensor([0, 0, 1, 1])
    slope = weight[1] - weight[0]
    for threat, longest, reached in ((Linf(eps=0.01), slope.abs().sum(), 0.9999), (L2(eps=0.04), slope.norm(), 0.85)):
        with crafting(model, terms=Terms(search=True)) as victim:
            start, end = (margin(victim.logits(at), y) for at in (x, Square(queries=400)(victim, x, y, threat)))
        rise = (end - start) / (threat.eps * longest)
        standing = start <= 0
        assert (rise[standing] > reached).all() and (rise < 1.0001).all() and standing.any()


@pytest.mark.parametrize("threat", THREATS, ids=str)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 1), (1, 8, 8), (2, 2, 7), (3, 9, 4), (1, 1, 6), (3, 32, 20)])
@pytest.mark.parametrize("p_init", [0.8, 1.0])
def test_every_image_shown_is_inside_the_threat_whatever_its_shape(threat, shape, p_init):
    model, x, y = unbreakable(shape)
    x[:, :, :1] = x[:, :, :1].round()  # pixels that can move one way only
    x_adv = Square(queries=30, p_init=p_init)(model, x, y, threat)
    for shown in [*model.shown, x_adv]:
        check_inside(Square(), shown, x, threat)
    assert max(float(threat.distance(shown, x).max()) for shown in model.shown) > threat.eps / 2


def test_l2_spends_all_of_eps():
    model, x, y = unbreakable((3, 12, 12))
    Square(queries=40)(model, x, y, L2(eps=0.5))
    assert all((L2().distance(shown, x) - 0.5).abs().amax() < 1e-4 for shown in model.shown[1:])


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_an_images_result_depends_neither_on_the_batch_nor_on_its_order(threat, trained, digits):
    x, y = first_batch(digits, 24)

    def crafted(rows: Tensor) -> Tensor:
        torch.manual_seed(3)
        with crafting(trained, terms=Terms(search=True)) as victim:
            return Square(queries=25, restarts=2)(victim, x[rows], y[rows], threat)

    whole, order = crafted(torch.arange(24)), torch.randperm(24)
    torch.testing.assert_close(crafted(order), whole[order])
    torch.testing.assert_close(torch.cat([crafted(torch.tensor([row])) for row in range(6)]), whole[:6])


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_seeds_reproduce_and_images_have_squares_of_their_own(threat):
    model, x, y = unbreakable((1, 8, 8))
    x[1] = x[0]
    first, again, other = (torch.manual_seed(seed) and Square(queries=9)(model, x, y, threat) for seed in (5, 5, 6))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(first[0], first[1])
    assert not torch.equal((first - x)[0].sign(), (first - x)[2].sign())


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_leaving_at_the_first_success_loses_nothing(threat, trained, digits):
    x, y = first_batch(digits, 48)
    found, passes = [], []
    for active in (True, False):
        ticks: list[int] = []
        torch.manual_seed(2)
        with crafting(trained, terms=Terms(search=True, active=active, tick=ticks.append)) as victim:
            found.append(Square(queries=40)(victim, x, y, replace(threat, eps=threat.eps * 1.5)))
        passes.append(sum(ticks))
    stands = [trained(x_adv).argmax(1) == y for x_adv in found]
    assert torch.equal(*stands) and 0 < stands[0].sum() < 40
    torch.testing.assert_close(found[0][stands[0]], found[1][stands[0]])
    assert passes[0] < passes[1] == 48 * 41


@pytest.mark.parametrize("loss", ["margin", "cross_entropy"])
def test_what_stands_comes_back_at_its_highest_loss_over_all_restarts(loss):
    model, x, y = unbreakable((1, 5, 5))
    model.numbers /= 40  # so that no cross-entropy is rounded to 0
    x_adv = Square(queries=6, restarts=4, loss=loss)(model, x, y, Linf(eps=0.1))
    losses = torch.stack([model.margin(shown, y) for shown in model.shown])
    torch.testing.assert_close(model.margin(x_adv, y), losses.amax(0))
    assert (losses.argmax(0) <= 18).any()  # not simply the last restart


def test_a_budget_of_one_query_keeps_the_clean_image_where_the_stripes_do_not_help():
    model, x, y = Linear([[0.0], [1.0]], bias=[9.0, 0.0]), torch.full((40, 1, 1, 1), 0.5), torch.zeros(40, dtype=torch.long)
    x += torch.arange(40).view(-1, 1, 1, 1) / 100
    changes = (Square(queries=1)(model, x, y, Linf(eps=0.1)) - x).flatten()
    assert {round(float(change), 4) for change in changes if change} == {0.1} and 5 < (changes == 0).sum() < 35


def test_images_already_misclassified_come_back_as_they_are():
    model, x, y = unbreakable((1, 4, 4))
    assert torch.equal(Square(queries=5)(model, x, 1 - y, Linf(eps=0.1)), x) and len(model.shown) == 1


def test_an_exported_file_can_be_attacked(trained, digits, tmp_path):
    x, y = first_batch(digits, 16)
    file = OnnxModel(export_onnx(trained, tmp_path / "model.onnx", (1, 8, 8)))
    attack, threat = Square(queries=30), Linf(eps=0.15)
    torch.manual_seed(4)
    x_adv = attack(file, x, y, threat)
    check_inside(attack, x_adv, x, threat)
    assert (file(x_adv).argmax(1) == y).sum() < (file(x).argmax(1) == y).sum()


def test_l1_is_refused():
    with pytest.raises(AdamasError) as error:
        Square()(SmallNet(), torch.rand(1, 1, 8, 8), torch.tensor([0]), L1(eps=2.0))
    assert str(error.value) == "attack square: expected the threat linf or l2, got l1(eps=2.0); use a gradient attack for it"


@pytest.mark.parametrize("values", [{"queries": 0}, {"p_init": 0.0}, {"p_init": 1.5}, {"restarts": 0}, {"loss": "dlr"}])
def test_settings_out_of_range_are_refused(values):
    with pytest.raises(AdamasError, match=f"Square.{next(iter(values))}: "):
        Square(**values)
