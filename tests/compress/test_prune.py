from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from adamas.compress.masks import LearnedMask, Mask
from adamas.compress.prune import Prune
from adamas.errors import AdamasError
from adamas.fit import Fit, fit
from adamas.models.cnn8 import CNN8
from adamas.rates.globally import Global
from adamas.rates.learned import Learned as LearnedRates
from adamas.rates.uniform import Uniform
from adamas.scores.learned import Learned as LearnedScores
from adamas.scores.learned import scaled
from adamas.scores.random import Random
from adamas.threat import Linf
from adamas.weights import bake
from tests.helpers import SmallNet

THREAT = Linf()


def two() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -8], [7, 2]]))
        model[1].weight.copy_(torch.tensor([[0.1, -0.4], [0.3, 6]]))
    return model


def begun(model: nn.Module, **settings) -> nn.Module:
    method = Prune(**settings)
    method.attach(model)
    method.calibrate(model, [], THREAT)
    return model


def pruned(model: nn.Module, **settings) -> nn.Module:
    Prune(**settings).finish(begun(model, **settings))
    return model


def nonzeros(model: nn.Module) -> int:
    return sum(int(layer.weight.count_nonzero()) for layer in model.modules() if isinstance(layer, (nn.Conv2d, nn.Linear)))


def test_the_largest_weights_of_all_layers_together_stay():
    model = pruned(two(), keep=0.375, rates=Global())
    assert model[0].weight.tolist() == [[0, -8], [7, 0]] and model[1].weight.tolist() == [[0, 0], [0, 6]]


def test_each_layer_keeps_its_own_share():
    model = pruned(two(), keep=0.5, rates=Uniform())
    assert model[0].weight.tolist() == [[0, -8], [7, 0]]
    assert torch.equal(model[1].weight.bool(), torch.tensor([[False, True], [False, True]]))


def test_every_layer_keeps_one_weight_at_least():
    model = two()
    with torch.no_grad():
        model[1].weight.mul_(0.01)
    assert pruned(model, keep=0.25, rates=Global())[1].weight.count_nonzero() == 1 and nonzeros(model) == 2


def test_attaching_alone_changes_nothing():
    model, x = two(), torch.rand(3, 2)
    before = model(x)
    Prune().attach(model)
    assert torch.equal(model(x), before) and model[0].parametrizations.weight[0].mask.all()


def test_a_budget_below_one_weight_per_layer_is_refused():
    message = r"keep: expected at least one weight in each of 2 layers, got 1 of 8 at keep 0.1; the smallest keep is 0.25"
    with pytest.raises(AdamasError, match=message):
        pruned(two(), keep=0.1)


def test_cnn8_keeps_exactly_the_budget_and_ships_it():
    model = bake(pruned(CNN8(width=8).build((1, 28, 28), 10), keep=0.1))
    total = sum(layer.weight.numel() for layer in model.modules() if isinstance(layer, (nn.Conv2d, nn.Linear)))
    assert nonzeros(model) == round(0.1 * total) and not any(parametrize.is_parametrized(layer) for layer in model)


def test_masked_weights_stay_zero_through_momentum_and_decay():
    model = pruned(CNN8(width=4).build((1, 8, 8), 10), keep=0.2)
    masks = [layer.parametrizations.weight[0].mask.clone() for layer in model if parametrize.is_parametrized(layer)]
    start = [layer.weight.detach().clone() for layer in model if parametrize.is_parametrized(layer)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(torch.rand(8, 1, 8, 8)), torch.arange(8)).backward()
        optimizer.step()
    bake(model)
    layers = [layer for layer in model if isinstance(layer, (nn.Conv2d, nn.Linear))]
    for layer, mask, before in zip(layers, masks, start, strict=True):
        assert (layer.weight[~mask] == 0).all() and not torch.equal(layer.weight, before)


def test_excluded_layers_stay_dense_and_out_of_the_budget():
    model = pruned(two(), keep=0.25, exclude=("1",))
    assert not parametrize.is_parametrized(model[1]) and model[0].weight.count_nonzero() == 1
    with pytest.raises(AdamasError, match="exclude: expected the name of a convolution or linear layer, got '2'"):
        pruned(two(), exclude=("2",))
    with pytest.raises(AdamasError, match="prune: expected at least one convolution or linear layer to prune, got none"):
        pruned(two(), exclude=("*",))


class Negated(nn.Module):
    """The largest weights become the smallest."""

    def forward(self, weight: Tensor) -> Tensor:
        return 10 - weight.abs()

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight


