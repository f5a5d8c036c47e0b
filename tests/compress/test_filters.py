from __future__ import annotations

import copy
import itertools
import logging

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from adamas.attacks.pgd import PGD
from adamas.channels import channel_groups
from adamas.compress.filters import Filters, channel_scores
from adamas.compress.gates import group_masks
from adamas.compress.masks import highest
from adamas.cost import macs
from adamas.errors import AdamasError
from adamas.fit import Fit, fit
from adamas.models.cnn8 import CNN8
from adamas.rates.globally import Global
from adamas.rates.lamp import LAMP
from adamas.rates.learned import Learned as LearnedRates
from adamas.rates.uniform import Uniform
from adamas.scores.gap import GAP
from adamas.scores.gradient import Taylor
from adamas.scores.learned import Learned as LearnedScores
from adamas.scores.magnitude import Magnitude
from adamas.surgery import resize_to
from adamas.threat import Linf

THREAT = Linf()
X = torch.rand(2, 1, 28, 28)
BATCHES = [(X, torch.zeros(2, dtype=torch.long))]


def widths(model: nn.Module) -> list[int]:
    return [layer.out_channels for layer in model.modules() if isinstance(layer, nn.Conv2d)]


@pytest.mark.parametrize(
    ("keep", "round_to", "expected", "params"),
    [
        (0.5, 1, [16, 16, 32, 32, 64, 64], 204_282),
        (0.2, 1, [7, 7, 13, 13, 26, 26], 66_728),
        (0.2, 8, [8, 8, 16, 16, 32, 32], 84_994),
    ],
)
def test_cnn8_gets_the_widths_and_parameters_of_the_paper(keep, round_to, expected, params):
    model = CNN8().build((1, 28, 28), 10)
    Filters(keep=keep, round_to=round_to).calibrate(model, BATCHES, THREAT)
    assert widths(model) == expected
    assert sum(parameter.numel() for parameter in model.parameters()) == params
    assert model[13].in_features == expected[-1] * 16 and model[13].out_features == 128  # linear layers keep their outputs


