"""Quantizers by hand: levels, rounding, gradients, degenerate ranges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from adamas.compress.quantizers import ActivationQuantizer, QuantizedBias, QuantizedWeight


def activation(low: float, high: float, bits: int = 8) -> ActivationQuantizer:
    quantizer = ActivationQuantizer(bits)
    quantizer.low.fill_(low)
    quantizer.high.fill_(high)
    return quantizer


class Half(nn.Module):
    """A mask that keeps every second value."""

    def forward(self, weight: Tensor) -> Tensor:
        mask = torch.zeros_like(weight)
        mask.view(-1)[::2] = 1
        return weight * mask


def test_weights_lie_on_127_symmetric_levels_of_their_channel():
    weight = torch.tensor([[1.27, -0.512, 0.004], [-0.0127, 0.0001, 0.00016]])
    codes = torch.tensor([[127.0, -51, 0], [-127, 1, 2]])
    assert torch.allclose(QuantizedWeight(8)(weight), codes * torch.tensor([[0.01], [0.0001]]), atol=1e-8)


def test_per_tensor_weights_share_one_scale():
    weight = torch.tensor([[1.27, -0.512, 0.004], [-0.0127, 0.0001, 0.00016]])
    codes = torch.tensor([[127.0, -51, 0], [-1, 0, 0]])
    assert torch.allclose(QuantizedWeight(8, per_channel=False)(weight), codes * 0.01, atol=1e-8)


@pytest.mark.parametrize("bits", [2, 3, 4, 8, 12, 16])
def test_weights_take_at_most_the_levels_that_fit_and_keep_their_largest_value(bits):
    weight = torch.randn(5, 3000)
    quantized = QuantizedWeight(bits)(weight)
    for row, original in zip(quantized, weight, strict=True):
        assert len(row.unique()) <= 2**bits - 1
        assert torch.allclose(row.abs().max(), original.abs().max())


def test_an_all_zero_channel_stays_zero():
    assert torch.equal(QuantizedWeight(8)(torch.zeros(2, 3)), torch.zeros(2, 3))


def test_the_gradient_of_weights_is_the_identity():
    weight = torch.randn(4, 3, requires_grad=True)
    factors = torch.randn(4, 3)
    (QuantizedWeight(4)(weight) * factors).sum().backward()
    assert torch.equal(weight.grad, factors)


def test_masked_weights_stay_exactly_zero():
    layer = nn.Linear(6, 4)
    parametrize.register_parametrization(layer, "weight", Half())
    masked = layer.weight == 0
    parametrize.register_parametrization(layer, "weight", QuantizedWeight(8))
    assert torch.equal(layer.weight == 0, masked) and masked.sum() == 12


@pytest.mark.parametrize(("bits", "spread"), [(8, 1), (7, 1), (4, 9), (2, 63)])
def test_stored_integers_of_narrow_weights_are_spread_over_63_levels(bits, spread):
    quantizer = QuantizedWeight(bits)
    weight = torch.randn(3, 50)
    codes = quantizer(weight) / quantizer.unit[:, None]
    assert torch.allclose(codes, codes.round(), atol=1e-4)
    assert torch.allclose(codes.abs().amax(1), torch.tensor(float(spread * quantizer.last)))


def test_biases_lie_on_the_product_of_the_two_steps_with_identity_gradient():
    weight, inputs = QuantizedWeight(8), activation(0, 2.55)
    weight(torch.tensor([[1.27], [12.7]]))
    bias = torch.tensor([0.00234, 0.00234], requires_grad=True)
    rounded = QuantizedBias(weight, inputs)(bias)
    assert torch.allclose(rounded, torch.tensor([0.0023, 0.002]), atol=1e-7)  # steps .01 * .01 and .1 * .01
    rounded.sum().backward()
    assert torch.equal(bias.grad, torch.ones(2))


def test_biases_stay_float_while_the_range_is_measured():
    weight, inputs = QuantizedWeight(8), activation(0, 2.55)
    weight(torch.ones(1, 1))
    bias = torch.tensor([0.123456])
    inputs.watch = lambda quantizer, x: None
    assert torch.equal(QuantizedBias(weight, inputs)(bias), bias)
    inputs.watch = None
    assert not torch.equal(QuantizedBias(weight, inputs)(bias), bias)


def test_two_bit_activations_by_hand():
    x = torch.tensor([-2.0, -1.3, -0.6, 0.0, 0.6, 0.7, 1.9, 2.1, 9.0])
    codes = torch.tensor([0.0, 0, 1, 1, 1, 2, 2, 3, 3])  # scale 4/3, zero at 1, so the levels are -4/3, 0, 4/3, 8/3
    quantizer = activation(-1, 3, bits=2)
    assert quantizer.grid() == (4 / 3, 1)
    assert torch.allclose(quantizer(x), (codes - 1) * 4 / 3)


def test_rounding_is_half_to_even_before_the_zero_point_is_added():
    quantizer = activation(-1, 254)  # scale 1 and zero at 1, where rounding after adding would go the other way
    assert quantizer(torch.tensor([0.5, 1.5, 2.5, -0.5])).tolist() == [0, 2, 2, 0]


@pytest.mark.parametrize("high", [2.6, 3.7, 9.1])
def test_rounding_divides_as_onnx_does_instead_of_multiplying_by_the_inverse(high):
    quantizer = activation(0, high)
    scale = np.float32(quantizer.grid()[0])
    x = (np.arange(255, dtype=np.float32) + np.float32(0.5)) * scale  # halfway, so the last bit decides
    codes = np.rint(x / scale)
    assert np.any(codes != np.rint(x * (1 / scale)))
    assert np.array_equal(quantizer(torch.tensor(x)).numpy(), codes * scale)


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_values_inside_the_range_move_by_half_a_step_at_most_and_zero_stays(bits):
    quantizer = activation(-0.7, 1.9, bits)
    scale, zero = quantizer.grid()
    x = torch.linspace(-zero * scale, (2**bits - 1 - zero) * scale, 10_001)
    assert (quantizer(x) - x).abs().max() <= scale / 2 * (1 + 1e-3) + 1e-6
    assert quantizer(torch.zeros(1)).item() == 0


def test_the_gradient_passes_inside_the_range_and_stops_outside():
    x = torch.tensor([-1.5, -1.0, 0.0, 2.9, 3.3, 3.4, 8.0], requires_grad=True)
    activation(-1, 3, bits=2)(x).sum().backward()  # the levels end at -4/3 and 8/3, what rounds to them at -2 and 10/3
    assert x.grad.tolist() == [1, 1, 1, 1, 1, 0, 0]


def test_where_the_range_covers_all_values_the_gradient_is_the_float_gradient():
    x, factors = torch.randn(8, 3, 5, 5), torch.randn(8, 3, 5, 5)
    quantized, exact = x.clone().requires_grad_(), x.clone().requires_grad_()
    (activation(float(x.min()), float(x.max()))(quantized) * factors).sum().backward()
    (exact * factors).sum().backward()
    assert torch.equal(quantized.grad, exact.grad)


def test_an_activation_that_is_always_zero_gives_finite_values():
    quantizer = activation(0, 0)
    assert quantizer(torch.zeros(3)).tolist() == [0, 0, 0]
    assert quantizer(torch.tensor([5.0, -5.0])).abs().max() < 1e-6


def test_quantizing_twice_changes_nothing():
    quantizer = activation(-0.31, 5.77)
    once = quantizer(torch.randn(10_000) * 3)
    assert torch.equal(quantizer(once), once)


def test_the_gradient_can_be_differentiated_again():
    x = torch.randn(5, requires_grad=True)
    (grad,) = torch.autograd.grad(activation(-9, 9)(x).square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(grad.sum(), x)
    assert torch.equal(second, torch.full((5,), 2.0))
