"""The quantizer of the adversarial fine-tuning paper's code, formula by formula, against ours.

Source: Thorsteinsson et al. 2024, code. N-bit integers span qmin = -2^(N-1) + 1 to qmax = 2^(N-1) - 1;
symmetric: scale = max|x| / ((qmax - qmin) / 2), zero point 0; affine: scale = (max - min) / (qmax - qmin) with
min <= 0 <= max, zero point qmin - round(min / scale); x' = (clamp(round(x / scale + zero point)) - zero point) * scale.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adamas.compress.ptq import PTQ
from adamas.compress.quantizers import ActivationQuantizer, QuantizedWeight
from adamas.errors import AdamasError


def limits(bits: int) -> tuple[int, int]:
    return -(2 ** (bits - 1)) + 1, 2 ** (bits - 1) - 1


def symmetric(x: np.ndarray, bits: int) -> np.ndarray:
    qmin, qmax = limits(bits)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.abs(x).max() / ((qmax - qmin) / 2)
        return np.clip(np.round(x / scale), qmin, qmax) * scale


def affine(x: np.ndarray, bits: int) -> tuple[np.ndarray, float, float]:
    qmin, qmax = limits(bits)
    low, high = min(x.min(), 0.0), max(x.max(), 0.0)
    scale = (high - low) / (qmax - qmin)
    zero = qmin - np.round(low / scale)
    return (np.clip(np.round(x / scale + zero), qmin, qmax) - zero) * scale, scale, zero


def ours(x: np.ndarray, bits: int) -> np.ndarray:
    quantizer = ActivationQuantizer(bits)
    quantizer.low.fill_(min(x.min(), 0.0))
    quantizer.high.fill_(max(x.max(), 0.0))
    return quantizer(torch.tensor(x, dtype=torch.float32)).numpy()


def test_eight_symmetric_bits_use_127_levels_on_either_side():
    assert limits(8) == (-127, 127)
    weight = np.array([-2.54, -1.0, -0.011, 0.0, 0.009, 1.27])
    assert np.allclose(symmetric(weight, 8), np.array([-127, -50, -1, 0, 0, 64]) * 0.02)  # 63.5 rounds to even
    codes = QuantizedWeight(8, per_channel=False)(torch.tensor(weight[None], dtype=torch.float32)) / 0.02
    assert np.allclose(codes[0, :5], [-127, -50, -1, 0, 0], atol=1e-4)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_symmetric_weights_per_tensor_are_those_of_the_paper(bits):
    weight = np.random.default_rng(bits).normal(size=(6, 40))
    mine = QuantizedWeight(bits, per_channel=False)(torch.tensor(weight, dtype=torch.float64)).numpy()
    assert np.allclose(mine, symmetric(weight, bits))


def test_two_symmetric_bits_are_three_levels():
    assert limits(2) == (-1, 1)
    weight = np.random.default_rng(0).normal(size=(1, 1000))
    levels = [-np.abs(weight).max(), 0, np.abs(weight).max()]
    assert np.allclose(np.unique(symmetric(weight, 2)), levels)
    assert np.allclose(QuantizedWeight(2)(torch.tensor(weight)).unique().numpy(), levels)


def test_one_symmetric_bit_has_an_infinite_scale_and_gives_no_number_so_we_refuse_it():
    assert limits(1) == (0, 0)
    assert np.isnan(symmetric(np.array([-1.0, 0.5, 2.0]), 1)).all()
    with pytest.raises(AdamasError, match="scale infinite"):
        PTQ(weight_bits=1)


def test_affine_scale_and_zero_point_by_hand():
    values, scale, zero = affine(np.array([-1.0, 0.0, 1.54]), 8)
    assert scale == pytest.approx(0.01) and zero == -27  # 254 steps over 2.54, and -127 + 100
    assert np.allclose(values, [-1.0, 0.0, 1.54])
    _, scale, zero = affine(np.array([0.3, 5.08]), 8)
    assert scale == pytest.approx(0.02) and zero == -127  # the range is widened to contain 0


def test_our_affine_activations_have_one_level_more_than_the_paper_s():
    """Deviation: unsigned codes 0..2^b-1, as x86 integer kernels want them, instead of -2^(b-1)+1..2^(b-1)-1."""
    x = np.random.default_rng(1).uniform(-5, 9, 20_000).astype(np.float32)
    for bits in (3, 4, 8):
        assert len(np.unique(affine(x, bits)[0])) == 2**bits - 1
        assert len(np.unique(ours(x, bits))) == 2**bits


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_errors_inside_the_range_are_at_most_half_a_step_and_zero_is_exact(bits):
    x = np.concatenate([[0.0], np.random.default_rng(2).uniform(-0.4, 2.1, 5000)])
    theirs, scale, _ = affine(x, bits)
    inside = np.abs(x - theirs) <= scale / 2 * (1 + 1e-9)
    # rounding the zero point shifts the grid by up to half a step, so only the two ends may be further away
    assert inside[(x > x.min() + scale / 2) & (x < x.max() - scale / 2)].all() and theirs[0] == 0
    mine, step = ours(x, bits), (x.max() - x.min()) / (2**bits - 1)
    middle = (x > x.min() + step / 2) & (x < x.max() - step / 2)
    assert np.abs(x - mine)[middle].max() <= step / 2 * (1 + 1e-5) and mine[0] == 0


def test_post_training_scales_are_fixed_and_their_gradient_is_straight_through():
    x = torch.linspace(-1, 2, 50, requires_grad=True)
    quantizer = ActivationQuantizer(8)
    quantizer.low.fill_(-1)
    quantizer.high.fill_(2)
    quantizer(x).sum().backward()
    assert torch.equal(x.grad, torch.ones(50))
