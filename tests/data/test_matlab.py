from __future__ import annotations

import random
import struct
import tracemalloc
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from adamas.data.matlab import read_mat
from adamas.errors import AdamasError

ARRAY = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
LIMIT = 10_000
BROKEN = "expected a readable MATLAB 5 file of integer arrays, got [A-Za-z]+; copy it again$"


def save(folder: Path, content: dict[str, object] | bytes, *, compressed: bool = False) -> Path:
    path = folder / "a.mat"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        savemat(path, content, do_compression=compressed)
    return path


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"])
def test_what_scipy_writes_is_read(tmp_path, kind, compressed):
    content = {"first": ARRAY.astype(kind) - 1, "cell": np.array([[{}]], object), "s": "text", "y": np.array([[7, 8]], kind)}
    found = read_mat(save(tmp_path, content, compressed=compressed), ("first", "y", "missing"), LIMIT)
    assert set(found) == {"first", "y"} and found["first"].dtype == np.dtype(kind)
    assert (found["first"] == content["first"]).all() and found["y"].tolist() == [[7, 8]]


@pytest.mark.parametrize("value", [np.ones((2, 2)), np.array([[1 + 1j]]), np.array([[{}]], object), "text"])
def test_an_array_that_is_not_of_integers_is_refused(tmp_path, value):
    with pytest.raises(AdamasError, match=BROKEN):
        read_mat(save(tmp_path, {"a": value}), ("a",), LIMIT)


def element(kind: int, body: bytes) -> bytes:
    return struct.pack("<II", kind, len(body)) + body + bytes(-len(body) % 8)


def matrix(*, flags: int = 9, shape: tuple[int, ...] = (2, 2), stored: int = 2, data: bytes = b"abcd") -> bytes:
    sizes = element(5, struct.pack(f"<{len(shape)}i", *shape))
    return element(14, element(6, struct.pack("<II", flags, 0)) + sizes + element(1, b"a") + element(stored, data))


def mat(*elements: bytes) -> bytes:
    return b"MATLAB 5.0".ljust(124) + b"\x00\x01IM" + b"".join(elements)


def squeezed(content: bytes) -> bytes:
    packed = zlib.compress(content)
    return struct.pack("<II", 15, len(packed)) + packed


def test_values_go_down_the_columns(tmp_path):
    for made in (matrix(), squeezed(matrix())):
        assert read_mat(save(tmp_path, mat(made)), ("a",), LIMIT)["a"].tolist() == [[97, 99], [98, 100]]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not matlab" * 20,
        mat(matrix()).replace(b"IM", b"MI"),
        b"MATLAB 7.3".ljust(124) + b"\x00\x02IM" + matrix(),
        mat(matrix())[:-1],
        mat(matrix(), b"abc"),
        mat(matrix(flags=0x809)),
        mat(matrix(flags=1)),
        mat(matrix(stored=9, data=bytes(32))),
        mat(matrix(stored=0x8002)),
        mat(matrix(data=b"abc")),
        mat(matrix(shape=(-2, -2))),
        mat(matrix(shape=())),
        mat(matrix(shape=(2**31 - 1, 2**31 - 1, 2**31 - 1))),
        mat(element(14, b"")),
        mat(squeezed(matrix()[:-1])),
        mat(squeezed(matrix() + b"x")),
        mat(squeezed(matrix())[:-1] + b"\0"),
        mat(squeezed(matrix())[:-6]),
        mat(element(15, zlib.compress(matrix())[:-3])),
        mat(squeezed(b"")),
        mat(squeezed(squeezed(matrix()))),
        mat(element(15, b"not zlib")),
    ],
)
def test_a_damaged_file_is_one_sentence(tmp_path, content):
    path = save(tmp_path, content)
    with pytest.raises(AdamasError, match=f"^{path}: {BROKEN}"):
        read_mat(path, ("a",), LIMIT)


@pytest.mark.parametrize("declared", [1_000, 50_000_000])
def test_a_bomb_is_inflated_no_further_than_it_declares_and_the_limit(tmp_path, declared):
    path = save(tmp_path, mat(squeezed(struct.pack("<II", 14, declared) + bytes(50_000_000))))
    tracemalloc.start()
    with pytest.raises(AdamasError, match=BROKEN):
        read_mat(path, ("a",), LIMIT)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_random_damage_gives_arrays_or_our_error(tmp_path):
    draw = random.Random(0)
    for whole in (mat(matrix(), matrix(stored=4, data=b"abcdefgh")), mat(squeezed(matrix()))):
        for _ in range(500):
            content = bytearray(whole)
            for _ in range(draw.randint(1, 3)):
                content[draw.randrange(120, len(content))] = draw.choice([0, 1, 2, 128, 255, draw.randrange(256)])
            with suppress(AdamasError):
                assert set(read_mat(save(tmp_path, bytes(content)), ("a",), LIMIT)) <= {"a"}
