"""Tensors as an index and parts: the form that each kind gets, exact values, lengths that must fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from adamas.errors import AdamasError
from adamas.packed.entropy import entropy, entropy_bound
from adamas.packed.layout import arranged, check, contents, state_of
from adamas.packed.tensors import Entry, Grid

LIMIT = 10**6


def sparse(*shape: int, density: float) -> Tensor:
    return torch.randn(shape) * (torch.rand(shape) < density)


def on_grid(bits: int, *shape: int, per_channel: bool = True, density: float = 1.0) -> Tensor:
    """Weights as a quantizer leaves them: codes times scale, the largest itself."""
    weight, last = sparse(*shape, density=density), 2 ** (bits - 1) - 1
    largest = weight.abs().amax(tuple(range(1 if per_channel else 0, len(shape))), keepdim=True)
    scale = (largest / last).clamp_min(1e-12)
    codes = (weight / scale).round()
    return torch.where(codes.abs() == last, largest * codes.sign(), codes * scale)


def forms(state: dict[str, Tensor], grids: dict[str, Grid] | None = None) -> list[tuple[str, str, int]]:
    """(positions, values, width) of every tensor, after checking that all come back."""
    entries, parts = arranged(state, grids or {})
    check(entries, parts, LIMIT)
    back = state_of(entries, parts)
    assert list(back) == list(state)
    for name, tensor in state.items():
        assert back[name].dtype == tensor.dtype and back[name].shape == tensor.shape
        assert torch.equal(back[name].nan_to_num(7.0), tensor.nan_to_num(7.0)), name
    return [(entry.positions, entry.values, entry.width) for entry in entries]


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "float16", "bfloat16", "bool", "uint8", "int8", "int16", "int32", "int64"]
)
def test_every_type_and_odd_shapes_come_back(dtype):
    kind = getattr(torch, dtype)
    dense, few = (torch.randn(5, 3) * 9).to(kind), (sparse(7, 11, density=0.1) * 9).to(kind)
    forms({"dense": dense, "few": few, "one": dense[0, 0], "none": few[:0], "zeros": torch.zeros(3, dtype=kind)})


def test_each_kind_of_tensor_gets_its_form():
    few, half = sparse(40, 50, density=0.02), sparse(40, 50, density=0.7)
    signs = torch.randn(40, 50).sign()
    state = {
        "dense": torch.randn(40, 50),
        "few": few,
        "mask": few != 0,
        "half": half,
        "signs": signs,
        "three": signs * (half != 0),
    }
    assert forms(state) == [
        ("all", "raw", 0),
        ("gaps", "raw", 0),
        ("like", "codebook", 0),
        ("bitmap", "raw", 0),
        ("all", "codebook", 1),
        ("like", "codebook", 1),
    ]


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("bits", [*range(2, 9), 12, 16])
def test_codes_of_every_width_times_scales(bits, per_channel):
    state = {
        name: on_grid(bits, 30, 9, 3, 3, per_channel=per_channel, density=share) for name, share in (("a", 1.0), ("b", 0.1))
    }
    found = forms(state, dict.fromkeys(state, Grid(bits, per_channel)))
    widths = {width for _, _, width in found}
    assert {values for _, values, _ in found} == {"scaled"} and widths <= {bits, 8 if bits <= 8 else 16}
    assert found[1][0] == "gaps"


def test_empty_channels_and_those_below_the_least_scale_stay_on_the_grid():
    weight = on_grid(8, 6, 64)
    weight[0], weight[1] = 0, torch.arange(64) * 1e-12
    assert forms({"w": weight}, {"w": Grid(8, True)}) == [("all", "scaled", 8)]


def test_what_is_not_on_its_grid_is_stored_as_it_is():
    weight = on_grid(8, 20, 30)
    weight[3, 4] = weight[3, 4] * 1.001 + 1e-4
    assert forms({"w": weight}, {"w": Grid(8, True)}) == [("all", "raw", 0)]


def test_nan_and_infinity_come_back():
    weight = torch.randn(9, 9)
    weight[1, 1], weight[2, 2] = torch.nan, torch.inf
    assert forms({"w": weight, "nan": torch.full((9,), torch.nan)}) == [("all", "raw", 0)] * 2


def test_a_type_that_cannot_be_packed_is_named():
    with pytest.raises(
        AdamasError, match="w: expected a type of numbers that can be packed, got complex64. Valid: bfloat16, bool"
    ):
        arranged({"w": torch.ones(2, dtype=torch.complex64)}, {})


# ---------------------------------------------------------------------------------------------- what may not be read

WEIGHT = sparse(20, 30, density=0.1)
CONTRADICTIONS = [
    ("w", "count", 601, "w: expected at most 600 positions, the index asks for 601"),
    ("w", "shape", (2000, 30), "expected tensors of at most 100,000 bytes in so small a file, the index asks for 240,000"),
    ("w", "shape", (2**62,) * 8, "expected tensors of at most 100,000 bytes"),
    ("w", "bytes", 2**40, "expected positions of shape .*, as the index says, got"),
    ("w", "count", 3, "expected weights.float32 of shape .*, as the index says, got"),
    ("w", "dtype", "float31", "w: expected a known type of numbers, got 'float31'; did you mean 'float32'"),
    ("w", "dtype", "int64", "expected weights.float32 of shape None, as the index says"),
    ("mask", "like", 1, "mask: expected positions like those of an earlier tensor, got number 1"),
    ("mask", "like", 2**62, "mask: expected positions like those of an earlier tensor"),
    ("mask", "shape", (300, 1), "mask: expected positions like those of an earlier tensor, got number 0"),
    ("mask", "levels", 2**40, "expected scales.bool of shape .*, as the index says, got"),
    ("mask", "values", "scaled", "mask: expected scales for equal runs of float32, got 1 for bool"),
    ("mask", "width", 16, "expected codes of shape .*, as the index says, got"),
]


@pytest.mark.parametrize(("name", "field", "value", "sentence"), CONTRADICTIONS)
def test_an_index_that_contradicts_the_parts_or_asks_for_too_much_is_refused_before_decoding(name, field, value, sentence):
    entries, parts = arranged({"w": WEIGHT} | ({"mask": WEIGHT != 0} if name == "mask" else {}), {})
    entries[-1] = replace(entries[-1], **{field: value})
    with pytest.raises(AdamasError, match=sentence):
        check(entries, parts, 100_000)


def test_parts_of_another_kind_or_that_nothing_asks_for_are_refused():
    entries, parts = arranged({"w": WEIGHT}, {})
    with pytest.raises(AdamasError, match="expected more of shape None, as the index says, got"):
        check(entries, parts | {"more": np.zeros(3, np.uint8)}, LIMIT)
    with pytest.raises(AdamasError, match="expected positions of shape"):
        check(entries, parts | {"positions": parts["positions"].view(np.int8)}, LIMIT)
    with pytest.raises(AdamasError, match="expected weights.float32 of shape"):
        check(entries, {"positions": parts["positions"], "codes": parts["codes"]}, LIMIT)


@pytest.mark.parametrize(
    ("state", "grids", "part", "sentence"),
    [
        ({"w": WEIGHT}, {}, "positions", "w: expected .* positions below 600, got"),
        ({"w": WEIGHT.sign() * (WEIGHT.abs() > 1) + 2}, {}, "codes", "w: expected codes below 3, got 255"),
        ({"w": on_grid(8, 20, 30)}, {"w": Grid(8, True)}, "codes", "w: expected codes below 255, got 255"),
    ],
)
def test_parts_that_contradict_the_index_are_refused(state, grids, part, sentence):
    entries, parts = arranged(state, grids)
    entries = [replace(entry, width=8) if part == "codes" else entry for entry in entries]
    parts[part] = np.full(600 if part == "codes" else parts[part].shape, 255, np.uint8)
    check(entries, parts, LIMIT)
    with pytest.raises(AdamasError, match=sentence):
        state_of(entries, parts)


# --------------------------------------------------------------------------------------------------------- the bound


def test_entropy_by_hand():
    assert entropy(np.array([3, 3, 3])) == 0 and entropy(np.array([], np.uint8)) == 0
    assert entropy(np.array([0, 0, 1, 2])) == 1.5


def test_the_bound_by_hand():
    state = {"w": torch.zeros(8, 8), "same": torch.zeros(8, 8, dtype=torch.bool)}
    state["w"].view(-1)[::4] = torch.tensor([1.0, 1, -1, -1] * 4)
    state["same"] |= state["w"] != 0
    entries, parts = arranged(state, {})
    positions = 64 * (2 * 0.25 + 0.75 * np.log2(4 / 3))
    codes = 16  # of two levels, equally often
    levels = 2.0  # the last byte of -1 and 1 differs, the others do not
    assert [entry.values for entry in entries] == ["codebook", "codebook"]
    assert entropy_bound(entries, parts) == int(np.ceil((positions + codes + levels) / 8))
    assert sum(len(content.codes) for _, content in contents(entries, parts) if content.codes is not None) == 32


def test_an_entry_says_what_it_needs():
    entry = Entry("w", "float32", (10, 10), "bitmap", "codebook", count=9, width=3, levels=7)
    assert entry.needs() == {"positions": 13, "codes": 4, "scales.float32": 7} and entry.nbytes == 400
    assert Entry("b", "bool", (3,)).needs() == {"positions": 0, "codes": 0, "vectors.bool": 3}
