from __future__ import annotations

import os
import pickle
import random
import struct
import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from adamas.data.pickles import read_pickle
from adamas.errors import AdamasError

ARRAY = np.arange(6, dtype=np.uint8).reshape(2, 3)


def save(folder: Path, content: bytes) -> Path:
    path = folder / "batch"
    path.write_bytes(content)
    return path


def test_python_2_pickles_are_read(tmp_path, python2_pickle):
    content = {b"data": ARRAY, b"labels": [0, 255], b"filenames": [b"a.png"], b"n": -1}
    found = read_pickle(save(tmp_path, python2_pickle(content)))
    assert (found.pop("data") == ARRAY).all()
    assert found == {"labels": [0, 255], "filenames": ["a.png"], "n": -1}


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("order", ["C", "F"])
def test_python_3_pickles_are_read_with_shared_values(tmp_path, protocol, order):
    shared = ["same"]
    array = np.asarray(ARRAY, order=order)
    content = {"data": array, "more": array, b"labels": [300, 2**40], "one": [1], "t": (), "n": [None, True, shared, shared]}
    found = read_pickle(save(tmp_path, pickle.dumps(content, protocol=protocol)))
    assert (found.pop("data") == ARRAY).all() and "more" in found
    assert found["labels"] == [300, 2**40] and found["one"] == [1] and found["t"] == ()
    assert found["n"] == [None, True, ["same"], ["same"]] and found["n"][2] is found["n"][3]


class Evil:
    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_malicious_pickle_executes_nothing(tmp_path, protocol):
    mark = tmp_path / "executed"
    content = pickle.dumps({"data": Evil(mark)}, protocol=protocol)
    with pytest.raises(AdamasError, match=r"^.*batch: expected a pickled dictionary .*; nothing in the file was executed"):
        read_pickle(save(tmp_path, content))
    assert not mark.exists()
    pickle.loads(content)
    assert mark.exists()  # the same bytes do harm elsewhere


DTYPE = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
BLANK = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x02cposix\nsystem\nU\x02id\x85R.", "got the function 'posix.system'"),
        (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.", "got the function 'builtins.eval'"),
        (b"\x80\x02}U\x01acnumpy\nndarray\nK\x09\x85Rs.", "got a call"),
        (b"\x80\x02}U\x01acnumpy\ndtype\nU\x01OK\x00K\x01\x87Rs.", "got an array of dtype 'O'"),
        (b"\x80\x02}U\x01a" + BLANK + b"(K\x01K\x01\x85U\x01OI00\nU\x01xtbs.", "got the instruction INT"),
        (b"\x80\x02}U\x01a" + BLANK + b"(K\x01K\x01\x85U\x01O\x89U\x01xtbs.", "got an array that is not uint8"),
        (b"\x80\x02}}b.", "got an object with a state"),
        (b"\x80\x02](K\x01e.", "got a list"),
        (b"\x80\x02K\x01.", "got a int"),
        (b"\x80\x02}K\x01K\x02s.", "got a key that is not text"),
        (b"\x80\x02}\x85)R.", "got a call"),
        (b"\x80\x02]U\x01aU\x01bs.", "got a list in place of a dict"),
        (b"\x80\x05\x96" + struct.pack("<Q", 1) + b"a.", "got the instruction BYTEARRAY8"),
        (b"(ios\nsystem\n.", "got the instruction INST"),
        (b"P1\n.", "got the instruction PERSID"),
    ],
)
def test_what_no_data_file_needs_is_refused_by_name(tmp_path, content, message):
    with pytest.raises(AdamasError) as error:
        read_pickle(save(tmp_path, content))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "ValueError"),
        (b"not a pickle", "ValueError"),
        (pickle.dumps({"data": [1, 2, 3]}, protocol=4)[:-4], "ValueError"),
        (b"\x80\x02h\x07.", "KeyError"),
        (b"\x80\x02\x85.", "IndexError"),
        (b"\x80\x02u.", "IndexError"),
        (b"\x80\x02T\xff\xff\xff\x7fabc.", "ValueError"),
        (b"\x80\x02}U\x01a" + BLANK + b"(K\x01K\x09\x85" + DTYPE + b"\x89U\x01xtbs.", "ValueError"),
        (
            b"\x80\x02}U\x01a" + BLANK + b"(K\x01\x8a\x0a" + b"\x7f" * 10 + b"\x85" + DTYPE + b"\x89U\x01xtbs.",
            "(Value|Overflow)Error",
        ),
    ],
)
def test_a_damaged_pickle_is_one_sentence(tmp_path, content, kind):
    with pytest.raises(AdamasError, match=f"batch: expected a readable, whole pickle, got {kind}; copy it again$"):
        read_pickle(save(tmp_path, content))


def test_declared_sizes_reserve_no_memory(tmp_path):
    hostile = b"\x80\x04]r\xff\xff\xff\xff0."  # memo number 2^32 - 1
    path = save(tmp_path, hostile + b"\x8e" + struct.pack("<Q", 2**40))
    tracemalloc.start()
    with pytest.raises(AdamasError):
        read_pickle(path)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_deep_nesting_does_not_exhaust_the_stack(tmp_path):
    with pytest.raises(AdamasError, match="got a key that is not text"):
        read_pickle(save(tmp_path, b"\x80\x02})" + b"\x85" * 200_000 + b"K\x01s."))


def test_random_damage_gives_a_dictionary_or_our_error(tmp_path, python2_pickle):
    whole, draw = python2_pickle({b"data": ARRAY, b"labels": [1, 2], b"names": [b"a", b"b"]}), random.Random(0)
    for _ in range(500):
        content = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            content[draw.randrange(len(content))] = draw.randrange(256)
        with suppress(AdamasError):
            assert isinstance(read_pickle(save(tmp_path, bytes(content))), dict)