def test_masks_stack_on_what_is_there_and_on_each_other():
    model = two()
    parametrize.register_parametrization(model[0], "weight", Negated())
    assert pruned(model, keep=0.5, rates=Uniform())[0].weight.tolist() == [[9, 0], [0, 8]]
    pruned(model, keep=0.25, rates=Uniform())
    assert model[0].weight.tolist() == [[9, 0], [0, 0]]
    first, second = (module for module in model[0].parametrizations.weight if isinstance(module, Mask))
    assert first.mask.sum() == 2 and second.mask.sum() == 1


def test_the_state_dict_holds_everything():
    model, fresh = pruned(two(), keep=0.5), two()
    Prune(keep=0.5).attach(fresh)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(torch.eye(2)), model(torch.eye(2)))


# ------------------------------------------------------------------------------------------------------ step by step


def test_the_share_kept_falls_along_a_cubic_and_what_is_gone_stays_gone():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 25, bias=False), nn.Linear(25, 40, bias=False))  # 1,000 weights each
    method, left = Prune(keep=0.1, rates=Uniform(), ramp=0.5), []
    method.attach(model)
    method.calibrate(model, [], THREAT)
    gone = torch.zeros(25, 40, dtype=torch.bool)
    for step in range(1, 65):
        with torch.no_grad():
            for layer in model:
                layer.parametrizations.weight.original += 0.01 * torch.randn_like(layer.weight)  # type: ignore[union-attr, operator]
        method.after_step(model, step / 64)
        left.append(int(model[0].weight.count_nonzero()))
        assert not (model[0].weight[gone] != 0).any()
        gone = model[0].weight == 0
    assert left[:32] == pytest.approx([1000 * (0.1 + 0.9 * (1 - step / 32) ** 3) for step in range(1, 33)], abs=1)
    assert set(left[32:]) == {100}
    before = model[0].weight.detach().clone()
    method.finish(model)
    assert torch.equal(model[0].weight, before) and type(model[0].parametrizations.weight[0]) is Mask  # type: ignore[union-attr, index]


def test_weights_are_ranked_as_they_are_when_they_go_not_as_they_were():
    model = two()
    method = Prune(keep=0.5, rates=Uniform(), ramp=1.0)
    method.attach(model)
    method.calibrate(model, [], THREAT)
    with torch.no_grad():
        model[0].parametrizations.weight.original.copy_(torch.tensor([[9.0, 1], [1, 9]]))
    method.after_step(model, 1.0)
    assert model[0].weight.tolist() == [[9, 0], [0, 9]]


def test_scores_other_than_magnitudes_and_a_ramp_of_nothing_prune_at_once(digits):
    for settings in ({"ramp": 0.0}, {"scores": Random()}):
        assert nonzeros(begun(two(), keep=0.5, rates=Uniform(), **settings)) == 4
    assert nonzeros(begun(two(), keep=0.5, rates=Uniform())) == 8


# ---------------------------------------------------------------------------------------------- what a stage learns

HYDRA = {"scores": LearnedScores(), "rates": Uniform()}


def test_learned_scores_start_as_magnitudes_and_hold_the_weights_still():
    model, plain = begun(two(), keep=0.5, **HYDRA), pruned(two(), keep=0.5, rates=Uniform())
    assert all(torch.equal(a.weight, b.weight) for a, b in zip(model, plain, strict=True))
    assert [name for name, p in model.named_parameters() if p.requires_grad] == [
        f"{i}.parametrizations.weight.0.ranked.scores" for i in (0, 1)
    ]


