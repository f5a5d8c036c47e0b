"""Bits go where they help most, and never cost more than equal ones."""

from __future__ import annotations

import torch

from adamas.compress.bit_allocation import _price, allocate


def spent(values: list[torch.Tensor], bits: list[int]) -> int:
    return sum(_price(len(value), width) for value, width in zip(values, bits, strict=True))


def test_a_tensor_of_two_values_leaves_its_bits_to_the_others():
    generator = torch.Generator().manual_seed(0)
    values = [
        torch.randn(3000, generator=generator),
        torch.tensor([1.0, -2]).repeat(1500),
        torch.randn(3000, generator=generator),
    ]
    bits = allocate(values, 4)
    assert bits[1] == 1 and min(bits[0], bits[2]) >= 4 and max(bits[0], bits[2]) > 4
    assert spent(values, bits) <= spent(values, [4, 4, 4])


def test_equal_tensors_get_nearly_equal_bits():
    values = [torch.randn(2000, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    bits = allocate(values, 3)
    assert max(bits) - min(bits) <= 1 and spent(values, bits) <= spent(values, [3] * 4)


def test_nothing_to_store_takes_one_bit():
    assert allocate([torch.empty(0), torch.tensor([1.0, 2, 3])], 2)[0] == 1