def test_the_filters_of_largest_norm_stay():
    model = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 784, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, -4, 2, 3]).view(4, 1, 1, 1))
    expected = model[3].weight.view(2, 4, 784)[:, [1, 3]].flatten(1)
    Filters(round_to=1).calibrate(model, BATCHES, THREAT)
    assert model[0].weight.flatten().tolist() == [-4, 3] and torch.equal(model[3].weight, expected)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(2, 2, 1, bias=False), nn.Linear(2, 2)
        with torch.no_grad():
            self.a.weight.copy_(torch.tensor([[1.0], [2]]).view(2, 1, 1, 1))
            self.b.weight.copy_(torch.tensor([[3.0, -3], [1, 2]]).view(2, 2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.fc((x + self.b(x)).mean((2, 3)))


def test_scores_add_up_over_coupled_layers_and_leave_frozen_ones_out():
    model = Residual()
    (group,) = channel_groups(model, X)
    scores = {"a": model.a.weight.abs(), "b": model.b.weight.abs()}
    assert channel_scores(model, group, scores).tolist() == [7, 5]
    model.b.requires_grad_(False)
    assert channel_scores(model, group, scores).tolist() == [1, 2]
    model.a.requires_grad_(False)
    assert channel_scores(model, group, scores).tolist() == [7, 5]  # with nothing trained, everything counts


def test_excluded_layers_and_what_is_coupled_with_them_keep_their_channels():
    model = CNN8(width=8).build((1, 28, 28), 10)
    Filters(exclude=("0", "1*"), round_to=1).calibrate(model, BATCHES, THREAT)
    assert widths(model) == [8, 4, 8, 8, 16, 32]
    with pytest.raises(AdamasError, match="expected channels that can be removed, got none: no group of channels"):
        Filters(exclude=("b",)).calibrate(Residual(), BATCHES, THREAT)
    with pytest.raises(AdamasError, match="exclude: expected the name of a convolution or linear layer, got 'c'"):
        Filters(exclude=("c",)).calibrate(Residual(), BATCHES, THREAT)


def test_the_plan_can_be_had_beforehand_and_is_logged(caplog):
    model = CNN8(width=8).build((1, 28, 28), 10)
    method = Filters(round_to=4)
    assert method.plan(model, BATCHES, THREAT).widths["0"] == (8, 4) and model[0].out_channels == 8
    with caplog.at_level(logging.INFO, logger="adamas"):
        method.calibrate(model, BATCHES, THREAT)
    (record,) = caplog.records
    assert record.name == "adamas" and "params" in record.message and "=>" in record.message


def test_the_shapes_alone_bring_the_network_back():
    model = CNN8(width=8).build((1, 28, 28), 10)
    method = Filters(keep=0.3, round_to=2)
    method.attach(model)
    method.calibrate(model, BATCHES, THREAT)
    fresh = CNN8(width=8).build((1, 28, 28), 10)
    method.attach(fresh)
    resize_to(fresh, model.state_dict())
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(X), model(X))


# ---------------------------------------------------------------------------------------------- other scores and rates


def test_any_score_and_any_rate_serve_and_none_costs_more_than_uniform_rates():
    costs = {}
    for scores, rates in itertools.product(
        (Magnitude(), Taylor(images=2), GAP(attack=PGD(steps=1), images=2)), (Uniform(), Global(), LAMP())
    ):
        torch.manual_seed(0)
        model = CNN8(width=8).build((1, 28, 28), 10)
        method = Filters(keep=0.5, round_to=1, scores=scores, rates=rates)
        method.calibrate(model, BATCHES, THREAT)
        costs[type(scores).name, type(rates).name] = macs(model, (1, 28, 28))
        assert (widths(model) == [4, 4, 8, 8, 16, 16]) == isinstance(rates, Uniform)
    budget = costs["magnitude", "uniform"]
    assert all(0.9 * budget <= cost <= budget for cost in costs.values())


def learned(model: nn.Module, data, epochs: int = 2, **settings) -> Filters:
    method = Filters(keep=0.5, round_to=1, scores=LearnedScores(), **settings)
    method.calibrate(model, data.train.batches(64), THREAT)
    fit(model, data, Fit(epochs=epochs, batch_size=64, lr=0.1, schedule="cosine"), THREAT, compressor=method)
    return method


def test_scores_of_channels_are_learned_while_weights_stand_still(trained, digits):
    before = {name: p.detach().clone() for name, p in trained.named_parameters()}
    start = Filters(keep=0.5, round_to=1).plan(trained, digits.train.batches(64), THREAT)
    method = learned(trained, digits)
    masks = group_masks(trained)
    assert [mask.group.width for mask in masks] == [before for before, _ in start.widths.values()]
    assert any(p.requires_grad for p in trained.parameters()) and not any(p.requires_grad for p in masks[0].still)
    x = digits.test.pixels[:50].float() / 255
    with torch.no_grad():
        hidden = trained.eval()(x)
    chosen = [tuple(highest(mask.ranked.ranking, mask.ranked.count).nonzero().flatten().tolist()) for mask in masks]
    assert chosen != list(start.kept)
    method.finish(trained)
    assert not any(parametrize.is_parametrized(module) for module in trained.modules())
    assert all(p.requires_grad for p in trained.parameters()) and not group_masks(trained)
    with torch.no_grad():
        assert torch.allclose(trained(x), hidden, rtol=1e-4, atol=1e-4)
    first = next(layer for layer in trained.modules() if isinstance(layer, nn.Conv2d))
    name = next(name for name, module in trained.named_modules() if module is first)
    assert torch.equal(first.weight, before[f"{name}.weight"][list(chosen[0])])  # slices of the weights that stood still


def test_learned_rates_meet_the_cost_of_uniform_ones(trained, digits):
    uniform = copy.deepcopy(trained)
    Filters(keep=0.5, round_to=1).calibrate(uniform, digits.train.batches(64), THREAT)
    budget, whole = macs(uniform, digits.image_shape), macs(trained, digits.image_shape)
    rates = LearnedRates(start_keep=1.0, gamma=2.0)
    method = Filters(keep=0.5, round_to=1, scores=LearnedScores(), rates=rates)
    method.calibrate(trained, digits.train.batches(64), THREAT)
    fit(trained, digits, Fit(epochs=4, batch_size=64, lr=0.1, schedule="cosine"), THREAT, compressor=method)
    shares = [mask.ranked.rate().item() for mask in group_masks(trained)]
    method.finish(trained)
    assert (
        len({round(share, 3) for share in shares}) > 1 and 0.8 * budget <= macs(trained, digits.image_shape) <= budget < whole
    )


def test_learned_rates_that_miss_their_budget_say_so(trained, digits):
    with pytest.raises(AdamasError, match="keep: expected learned rates to meet the budget of 0.5, got .* times its"):
        learned(trained, digits, 1, rates=LearnedRates(start_keep=1.0, gamma=0.0)).finish(trained)


def test_a_network_whose_channels_cannot_go_is_refused_before_any_training():
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(4 * 784, 2))
    with pytest.raises(AdamasError, match="got none: 0: '1' is a GroupNorm, which cannot lose channels"):
        Filters(scores=LearnedScores()).calibrate(model, BATCHES, THREAT)


def test_without_a_batch_there_is_a_sentence():
    with pytest.raises(AdamasError, match="filters: expected a batch of images to try the smaller network on, got none"):
        Filters().calibrate(CNN8(width=8).build((1, 28, 28), 10), [], THREAT)