def test_scores_learn_the_mask_and_the_weights_train_again_afterwards(trained, digits):
    method = Prune(keep=0.2, **HYDRA)
    method.attach(trained)
    method.calibrate(trained, [], THREAT)
    before = {name: p.detach().clone() for name, p in trained.named_parameters() if name.endswith(("original", "bias"))}
    masks = [layer.weight != 0 for layer in trained if parametrize.is_parametrized(layer)]
    fit(trained, digits, Fit(epochs=2, batch_size=64, lr=0.1), THREAT, compressor=method)
    norms = {f"{name}.bias" for name, module in trained.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert all(torch.equal(p, before[n]) for n, p in trained.named_parameters() if n in before and n not in norms)
    method.finish(trained)
    layers = [layer for layer in trained if parametrize.is_parametrized(layer)]
    assert all(type(layer.parametrizations.weight[0]) is Mask for layer in layers)
    assert any(not torch.equal(layer.weight != 0, mask) for layer, mask in zip(layers, masks, strict=True))
    assert all(p.requires_grad for p in trained.parameters())
    total = sum(layer.weight.numel() for layer in layers)
    assert nonzeros(trained) == round(0.2 * total)


def test_weight_decay_spares_scores_and_rates_unless_faithful():
    for faithful in (False, True):
        model, method = SmallNet(), Prune(scores=LearnedScores(), rates=LearnedRates(), faithful=faithful)
        method.attach(model)
        method.calibrate(model, [], THREAT)
        spared = {id(p) for p in method.undecayed(model)}
        learned = [p for name, p in model.named_parameters() if name.endswith(("scores", "quota"))]
        assert len(learned) == 8 and all((id(p) in spared) != faithful for p in learned)


def harp(keep: float = 0.1, **values) -> Prune:
    return Prune(keep=keep, scores=LearnedScores(), rates=LearnedRates(**values))


@torch.no_grad()
def test_the_hardware_loss_grows_by_the_step_while_the_budget_is_exceeded():
    model, method = two(), harp(keep=0.25, start_keep=0.5, gamma=0.1)
    method.attach(model)
    method.calibrate(model, [], THREAT)
    assert float(method.penalty(model, 0)) == 0
    method.after_step(model, 0.1)
    method.after_step(model, 0.2)
    assert float(method.penalty(model, 0.2)) == pytest.approx(0.2 * (0.5 / 0.25 - 1))
    masks = [layer.parametrizations.weight[0] for layer in model]
    for mask in masks:
        mask.ranked.rate.quota.fill_(-100)
    assert float(method.penalty(model, 0.3)) == 0
    method.after_step(model, 0.3)
    assert all(float(mask.ranked.rate.pressure) == pytest.approx(0.2) for mask in masks)
    assert all(float(mask.ranked.rate()) == pytest.approx(0.025) for mask in masks)  # the floor


def test_rates_that_miss_the_budget_fail_with_a_sentence_and_those_that_meet_it_are_exact(trained, digits):
    method = harp(keep=0.1, start_keep=0.5, gamma=0.0)
    method.attach(trained)
    method.calibrate(trained, [], THREAT)
    message = r"keep: expected learned rates to meet the budget of 0.1, got 5 times its cost; give the stage more epochs"
    with pytest.raises(AdamasError, match=message):
        method.finish(trained)
    method = harp(keep=0.1, start_keep=0.3, gamma=0.05)
    method.calibrate(trained, [], THREAT)
    fit(trained, digits, Fit(epochs=4, batch_size=64, lr=0.1), THREAT, compressor=method)
    method.finish(trained)
    layers = [layer for layer in trained if parametrize.is_parametrized(layer)]
    assert nonzeros(trained) == round(0.1 * sum(layer.weight.numel() for layer in layers))
    shares = [float((layer.weight != 0).float().mean()) for layer in layers]
    assert max(shares) > 2 * min(shares)  # they did not stay uniform


def test_a_budget_of_multiply_accumulates_is_met(trained, digits):
    example = [next(digits.train.batches(2))]
    method = Prune(keep=0.3, budget="macs", rates=Uniform())
    method.attach(trained)
    method.calibrate(trained, example, THREAT)
    method.finish(trained)
    uses = [64, 16, 1, 1]  # SmallNet on 8x8: two convolutions on 8x8 and 4x4 maps, two linear layers
    layers = [layer for layer in trained if parametrize.is_parametrized(layer)]
    spent = sum(int(layer.weight.count_nonzero()) * use for layer, use in zip(layers, uses, strict=True))
    whole = sum(layer.weight.numel() * use for layer, use in zip(layers, uses, strict=True))
    assert 0 <= round(0.3 * whole) - spent < 1
    with pytest.raises(AdamasError, match="expected a batch of images to count multiply-accumulates on, got none"):
        method.calibrate(trained, [], THREAT)


def test_gradients_pass_straight_through_the_mask():
    """d loss / d score = sign(score) * w * d loss / d effective weight; d loss / d rate = the sum without the sign."""
    model = nn.Sequential(nn.Linear(4, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -2, 3, -4]]))
    method = harp(keep=0.5, start_keep=0.5)
    method.attach(model)
    method.calibrate(model, [], THREAT)
    mask = model[0].parametrizations.weight[0]
    assert isinstance(mask, LearnedMask) and model[0].weight.tolist() == [[0, 0, 3, -4]]
    model(torch.tensor([[1.0, 10, 100, 1000]])).sum().backward()
    assert mask.ranked.scores.grad.tolist() == [[1, 20, 300, 4000]]  # sign * w * x
    rate = mask.ranked.rate
    inner = rate.quota.detach().sigmoid()
    slope = float((1 - rate.floor) * inner * (1 - inner))
    assert float(rate.quota.grad) == pytest.approx((1 - 20 + 300 - 4000) * slope, rel=1e-5)
    assert torch.allclose(scaled(torch.tensor([[1.0, -2, 3, -4]])), 1.5**0.5 * torch.tensor([[0.25, -0.5, 0.75, -1]]))
