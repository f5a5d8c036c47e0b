"""What the tests of several readers share: real data when it is there, and pickles as Python 2 wrote them."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def real_data() -> Path:
    """A directory of real data sets: ADAMAS_TEST_DATA, or one called `data` in a neighbour of the repository; else a skip."""
    beside = [folder.parent for folder in Path(__file__).parents[3].glob("*/data/MNIST")]
    named = [Path(os.environ["ADAMAS_TEST_DATA"])] if "ADAMAS_TEST_DATA" in os.environ else []
    for folder in named + beside:
        return folder
    pytest.skip("no real data: set ADAMAS_TEST_DATA")


def _python2(value: object) -> bytes:
    """The instructions that Python 2's pickle wrote (protocol 2) for dicts, lists, small integers, byte strings and arrays."""
    if isinstance(value, dict):
        return b"}(" + b"".join(_python2(key) + _python2(item) for key, item in value.items()) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(_python2, value)) + b"e"
    if isinstance(value, int):
        return b"K" + bytes([value]) if 0 <= value < 256 else b"J" + struct.pack("<i", value)
    if isinstance(value, bytes):
        return b"T" + struct.pack("<I", len(value)) + value
    assert isinstance(value, np.ndarray)
    dtype = b"cnumpy\ndtype\n" + _python2(value.dtype.str[1:].encode()) + b"K\x00K\x01\x87R"
    dtype += b"(K\x03" + _python2(b"|") + b"NNN" + _python2(-1) * 2 + b"K\x00tb"
    shape = b"(" + b"".join(map(_python2, value.shape)) + b"t"
    blank = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + _python2(b"b") + b"\x87R"
    return blank + b"(K\x01" + shape + dtype + b"\x89" + _python2(value.tobytes()) + b"tb"


@pytest.fixture
def python2_pickle():
    """A function from a value to the bytes of its Python 2 pickle."""
    return lambda value: b"\x80\x02" + _python2(value) + b"."
