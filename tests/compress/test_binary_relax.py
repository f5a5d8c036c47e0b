"""Binary-Relax: what attacks and gradients see, how the strength grows, and what is left."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from adamas.compress.binary_relax import BinaryRelax, Relaxed
from adamas.compress.levels import project
from adamas.compress.masks import Mask
from adamas.compress.prune import Prune
from adamas.cost import cost
from adamas.errors import AdamasError
from adamas.fit import Fit, fit
from adamas.models import normalized
from adamas.models.enresnet import EnResNet
from adamas.threat import Linf
from adamas.weights import original
from tests.helpers import SmallNet, shapes_data

THREAT = Linf(eps=0.1)


def started(compressor: BinaryRelax, model: nn.Module) -> nn.Module:
    compressor.attach(model)
    compressor.calibrate(model, [], THREAT)
    return model


def strength(model: nn.Module) -> float:
    share = next(module.share for module in model.modules() if isinstance(module, Relaxed))
    return float(share / (1 - share))


def test_the_weight_is_the_weighted_mean_of_float_and_projection():
    compressor = BinaryRelax(layers="all", start=3.0)
    model = started(compressor, nn.Sequential(nn.Flatten(), nn.Linear(3, 2)))
    w = original(model[1]).detach()
    torch.testing.assert_close(model[1].weight, (3 * project(w, "binary", 4, False) + w) / 4)


def test_the_gradient_is_taken_at_the_relaxed_weight_and_goes_to_the_float_one_as_it_is():
    model = started(BinaryRelax(layers="all", start=1.0), nn.Sequential(nn.Flatten(), nn.Linear(3, 2, bias=False)))
    seen = model[1].weight
    seen.square().sum().backward()
    torch.testing.assert_close(original(model[1]).grad, 2 * seen.detach())


def test_the_strength_grows_from_1_to_349_over_the_relaxation_and_is_infinite_after_it():
    compressor = BinaryRelax(layers="all", relaxed=0.6)
    model = started(compressor, nn.Sequential(nn.Flatten(), nn.Linear(3, 2)))
    assert strength(model) == pytest.approx(1)
    for epoch in (40, 119):  # of 200, as published: 1.05 per epoch
        compressor.after_step(model, epoch / 200)
        assert strength(model) == pytest.approx(1.05**epoch, rel=2e-3)
    compressor.after_step(model, 0.6)
    assert torch.equal(model[1].weight, project(original(model[1]).detach(), "binary", 4, False))


def test_binary_connect_is_projected_from_the_start():
    model = started(BinaryRelax(layers="all", relaxed=0), nn.Sequential(nn.Flatten(), nn.Linear(3, 2)))
    assert len(model[1].weight.unique()) == 2


@pytest.mark.parametrize(("levels", "most", "bits"), [("binary", 2, 1), ("ternary", 3, 2), ("uniform", 15, 4)])
def test_after_a_stage_few_values_are_left(levels, most, bits):
    torch.manual_seed(0)
    compressor, model = BinaryRelax(levels=levels), SmallNet(classes=2)
    data = shapes_data(train=64)
    started(compressor, model)
    fit(model, data, Fit(epochs=3, batch_size=16), THREAT, compressor=compressor)
    compressor.finish(model)
    for layer in (model[0], model[3]):
        assert len(layer.weight.unique()) <= most
        assert torch.equal(original(layer), layer.weight)
        assert layer.parametrizations.weight[-1].bits == bits
    counted = cost(model, (1, 4, 4))
    spatial = sum(int(layer.weight.count_nonzero()) for layer in (model[0], model[3]))
    assert counted.paper_bits == 32 * (counted.nonzeros - spatial) + bits * spatial


def test_the_papers_layers_are_the_convolutions_larger_than_1x1():
    model = started(BinaryRelax(), normalized(EnResNet().build((3, 32, 32), 10), [0.5] * 3, [0.2] * 3))
    relaxed = [layer for layer in model.modules() if hasattr(layer, "parametrizations")]
    assert (len(relaxed), sum(original(layer).numel() for layer in relaxed)) == (19, 267_696)


def test_nothing_to_quantize_is_refused():
    with pytest.raises(AdamasError, match=r"got none \(layers: spatial\); all takes every one"):
        BinaryRelax().attach(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
    with pytest.raises(AdamasError, match="exclude: expected the name of a convolution or linear layer, got 'stem'"):
        BinaryRelax(exclude=("stem",)).attach(SmallNet())


def test_masked_weights_stay_masked_and_do_not_count():
    model = SmallNet()
    for compressor in (Prune(keep=0.5), BinaryRelax(layers="all")):
        compressor.attach(model)
        compressor.calibrate(model, [], THREAT)
        compressor.finish(model)
    for layer in (model[0], model[9]):
        mask = next(step for step in layer.parametrizations.weight if isinstance(step, Mask)).mask
        size = original(layer).abs()
        torch.testing.assert_close(layer.weight.abs(), size[mask].mean() * mask)


def test_no_epoch_before_the_end_of_the_relaxation_is_chosen():
    data, compressor = shapes_data(train=64), BinaryRelax(relaxed=0.5)
    torch.manual_seed(0)
    model = started(compressor, SmallNet(classes=2))
    history = fit(model, data, Fit(epochs=6, batch_size=16, lr=0.05, patience=2), THREAT, compressor=compressor)
    assert len(history) > 4 and len(model[0].weight.unique()) == 2  # a network of an earlier epoch would be relaxed
    never = BinaryRelax(relaxed=1)
    with pytest.raises(AdamasError, match="patience: expected epochs in which the network is what will ship, got none of 4"):
        fit(started(never, SmallNet(classes=2)), data, Fit(epochs=4, patience=1), THREAT, compressor=never)
