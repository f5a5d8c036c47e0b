"""Post-training quantization of a trained network: accuracy, ranges, gradients, restoring."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from adamas.compress.ptq import PTQ
from adamas.compress.quantizers import ActivationQuantizer, activation_quantizers
from adamas.errors import AdamasError
from adamas.threat import Linf
from tests.helpers import SmallNet, accuracy, first_batch

THREAT = Linf(eps=0.1)


def quantized(model: nn.Module, digits, **settings) -> nn.Module:
    method = PTQ(**settings)
    method.attach(model)
    method.calibrate(model, digits.train.batches(64, seed=0), THREAT)
    return model.eval()


def gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(model(x), y), x)[0]


def test_eight_bits_keep_the_accuracy_and_two_bits_do_not(trained, digits):
    x, y = next(digits.validation.batches(150))
    before = accuracy(trained, x, y)
    after = {
        bits: accuracy(quantized(copy.deepcopy(trained), digits, weight_bits=bits, activation_bits=bits), x, y)
        for bits in (8, 2)
    }
    assert abs(after[8] - before) <= 0.02
    assert after[2] < before - 0.1


def test_one_bit_is_refused_with_the_reason():
    with pytest.raises(AdamasError, match=r"weight_bits: expected 2 to 16 bits, got 1: .* scale infinite; .* binary_relax"):
        PTQ(weight_bits=1)
    with pytest.raises(AdamasError, match=r"activation_bits: .* less than or equal to 16, got 17"):
        PTQ(activation_bits=17)


def test_extremes_of_the_calibration_batches_are_the_ranges(trained, digits):
    inputs: list[Tensor] = []
    handle = trained[0].register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    quantized(trained, digits, batches=2)
    handle.remove()
    assert [len(x) for x in inputs[:2]] == [64, 64] and len(inputs) == 2
    first = next(iter(activation_quantizers(trained).values()))
    assert first.low == 0 and first.high == torch.cat(inputs).max()


def test_percentiles_cut_the_tails_at_the_asked_share():
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 1))
    values = torch.cat([torch.linspace(-1, 3, 1000), torch.tensor([-50.0, 90.0])]).view(-1, 1, 1, 1)
    method = PTQ(calibration="percentile", percentile=99)
    method.attach(model)
    method.calibrate(model, [(values, torch.zeros(1002))], THREAT)
    (quantizer,) = activation_quantizers(model).values()
    assert abs(quantizer.low - -0.964) < 0.08 and abs(quantizer.high - 2.964) < 0.08  # a bin is 140 / 4096 wide


def test_a_percentile_range_still_contains_zero():
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 1))
    method = PTQ(calibration="percentile", percentile=99)
    method.attach(model)
    for sign in (1, -1):
        method.calibrate(model, [(sign * torch.linspace(5, 8, 1000).view(-1, 1, 1, 1), torch.zeros(1000))], THREAT)
        (quantizer,) = activation_quantizers(model).values()
        assert (quantizer.low if sign == 1 else quantizer.high) == 0


def test_percentiles_are_never_wider_than_the_extremes(trained, digits):
    wide = activation_quantizers(quantized(copy.deepcopy(trained), digits))
    narrow = activation_quantizers(quantized(trained, digits, calibration="percentile", percentile=99.5))
    assert all(narrow[n].low >= wide[n].low and narrow[n].high <= wide[n].high for n in wide)
    assert sum(narrow[n].high < wide[n].high for n in wide) >= 3


def test_ranges_stay_when_the_network_trains(trained, digits):
    quantized(trained, digits)
    before = {n: (float(q.low), float(q.high)) for n, q in activation_quantizers(trained).items()}
    trained.train()(first_batch(digits)[0] * 100)
    assert before == {n: (float(q.low), float(q.high)) for n, q in activation_quantizers(trained).items()}


def test_white_box_attacks_see_the_gradient_of_the_float_network(trained, digits):
    x, y = first_batch(digits)
    exact = gradient(trained.eval(), x, y)
    seen = gradient(quantized(copy.deepcopy(trained), digits), x, y)
    assert (seen.flatten(1).abs().amax(1) > 0).all()
    assert F.cosine_similarity(seen.flatten(), exact.flatten(), dim=0) > 0.97
    four_bits = gradient(quantized(trained, digits, weight_bits=4, activation_bits=4), x, y)
    assert (four_bits.flatten(1).abs().amax(1) > 0).all()


def test_the_structure_alone_restores_a_saved_model(trained, digits):
    quantized(trained, digits, weight_bits=5, activation_bits=6)
    fresh = SmallNet()
    PTQ(weight_bits=5, activation_bits=6).attach(fresh)
    fresh.load_state_dict(trained.state_dict())
    x = first_batch(digits)[0]
    assert torch.equal(fresh.eval()(x), trained(x))


def test_pruned_weights_stay_pruned(trained, digits):
    class Mask(nn.Module):
        def __init__(self, mask: Tensor):
            super().__init__()
            self.register_buffer("mask", mask)

        def forward(self, weight: Tensor) -> Tensor:
            return weight * self.mask

        def right_inverse(self, weight: Tensor) -> Tensor:
            return weight

    mask = (torch.rand_like(trained[3].weight) > 0.7).float()
    parametrize.register_parametrization(trained[3], "weight", Mask(mask))
    quantized(trained, digits)
    assert (trained[3].weight[mask == 0] == 0).all() and trained[3].weight.count_nonzero() > 0.9 * mask.sum()


def test_diverged_weights_and_missing_batches_are_named(trained, digits):
    PTQ().attach(trained)
    with pytest.raises(AdamasError, match="expected at least one batch to calibrate activation ranges with, got none"):
        PTQ().calibrate(trained, [], THREAT)
    with torch.no_grad():
        trained[3].parametrizations.weight.original.fill_(float("nan"))
    with pytest.raises(
        AdamasError, match=r"expected finite activations at activation_quantizers\.after_\w+, got nan or infinity"
    ):
        PTQ().calibrate(trained, digits.train.batches(64), THREAT)
    assert all(isinstance(q, ActivationQuantizer) and q.watch is None for q in activation_quantizers(trained).values())
