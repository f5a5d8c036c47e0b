"""What every registered compressor must keep; a new compressor is covered by registering it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from adamas.compress.filters import Filters
from adamas.compress.prune import Prune
from adamas.fit import Fit, fit
from adamas.rates.learned import Learned as LearnedRates
from adamas.rates.uniform import Uniform
from adamas.registry import registered
from adamas.scores.learned import Learned as LearnedScores
from adamas.surgery import resize_to
from adamas.threat import Linf
from tests.helpers import Killed, SmallNet, first_batch, quick

COMPRESSORS = registered("compressor")
THREAT = Linf(eps=0.1)


LEARNED = {
    "hydra": Prune(keep=0.5, scores=LearnedScores(), rates=Uniform()),
    "harp": Prune(keep=0.5, scores=LearnedScores(), rates=LearnedRates(gamma=0.1)),
    "hydra filters": Filters(keep=0.75, round_to=1, scores=LearnedScores()),
    "harp filters": Filters(keep=0.75, round_to=1, scores=LearnedScores(), rates=LearnedRates(gamma=0.1)),
}
"""Configurations whose state is another one."""
EASED: dict[str, dict[str, Any]] = {name: {"keep": 0.5} for name in ("admm", "atmc", "low_rank")}
"""Settings of methods that need more than the three steps of a test."""


@pytest.fixture(params=[*COMPRESSORS, *LEARNED])
def compressor(request):
    return (
        LEARNED[request.param]
        if request.param in LEARNED
        else quick(COMPRESSORS[request.param], **EASED.get(request.param, {}))
    )


@pytest.fixture
def compressed(compressor, trained, digits) -> nn.Module:
    """The trained network after attach, calibrate, one epoch of fitting and finish."""
    compressor.attach(trained)
    compressor.calibrate(trained, digits.train.batches(64, seed=1), THREAT)
    fit(trained, digits, Fit(epochs=1, batch_size=128, lr=0.01), THREAT, compressor=compressor)
    compressor.finish(trained)
    return trained


def test_without_any_fitting_the_logits_stay_finite(compressor, trained, digits):
    compressor.attach(trained)
    compressor.calibrate(trained, digits.train.batches(64, seed=1), THREAT)
    compressor.finish(trained)
    with torch.no_grad():
        logits = trained.eval()(first_batch(digits)[0])
    assert logits.shape == (64, 10) and logits.isfinite().all()


def test_the_compressed_network_still_classifies(compressed, digits):
    x, y = next(digits.validation.batches(150))
    with torch.no_grad():
        assert (compressed.eval()(x).argmax(1) == y).float().mean() > 0.3  # chance is .1


def test_structure_and_values_come_back_without_data(compressor, compressed, digits):
    state = {name: tensor.clone() for name, tensor in compressed.state_dict().items()}
    torch.manual_seed(99)
    fresh = SmallNet()
    compressor.attach(fresh)
    resize_to(fresh, state)
    fresh.load_state_dict(state)
    x = first_batch(digits)[0]
    for model in (fresh, compressed):
        model.eval().to(memory_format=torch.contiguous_format)  # another format sums in another order
    with torch.no_grad():
        assert torch.equal(fresh(x), compressed(x))
        assert torch.equal(copy.deepcopy(compressed)(x), compressed(x))


def test_the_compressed_network_trains_on_and_shows_its_gradient_to_attacks(compressed, digits):
    x = first_batch(digits)[0].requires_grad_()
    compressed.eval()(x).square().sum().backward()
    assert x.grad is not None and (x.grad.flatten(1).abs().amax(1) > 0).all()
    compressed.zero_grad()
    compressed.train()(x.detach()).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in compressed.parameters() if p.requires_grad)


def test_a_killed_fit_goes_on_bit_for_bit(compressor, trained, digits, tmp_path):
    def run(objective: Killed, model: nn.Module) -> dict[str, torch.Tensor]:
        compressor.attach(model)
        compressor.calibrate(model, digits.train.batches(64, seed=1), THREAT)
        settings = Fit(epochs=2, batch_size=150, lr=0.01, objective=objective)
        fit(model, digits, settings, THREAT, compressor=compressor, checkpoint=tmp_path / f"{objective.call}.pt")
        compressor.finish(model)
        return model.state_dict()

    straight = run(Killed(call=0), copy.deepcopy(trained))
    killed = Killed(call=5)  # the second of three steps in the second epoch
    with pytest.raises(KeyboardInterrupt):
        run(killed, copy.deepcopy(trained))
    resumed = run(killed, copy.deepcopy(trained))
    assert straight.keys() == resumed.keys() and all(torch.equal(straight[name], resumed[name]) for name in straight)
