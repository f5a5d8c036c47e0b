"""Bit packing by hand, and there and back for every width and odd lengths."""

from __future__ import annotations

import numpy as np
import pytest

from adamas.errors import AdamasError
from adamas.packed.bits import gaps, packed, places_after, places_in, unpacked


@pytest.mark.parametrize(
    ("width", "codes", "data"),
    [
        (0, [0, 0, 0], []),
        (1, [1, 0, 1, 1, 0, 0, 0, 0, 1], [0b10110000, 0b10000000]),
        (2, [3, 0, 1, 2, 3], [0b11000110, 0b11000000]),
        (3, [5, 2, 7], [0b10101011, 0b10000000]),
        (4, [15, 1, 8], [0xF1, 0x80]),
        (5, [31, 0, 17], [0b11111000, 0b00100010]),
        (6, [63, 1], [0b11111100, 0b00010000]),
        (7, [127, 1, 64], [0b11111110, 0b00000110, 0b00000000]),
        (8, [255, 0, 7], [255, 0, 7]),
        (12, [0xABC, 0x123], [0xAB, 0xC1, 0x23]),
        (16, [0xABCD], [0xAB, 0xCD]),
    ],
)
def test_codes_as_bytes_by_hand(width, codes, data):
    assert packed(np.array(codes), width).tolist() == data
    assert unpacked(np.array(data, np.uint8), len(codes), width).tolist() == codes


@pytest.mark.parametrize("width", range(1, 17))
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 1001])
def test_codes_come_back_at_every_width_and_length(width, count):
    codes = np.random.default_rng(0).integers(0, 2**width, count)
    data = packed(codes, width)
    assert data.dtype == np.uint8 and len(data) == -(-count * width // 8)
    assert np.array_equal(unpacked(data, count, width), codes)


@pytest.mark.parametrize(
    ("places", "data"),
    [
        ([], []),
        ([0], [0]),
        ([2, 3, 7], [2, 0, 3]),
        ([254], [254]),
        ([255], [255, 0]),
        ([0, 511], [0, 255, 255, 0]),
        ([510, 766], [255, 255, 0, 255, 0]),
    ],
)
def test_gaps_by_hand(places, data):
    assert gaps(np.array(places, np.int64)).tolist() == data
    assert places_after(np.array(data, np.uint8), len(places), 800).tolist() == places


def test_bitmaps_by_hand():
    assert places_in(np.array([0b10000001, 0b01000000], np.uint8), 3, 10).tolist() == [0, 7, 9]


@pytest.mark.parametrize(
    ("read", "data", "count", "length", "sentence"),
    [
        (places_after, [2, 0], 3, 9, "expected 3 positions below 9, got 2, the last at 3"),
        (places_after, [2, 255], 1, 2, "expected 1 positions below 2, got 1, the last at 2"),
        (places_after, [255], 1, 9, "expected 1 positions below 9, got 0, the last at None"),
        (places_in, [0b10000001], 1, 8, "expected 1 positions below 8, got 2, the last at 7"),
        (places_in, [0b10000001], 2, 7, "expected 2 positions below 7, got 2, the last at 7"),
    ],
)
def test_positions_that_contradict_their_count_or_length_are_refused(read, data, count, length, sentence):
    with pytest.raises(AdamasError, match=sentence):
        read(np.array(data, np.uint8), count, length)
