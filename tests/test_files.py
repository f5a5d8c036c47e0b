"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path

import pytest

from adamas.errors import AdamasError
from adamas.files import read_json, write, write_json


def test_directories_are_made_and_what_was_there_is_replaced(tmp_path):
    path = write_json(tmp_path / "a" / "b" / "card.json", {"old": 1})
    assert write_json(path, {"new": [1, "ä"]}) == path
    assert read_json(path) == {"new": [1, "ä"]}
    assert os.listdir(path.parent) == ["card.json"]


def full_disk(temporary: Path) -> None:
    temporary.write_bytes(b"half")
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    path = write_json(tmp_path / "card.json", {"old": 1})
    with pytest.raises(OSError, match="No space left"):
        write(path, full_disk)
    assert read_json(path) == {"old": 1} and os.listdir(tmp_path) == ["card.json"]


def test_a_failed_move_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = write_json(tmp_path / "card.json", {"old": 1})

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="No space left"):
        write_json(path, {"new": 1})
    assert read_json(path) == {"old": 1} and os.listdir(tmp_path) == ["card.json"]


def test_what_json_cannot_say_is_not_written(tmp_path):
    path = write_json(tmp_path / "card.json", {"old": 1})
    for value in ({"x": math.nan}, {"x": object()}):
        with pytest.raises((ValueError, TypeError)):
            write_json(path, value)
    assert read_json(path) == {"old": 1}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, r"card\.json: expected a file, there is none"),
        (b"{", r"card\.json: expected JSON, got Expecting property name"),
        (b"\xff\xfe", r"card\.json: expected JSON, got .*can't decode"),
        (b"[1]", r"card\.json: expected a JSON object, got list"),
    ],
)
def test_a_file_that_is_no_json_object_is_said(tmp_path, content, sentence):
    path = tmp_path / "card.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AdamasError, match=sentence):
        read_json(path)
