"""Learned step sizes (Esser et al. 2020; Bhalgat et al. 2020 for activations below 0): equations by hand and step by step.

-Q_N < v / s < Q_P: dv^/ds = round(v / s) - v / s; outside: -Q_N or Q_P. Times 1 / sqrt(N Q_P). Start: 2 mean|v| / sqrt(Q_P).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adamas.compress.lsq import LSQ, LearnedActivation, LearnedWeight
from adamas.compress.quantizers import ActivationQuantizer, QuantizedWeight


def weights(bits: int, weight: Tensor, step: float | None = None, per_channel: bool = True) -> LearnedWeight:
    quantizer = LearnedWeight(QuantizedWeight(bits, per_channel), weight)
    if step is not None:
        nn.init.constant_(quantizer.step, step)
    return quantizer


def activations(bits: int, low: float, high: float, mean: float) -> LearnedActivation:
    plain = ActivationQuantizer(bits)
    plain.low.fill_(low)
    plain.high.fill_(high)
    return LearnedActivation(plain, torch.tensor(mean))


def numbers(tensor: Tensor | None) -> list[float]:
    assert tensor is not None
    return tensor.detach().flatten().tolist()


# ------------------------------------------------------------------------------------------------------- gradients


def test_the_gradients_of_three_bit_weights_by_hand():
    weight = torch.tensor([[0.6, -0.2, 2.0, -1.6, 1.4]], requires_grad=True)  # over the step: 1.2, -.4, 4, -3.2, 2.8
    quantizer = weights(3, weight, step=0.5)
    rounded = quantizer(weight)
    assert numbers(rounded) == [0.5, 0.0, 1.5, -1.5, 1.5]
    (rounded * torch.tensor([[1.0, 2, 3, 4, 5]])).sum().backward()
    slopes = [1 - 1.2, 0 + 0.4, 3, -3, 3 - 2.8]
    expected = sum(slope * factor for slope, factor in zip(slopes, [1, 2, 3, 4, 5], strict=True)) / np.sqrt(5 * 3)
    assert expected == pytest.approx(-1.4 / np.sqrt(15))
    assert numbers(quantizer.step.grad) == pytest.approx([expected], rel=1e-5)
    assert numbers(weight.grad) == [1, 2, 0, 0, 5]  # what is clipped gets none


def test_the_gradients_of_two_bit_activations_by_hand():
    x = torch.tensor([[-3.0, -1.2, -0.3, 0.4, 1.7, 2.3, 9.0]], requires_grad=True)
    quantizer = activations(2, -1, 2, mean=1.0)  # step 1, codes -1, 0, 1, 2
    rounded = quantizer(x)
    assert numbers(rounded) == [-1, -1, 0, 0, 2, 2, 2]
    (rounded * torch.tensor([[1.0, 2, 3, 4, 5, 6, 7]])).sum().backward()
    slopes = [-1, -1, 0.3, -0.4, 0.3, 2, 2]
    expected = sum(slope * factor for slope, factor in zip(slopes, [1, 2, 3, 4, 5, 6, 7], strict=True)) / np.sqrt(7 * 3)
    assert numbers(quantizer.step.grad) == pytest.approx([expected], rel=1e-5)
    assert numbers(x.grad) == [0, 2, 3, 4, 5, 6, 0]  # a level reaches half a step further


def test_the_largest_weight_counts_as_outside_and_still_moves():
    weight = torch.tensor([[0.3, -0.9]], requires_grad=True)
    quantizer = weights(2, weight, step=7.0)  # more than the largest weight, which bounds it
    rounded = quantizer(weight)
    assert numbers(rounded) == pytest.approx([0, -0.9])
    rounded.sum().backward()
    assert numbers(quantizer.step.grad) == pytest.approx([(0 - 0.3 / 0.9 - 1) / np.sqrt(2)])
    assert numbers(weight.grad) == [1, 1]


def test_channels_and_tensors_sum_over_the_weights_that_share_a_step():
    weight = torch.tensor([[1.0, 0.4], [-4.0, 3.0]])
    for per_channel, expected in ((True, [(1 - 0.4) / np.sqrt(2), (-1 + 1) / np.sqrt(2)]), (False, [(1 - 0.4 - 1 + 1) / 2])):
        quantizer = weights(2, weight, step=1.0, per_channel=per_channel)
        quantizer(weight).sum().backward()
        assert numbers(quantizer.step.grad) == pytest.approx(expected, abs=1e-6)


def test_the_gradient_scale_of_activations_counts_the_features_of_one_image():
    for batch in (1, 8):
        quantizer = activations(4, 0, 15, mean=100.0)
        quantizer(torch.full((batch, 3, 2, 2), 0.25)).mean(0).sum().backward()
        assert numbers(quantizer.step.grad) == pytest.approx([12 * -0.25 / np.sqrt(12 * 15)])


# ----------------------------------------------------------------------------------------------------------- start


def test_weights_start_at_the_rule_and_never_above_their_largest_value():
    row = torch.tensor([[0.1, -0.1, 0.1, 0.9, 0.0]])  # mean of those that are not zero: .3
    assert numbers(weights(2, row).step) == pytest.approx([0.6])
    assert numbers(weights(4, row).step) == pytest.approx([0.9 / 7])  # 2 * .3 / sqrt(7) is more
    assert numbers(weights(2, torch.cat((row, 2 * row))).step) == pytest.approx([0.6, 1.2])


def test_activations_start_at_the_rule_where_they_begin_at_zero_and_at_the_measured_range_if_that_is_finer():
    assert numbers(activations(2, 0, 6, mean=1.0).step) == pytest.approx([2 / np.sqrt(3)])
    assert numbers(activations(8, 0, 6, mean=1.0).step) == pytest.approx([6 / 255])
    assert numbers(activations(2, -1, 2, mean=0.1).step) == pytest.approx([1.0])


# --------------------------------------------------------------------------------------------------------- training


def rounded(v: np.ndarray, s: float, first: int, last: int) -> np.ndarray:
    return np.clip(np.round(v / s), first, last) * s


def slope(v: np.ndarray, s: float, first: int, last: int) -> np.ndarray:
    inside = (v / s > first) & (v / s < last)
    return np.where(inside, np.round(v / s) - v / s, np.clip(np.round(v / s), first, last))


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_thirty_updates_of_a_linear_layer_follow_the_equations(bits):
    generator = np.random.default_rng(bits)
    w, x, target = generator.normal(size=(1, 6)), generator.normal(size=(40, 6)), generator.normal(size=(40, 1))
    top, last, first = 2 ** (bits - 1) - 1, 2**bits - 1, -(2 ** (bits - 1))
    weight = torch.tensor(w, dtype=torch.float64, requires_grad=True)
    steps, inputs = weights(bits, weight).double(), activations(bits, first / 2, (last + first) / 2, mean=1.0).double()
    s, a = steps.step.item(), inputs.step.item()
    method, quantizers = LSQ(), nn.ModuleList([steps, inputs])
    optimizer = torch.optim.SGD([weight, *steps.parameters(), *inputs.parameters()], lr=0.02)
    for _ in range(30):
        optimizer.zero_grad()
        loss = (inputs(torch.tensor(x)) @ steps(weight).T - torch.tensor(target)).square().mean() / 2
        loss.backward()
        optimizer.step()
        method.after_step(quantizers, 0.5)

        most = np.abs(w).max() / top
        bounded = min(s, most)
        x_hat, w_hat = rounded(x, a, first, last + first), rounded(w, bounded, -top, top)
        error = (x_hat @ w_hat.T - target) / len(x)
        to_w, to_x = error.T @ x_hat, error @ w_hat
        s_next = s - 0.02 * (to_w * slope(w, bounded * (1 - 1e-12), -top, top)).sum() / np.sqrt(w.size * top)
        a_next = a - 0.02 * (to_x * slope(x, a, first, last + first)).sum() / np.sqrt(6 * last)
        s, a = np.clip(s_next, bounded / 2, min(bounded * 2, most)), np.clip(a_next, a / 2, a * 2)
        w = w - 0.02 * to_w * (np.abs(w) <= bounded * top * (1 + 1e-12))
        np.testing.assert_allclose(weight.detach().numpy(), w, rtol=1e-5, atol=1e-7)
        assert steps.step.item() == pytest.approx(s, rel=1e-5) and inputs.step.item() == pytest.approx(a, rel=1e-5)
