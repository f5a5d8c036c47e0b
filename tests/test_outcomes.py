"""Outcomes on disk: what is kept, refused and merged."""

from __future__ import annotations

import json

import pytest

from adamas.errors import AdamasError
from adamas.outcomes import Chunk, Store, content_key

CHUNK = Chunk(4, 3, {"model": "110", "file": "100"}, [{"model": "10-", "file": "0--"}], [0.5], ["a flag"])


def test_what_was_saved_comes_back(tmp_path):
    store = Store(tmp_path / "state", "k")
    assert store.load(4, 3) == Chunk(4, 3)
    store.save(CHUNK)
    assert store.load(4, 3) == CHUNK
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["images-0000004.json"]


def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Store(None, "k").save(CHUNK)
    Store(None, "k").merge([CHUNK], ["pgd"])
    assert Store(None, "k").load(4, 3) == Chunk(4, 3) and not list(tmp_path.iterdir())


def test_the_state_of_another_evaluation_is_refused(tmp_path):
    Store(tmp_path, "k").save(CHUNK)
    with pytest.raises(AdamasError, match=r"expected the state of this evaluation, got another's .*choose another --state"):
        Store(tmp_path, "other").load(4, 3)
    with pytest.raises(AdamasError, match="expected 2 images from 4, got 3 from 4"):
        Store(tmp_path, "k").load(4, 2)


@pytest.mark.parametrize(
    "change",
    [
        {"clean": {"model": "11"}}, {"clean": {}}, {"clean": {"model": "1x0"}}, {"clean": 3}, {"attacks": [{"model": "1"}]},
        {"seconds": []}, {"n": None}, {"more": 1}, {"attacks": "abc"},
    ],
)  # fmt: skip
def test_damaged_files_are_named(tmp_path, change):
    store = Store(tmp_path, "k")
    store.save(CHUNK)
    path = next(tmp_path.iterdir())
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(AdamasError, match=r"images-0000004\.json: expected "):
        store.load(4, 3)


def test_merged_outcomes_are_the_letters_in_order_and_no_times(tmp_path):
    first = Chunk(0, 4, {"model": "1111"}, [{"model": "0011"}, {"model": "--11"}], [1.0, 2.0])
    second = Chunk(4, 2, {"model": "01"}, [{"model": "-1"}, {"model": "-0"}], [9.0, 9.0])
    Store(tmp_path, "k").merge([first, second], ["pgd", "square"])
    assert json.loads((tmp_path / "outcomes.json").read_text()) == {
        "key": "k",
        "clean": {"model": "111101"},
        "attacks": [{"attack": "pgd", "model": "0011-1"}, {"attack": "square", "model": "--11-0"}],
    }


def test_keys_tell_values_apart():
    assert content_key({"a": 1}, 2) == content_key({"a": 1}, 2) != content_key({"a": 2}, 2)
