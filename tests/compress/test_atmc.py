"""ATMC by hand: one budget over all factors, at most 2^b values, and an ADMM whose residual falls."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from adamas.compress.atmc import ATMC, project
from adamas.compress.factors import factored
from adamas.compress.lloyd import lloyd, nearest
from adamas.compress.prune import Prune
from adamas.cost import codebook_bits, cost
from adamas.errors import AdamasError
from adamas.fit import Fit, fit
from adamas.models.lenet import LeNet
from adamas.models.resnet import ResNet34
from adamas.models.wide_resnet import WideResNet
from adamas.threat import Linf
from adamas.weights import original
from tests.helpers import SmallNet

THREAT = Linf(eps=0.1)


def started(compressor: ATMC, model: nn.Module) -> nn.Module:
    compressor.attach(model)
    compressor.calibrate(model, [], THREAT)
    return model


# ---------------------------------------------------------------------------------------------------- projection


def test_the_budget_is_shared_by_all_tensors():
    tensors = [torch.tensor([[5.0, -1], [2, 0.5]]), torch.tensor([[-4.0, 3, 0.1]]), torch.tensor([0.2, -6, 1.5, 0, 2.5])]
    project(tensors, 5)
    left = [torch.tensor([[5.0, 0], [0, 0]]), torch.tensor([[-4.0, 3, 0]]), torch.tensor([0.0, -6, 0, 0, 2.5])]
    assert all(torch.equal(a, b) for a, b in zip(tensors, left, strict=True))
    project(tensors, 5)
    assert all(torch.equal(a, b) for a, b in zip(tensors, left, strict=True))


def test_ties_do_not_break_the_budget():
    tensors = [torch.ones(4), -torch.ones(2, 2)]
    project(tensors, 3)
    assert sum(int(tensor.count_nonzero()) for tensor in tensors) == 3


# -------------------------------------------------------------------------------------------------- factorization


@pytest.mark.parametrize("rank_of", ["inputs", "filters"])
def test_factoring_changes_no_weight(rank_of):
    layer = nn.Conv2d(3, 40, 3) if rank_of == "inputs" else nn.Conv2d(3, 8, 3)
    before = layer.weight.detach().clone()
    model = started(ATMC(keep=1, bits=None), nn.Sequential(layer))
    torch.testing.assert_close(model[0].weight, before, rtol=0, atol=1e-6)
    factors = factored(model[0])
    assert factors.tall == (rank_of == "inputs")
    whole, empty = ("b", "a") if factors.tall else ("a", "b")
    assert getattr(factors, whole).count_nonzero() == before.numel()
    assert not getattr(factors, empty).any() and not factors.c.any()


def test_lenet_is_factored_exactly_and_keeps_4305_of_430500():
    torch.manual_seed(0)
    model = LeNet(plain_convolutions=True).build((1, 28, 28), 10)
    x = torch.rand(4, 1, 28, 28)
    with torch.no_grad():
        before = model(x)
        started(ATMC(keep=1, bits=None), model)
        torch.testing.assert_close(model(x), before)
    started(ATMC(keep=0.01, bits=None), model)
    factors = [factored(layer) for layer in model if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert [len(found.a) for found in factors] == [20, 50, 500, 10] and not any(found.tall for found in factors)
    assert sum(int(value.count_nonzero()) for found in factors for value in (found.a, found.b, found.c)) == 4305


# ----------------------------------------------------------------------------------------------------------- ADMM


@torch.no_grad()
def test_the_pull_by_hand_and_its_growth():
    compressor = ATMC(keep=1, bits=1, factorize=False, rho=0.5, growth=2, cycles=2)
    model = nn.Sequential(nn.Linear(4, 1, bias=False))
    model[0].weight.copy_(torch.tensor([[1.0, 2, 7, 8]]))
    started(compressor, model)  # centres 1.5 and 7.5, w - w' = (-.5, .5, -.5, .5)
    assert float(compressor.penalty(model, 0.0)) == pytest.approx(0.5 / 2 * 1.0)
    compressor.after_step(model, 0.25)
    assert float(compressor.penalty(model, 0.25)) == pytest.approx(0.25)
    compressor.after_step(model, 0.5)  # u = w + 0 - w', halved as rho doubles
    assert float(compressor.penalty(model, 0.5)) == pytest.approx(1.0 / 2 * 4 * 0.75**2)
    compressor.after_step(model, 1.0)  # the next copy is of w + u = (.75, 2.25, 6.75, 8.25), whose values stay 1.5 and 7.5
    compressor.finish(model)
    assert torch.equal(model[0].weight, torch.tensor([[1.5, 1.5, 7.5, 7.5]]))


@pytest.mark.parametrize("bits", [3, 4])
def test_the_residual_vanishes_and_the_end_beats_pruning_and_clustering(bits):
    target = torch.randn(50, 100, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Linear(100, 50, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(target)
    compressor = ATMC(keep=0.1, bits=bits, factorize=False)
    started(compressor, model).train()
    optimizer = torch.optim.SGD([original(model[0])], lr=0.1)
    first = compressor.residual(model)
    for step in range(600):
        loss = 0.5 * (model[0].weight - target).square().sum() + compressor.penalty(model, step / 600)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        compressor.after_step(model, (step + 1) / 600)
    assert compressor.residual(model) < 1e-4 < first
    compressor.finish(model)
    weight = model[0].weight.detach()
    assert int(weight.count_nonzero()) == 500 and len(weight.unique()) == 2**bits + 1
    pruned = target * (target.abs() >= target.abs().flatten().sort(descending=True).values[499])
    shown = pruned[pruned != 0]
    pruned[pruned != 0] = nearest(shown, lloyd(shown, 2**bits))
    assert (weight - target).square().sum() <= (pruned - target).square().sum() * 1.001


# ------------------------------------------------------------------------------------------------------ the whole


@pytest.mark.parametrize("settings", [{}, {"factorize": False}, {"allocation": "mixed"}, {"bits": None}])
def test_after_a_stage_the_budget_and_the_values_hold_and_stay(settings, digits):
    torch.manual_seed(0)
    model = SmallNet()
    weights = sum(p.numel() for p in model.parameters() if p.dim() > 1)
    compressor = ATMC(**{"keep": 0.2, "bits": 3, **settings})
    started(compressor, model)
    fit(model, digits, Fit(epochs=3, batch_size=128, lr=0.02), THREAT, compressor=compressor)
    compressor.finish(model)
    for _ in range(2):
        pieces = [
            getattr(owner, name)
            for layer in model.modules()
            if isinstance(layer, nn.Conv2d | nn.Linear)
            for owner, name in (factored(layer).factors() if factored(layer) else [(layer, "weight")])
        ]
        assert sum(int(piece.count_nonzero()) for piece in pieces) == int(0.2 * weights)
        most = 8 if settings.get("allocation") is None else 256
        assert settings.get("bits", 3) is None or max(len(piece[piece != 0].unique()) for piece in pieces) <= most
        fit(model, digits, Fit(epochs=1, batch_size=128, lr=0.02), THREAT)  # later stages train the values alone


def test_a_codebook_for_what_masks_leave(digits):
    model = SmallNet()
    for compressor in (Prune(keep=0.3), ATMC(keep=1, bits=2, factorize=False)):
        compressor.attach(model)
        compressor.calibrate(model, [], THREAT)
        before = [int(layer.weight.count_nonzero()) for layer in (model[0], model[3], model[9])]
        compressor.finish(model)
    assert before == [int(layer.weight.count_nonzero()) for layer in (model[0], model[3], model[9])]
    assert all(len(layer.weight.unique()) <= 5 for layer in (model[0], model[3], model[9]))


def test_nothing_to_compress_is_refused():
    with pytest.raises(AdamasError, match="atmc: expected at least one convolution or linear layer, got none"):
        ATMC().attach(nn.Sequential(nn.Flatten()))


# ----------------------------------------------------------------------------------------------------------- size


@pytest.mark.parametrize(
    ("model", "shape", "classes", "bits"),
    [
        (LeNet(plain_convolutions=True), (1, 28, 28), 10, 13_776_000),
        (ResNet34(), (3, 32, 32), 10, 680_482_816),
        (ResNet34(), (3, 32, 32), 100, 681_957_376),
        (WideResNet(depth=16, widen=8), (3, 32, 32), 10, 350_533_120),
    ],
    ids=["LeNet", "ResNet34, 10 classes", "ResNet34, 100 classes", "WRN-16-8"],
)
def test_dense_sizes_are_the_published_ones(model, shape, classes, bits):
    net = model.build(shape, classes)
    assert 32 * sum(p.numel() for p in net.parameters() if p.dim() > 1) == bits


def test_codebooks_are_counted_with_their_values():
    weight = torch.zeros(40, 10)
    weight[:20] = torch.tensor([1.0, 2, 3, -1]).repeat(50).view(20, 10)
    assert codebook_bits(weight) == 200 * 2 + 4 * 32
    assert codebook_bits(torch.randn(100, 30)) == 32 * 3000
    assert codebook_bits(torch.tensor([[1.0, 2, 3]])) == 96  # a codebook of three would take more
    model = nn.Sequential(nn.Flatten(), nn.Linear(10, 40))
    with torch.no_grad():
        model[1].weight.copy_(weight)
    assert cost(model, (1, 2, 5)).codebook_bits == 528
