"""What every registered data set promises."""

from __future__ import annotations

import pytest
import torch

from adamas.data import Data, Split, load
from adamas.errors import AdamasError
from adamas.registry import describe, find, plain, registered

DATASETS = registered("dataset")
WITH_FILES = sorted({*DATASETS} - {"digits"})


def test_the_data_sets_of_the_plan_are_there():
    expected = {"digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "svhn", "npz", "image_folder"}
    assert expected <= {*DATASETS}


@pytest.mark.parametrize("name", DATASETS)
def test_the_docstring_begins_with_one_sentence(name: str):
    sentence = describe(DATASETS[name])
    assert sentence.endswith(".") and ". " not in sentence and 20 < len(sentence) < 160
    assert sentence != describe(DATASETS[name].__mro__[1])


@pytest.mark.parametrize("name", DATASETS)
def test_the_settings_have_defaults_and_are_plain(name: str):
    dataset = find("dataset", name)()
    assert plain(dataset)["name"] == name
    assert all(value is None or isinstance(value, str | int | float | bool) for value in plain(dataset).values())


@pytest.mark.parametrize("name", WITH_FILES)
def test_a_missing_directory_is_the_users_mistake(name: str, tmp_path):
    missing = tmp_path / "nowhere"
    with pytest.raises(AdamasError, match=str(missing)) as error:
        DATASETS[name]().read(missing)
    assert str(error.value).startswith("expected ") and "\n" not in str(error.value) and "--data-dir" in str(error.value)


@pytest.mark.parametrize("name", WITH_FILES)
def test_an_empty_directory_names_what_was_tried(name: str, tmp_path):
    with pytest.raises(AdamasError, match="found none") as error:
        DATASETS[name]().read(tmp_path)
    assert f"{tmp_path}/" in str(error.value) and "--data-dir" in str(error.value)


def digits(seed: int = 0, **split: float) -> Data:
    return load(DATASETS["digits"](), Split(**split), seed=seed)  # type: ignore[arg-type]


def test_digits_are_uint8_and_complete():
    data = digits()
    assert (data.name, data.image_shape, len(data.classes)) == ("digits", (1, 8, 8), 10)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [1293, 144, 360]
    for part in (data.train, data.validation, data.test):
        assert part.pixels.dtype == torch.uint8 and part.pixels.shape[1:] == (1, 8, 8) and part.pixels.is_contiguous()
        assert part.labels.dtype == torch.int64 and part.labels.unique().tolist() == list(range(10))


def test_the_splits_are_disjoint():
    data = digits()
    rows = [{tuple(row) for row in part.pixels.flatten(1).tolist()} for part in (data.train, data.validation, data.test)]
    assert not rows[0] & rows[1] and not rows[0] & rows[2] and not rows[1] & rows[2]
    assert sum(map(len, rows)) == 1797


def test_the_split_is_identical_by_seed_and_the_test_set_always():
    one, same, other = digits(seed=1), digits(seed=1), digits(seed=2)
    assert torch.equal(one.train.pixels, same.train.pixels) and torch.equal(one.validation.labels, same.validation.labels)
    assert not torch.equal(one.validation.pixels, other.validation.pixels)
    assert torch.equal(one.test.pixels, other.test.pixels) and one.fingerprint == same.fingerprint == other.fingerprint
