"""ADMM on filters: projection, dual and penalty by hand, also of coupled layers; what goes is what was small."""

from __future__ import annotations

import itertools
import logging
import re

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from adamas.compress.admm_filters import ADMMFilters
from adamas.errors import AdamasError
from adamas.fit import Fit, fit
from adamas.models.cnn8 import CNN8
from adamas.threat import Linf
from adamas.weights import original, private_copy

THREAT = Linf()
X = torch.rand(2, 1, 4, 4)
BATCHES = [(X, torch.zeros(2, dtype=torch.long))]


class Residual(nn.Module):
    """Two coupled convolutions whose squares per channel are 1 and 4, 16 and 8; together 17 and 12."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(2, 2, 1, bias=False), nn.Linear(2, 2)
        self.fill([1.0, 2], [[4.0, 0], [2, 2]])

    @torch.no_grad()
    def fill(self, a: list[float], b: list[list[float]]) -> None:
        for layer, values in ((self.a, a), (self.b, b)):
            original(layer).copy_(torch.tensor(values).view_as(layer.weight))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.fc((x + self.b(x)).mean((2, 3)))


def prepared(model: nn.Module, **settings) -> ADMMFilters:
    method = ADMMFilters(keep=0.5, round_to=1, **settings)
    method.attach(model)
    method.calibrate(model, BATCHES, THREAT)
    return method


def values(layer: nn.Module, what: str) -> list[float]:
    return getattr(layer.parametrizations.weight[-1], what).flatten().tolist()


def test_projection_dual_and_penalty_of_coupled_layers_by_hand():
    model = Residual()
    method = prepared(model, rho=0.2, growth=2, cycles=2)
    assert values(model.a, "z") == [1, 0] and values(model.b, "z") == [4, 0, 0, 0]  # of a alone, the second would stay
    assert float(method.penalty(model, 0).detach()) == pytest.approx(0.1 * (4 + 4 + 4))
    method.after_step(model, 0.25)
    assert values(model.a, "cycle") == [0]
    method.after_step(model, 0.5)  # w + u = w: z stays; u becomes half of what z lacks, since rho doubles
    assert values(model.a, "u") == [0, 1] and values(model.b, "u") == [0, 0, 1, 1]
    assert float(method.penalty(model, 0.5).detach()) == pytest.approx(0.2 * (9 + 9 + 9))
    model.fill([1.0, 3], [[1.0, -1], [2, 0]])
    method.after_step(model, 1.0)  # w + u = 1, 4 and 1, -1, 3, 1: now the second channel is the larger one
    assert values(model.a, "z") == [0, 4] and values(model.b, "z") == [0, 0, 3, 1]
    assert values(model.a, "u") == [0.5, 0] and values(model.b, "u") == [0.5, -0.5, 0, 0] and values(model.b, "cycle") == [2]


def test_the_gradient_pulls_towards_the_projection():
    model = Residual()
    prepared(model, rho=0.2).penalty(model, 0).backward()
    assert model.a.parametrizations.weight.original.grad.flatten().tolist() == [0, pytest.approx(0.4)]
    assert model.b.parametrizations.weight.original.grad.flatten().tolist() == [0, 0, pytest.approx(0.4), pytest.approx(0.4)]


def test_the_channel_of_lowest_norm_goes_from_every_layer_that_has_it():
    model = Residual()
    method = prepared(model)
    model.fill([1.0, 3], [[1.0, -1], [2, 0.5]])
    read = model.fc.weight[:, 1:].clone()
    method.finish(model)
    assert model.a.weight.flatten().tolist() == [3] and model.b.weight.flatten().tolist() == [0.5]
    assert torch.equal(model.fc.weight, read) and not any(map(parametrize.is_parametrized, model.modules()))
    method.finish(model)
    assert model.a.out_channels == 1  # what is done is done


def test_what_does_not_train_neither_ranks_nor_is_drawn():
    model = Residual()
    model.b.requires_grad_(False)
    method = prepared(model, cycles=1)
    method.after_step(model, 1.0)
    assert values(model.a, "z") == [0, 2] and not parametrize.is_parametrized(model.b)
    method.finish(model)
    assert model.a.weight.flatten().tolist() == [2] and model.b.weight.flatten().tolist() == [2]


def test_the_residual_falls_on_a_quadratic_bowl():
    model = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
    bowl = torch.tensor([1.0, -1.2, 0.8, 1.1]).view(4, 1, 1, 1)
    with torch.no_grad():
        model[0].weight.copy_(bowl)
    method = prepared(model, rho=0.5, cycles=8)
    optimizer, found = torch.optim.SGD(model.parameters(), lr=0.05), []
    for step in range(400):
        optimizer.zero_grad()
        ((model[0].weight - bowl).square().sum() / 2 + method.penalty(model, step / 400)).backward()
        optimizer.step()
        method.after_step(model, (step + 1) / 400)
        weight = model[0].weight.detach()
        found.append(float((weight - model[0].parametrizations.weight[-1].z).square().sum() / weight.square().sum()))
    ends = found[49::50]
    assert ends[-1] < 0.01 * ends[0] and all(after < before for before, after in itertools.pairwise(ends))
    assert model[0].weight.flatten()[[1, 3]].tolist() == [pytest.approx(-1.2, rel=0.05), pytest.approx(1.1, rel=0.05)]


def test_a_fit_shrinks_what_goes_and_removing_is_the_same_as_hiding(trained, digits, caplog):
    method = ADMMFilters(keep=0.5, round_to=1, growth=2, cycles=8)
    method.calibrate(trained, digits.train.batches(64), THREAT)
    with caplog.at_level(logging.INFO, "adamas"):
        fit(trained, digits, Fit(epochs=6, batch_size=64, lr=0.05), THREAT, compressor=method)
    logged = [float(value) for value in re.findall(r"admm_filters: relative residual (\S+) after", caplog.text)]
    assert len(logged) == 8 and logged[-1] < 0.1 * logged[0]
    hidden = private_copy(trained)
    for conv, norm in ((0, 1), (3, 4)):
        weight = hidden[conv].weight.detach()
        small = weight.square().flatten(1).sum(1).argsort()[: len(weight) // 2]
        for tensor in (original(hidden[conv]), hidden[conv].bias, *hidden[norm].parameters()):
            if tensor is not None:
                tensor.detach()[small] = 0
    method.finish(trained)
    assert (trained[0].out_channels, trained[3].out_channels, trained[9].in_features) == (4, 8, 32)
    x = digits.test.pixels[:50].float() / 255
    with torch.no_grad():
        assert torch.allclose(trained.eval()(x), hidden.eval()(x), rtol=1e-4, atol=1e-4)


def test_widths_are_rounded_up_and_excluded_or_frozen_layers_keep_theirs():
    model = CNN8(width=8).build((1, 28, 28), 10)
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    first.requires_grad_(False)
    method = ADMMFilters(keep=0.3, round_to=4, exclude=("6",))
    method.calibrate(model, [(torch.rand(2, 1, 28, 28), torch.zeros(2, dtype=torch.long))], THREAT)
    method.finish(model)
    assert [layer.out_channels for layer in model.modules() if isinstance(layer, nn.Conv2d)] == [8, 4, 8, 16, 12, 12]


def test_what_cannot_be_done_is_told_in_a_sentence():
    with pytest.raises(AdamasError, match="admm_filters: expected a batch of images to try the smaller network on, got none"):
        ADMMFilters().calibrate(Residual(), [], THREAT)
    with pytest.raises(AdamasError, match="expected channels that can be removed, got none: no group of channels"):
        prepared(Residual().requires_grad_(False))
    with pytest.raises(AdamasError, match="got none: 0: '1' is a GroupNorm, which cannot lose channels"):
        prepared(nn.Sequential(nn.Conv2d(1, 4, 1), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(64, 2)))
    with pytest.raises(AdamasError, match="exclude: expected the name of a convolution or linear layer, got 'c'"):
        prepared(Residual(), exclude=("c",))
