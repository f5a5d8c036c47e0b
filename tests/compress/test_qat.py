"""Quantization-aware training: whose forwards move the ranges, by how much, and until when."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from adamas.compress.qat import QAT
from adamas.compress.quantizers import ActivationQuantizer, activation_quantizers
from adamas.errors import AdamasError
from adamas.fit import Fit, fit
from adamas.threat import Linf
from tests.helpers import SmallNet, accuracy

THREAT = Linf(eps=0.1)


def ranges(model: nn.Module) -> list[tuple[float, float]]:
    return [(float(q.low), float(q.high)) for q in activation_quantizers(model).values()]


def prepared(model: nn.Module, digits, **settings) -> QAT:
    method = QAT(**settings)
    method.attach(model)
    method.calibrate(model, digits.train.batches(64, seed=0), THREAT)
    return method


def test_a_training_forward_moves_the_range_by_a_hundredth_of_the_way():
    quantizer = ActivationQuantizer(8, momentum=0.99)
    quantizer.low.fill_(-1)
    quantizer.high.fill_(2)
    quantizer.train()(torch.tensor([1.0, 4.0]))  # no negative value: the extreme below counts as 0
    assert quantizer.low.item() == pytest.approx(-0.99) and quantizer.high.item() == pytest.approx(2.02)


def test_only_training_forwards_move_ranges_so_attacks_do_not(trained, digits):
    prepared(trained, digits)
    before = ranges(trained)
    trained.eval()(torch.rand(8, 1, 8, 8) * 50)
    assert ranges(trained) == before
    trained.train()(torch.rand(8, 1, 8, 8) * 50)
    assert all(high > old for (_, high), (_, old) in zip(ranges(trained)[:3], before[:3], strict=True))


def test_finish_freezes_the_ranges_also_after_loading(trained, digits):
    prepared(trained, digits).finish(trained)
    fresh = SmallNet()
    QAT().attach(fresh)
    fresh.load_state_dict(trained.state_dict())
    before = ranges(fresh)
    fresh.train()(torch.rand(8, 1, 8, 8) * 50)
    assert ranges(fresh) == before == ranges(trained)


def test_training_through_two_bit_weights_recovers_most_of_what_rounding_costs(trained, digits):
    x, y = next(digits.validation.batches(150))
    method = prepared(trained, digits, weight_bits=2, activation_bits=3)
    before = accuracy(trained, x, y)
    fit(trained, digits, Fit(epochs=6, batch_size=32, lr=0.01), THREAT, compressor=method)
    method.finish(trained)
    assert accuracy(trained, x, y) > before + 0.2


def test_weight_averaging_works_on_quantized_networks(trained, digits):
    method = prepared(trained, digits)
    fit(trained, digits, Fit(epochs=1, batch_size=64, lr=0.01, ema=0.9), THREAT, compressor=method)
    x, y = next(digits.validation.batches(150))
    assert accuracy(trained, x, y) > 0.8


def test_a_diverged_network_ends_in_the_sentence_about_its_loss(trained, digits):
    method = prepared(trained, digits)
    with pytest.raises(AdamasError, match="the loss became nan, expected a finite number"):
        fit(trained, digits, Fit(epochs=1, batch_size=64, lr=1e15), THREAT, compressor=method)
