from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from adamas.data import cifar
from adamas.data.cifar import Cifar10, Cifar100
from adamas.errors import AdamasError

TEN = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")


def pixels(seed: int, count: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), np.uint8)


def binary10(folder: Path) -> Path:
    """Six files of two records; file i has the labels i and 9."""
    folder.mkdir(parents=True)
    for i, name in enumerate(TEN):
        records = np.concatenate([np.array([[i], [9]], np.uint8), pixels(i)], axis=1)
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    return folder


def python10(folder: Path, dump) -> Path:
    folder.mkdir(parents=True)
    for i, name in enumerate(TEN):
        (folder / name).write_bytes(dump({b"batch_label": b"b", b"labels": [i, 9], b"data": pixels(i), b"filenames": [b"x"]}))
    return folder


def hundred(folder: Path, *, dump=None) -> Path:
    """Two files of two records; coarse labels 3 and 19, fine labels 99 and 0."""
    folder.mkdir(parents=True)
    for i, name in enumerate(("train", "test")):
        if dump:
            content = dump({b"coarse_labels": [3, 19], b"fine_labels": [99, 0], b"data": pixels(i)})
            (folder / name).write_bytes(content)
        else:
            records = np.concatenate([np.array([[3, 99], [19, 0]], np.uint8), pixels(i)], axis=1)
            (folder / f"{name}.bin").write_bytes(records.tobytes())
    return folder


def check10(data_dir: Path | None) -> None:
    train, test, classes = Cifar10().read(data_dir)
    assert train.pixels.shape == (10, 3, 32, 32) and test.pixels.shape == (2, 3, 32, 32)
    assert train.pixels.is_contiguous() and test.pixels.is_contiguous()
    assert train.labels.tolist() == [0, 9, 1, 9, 2, 9, 3, 9, 4, 9] and test.labels.tolist() == [5, 9]
    assert (train.pixels.numpy().reshape(10, 3072) == np.concatenate([pixels(i) for i in range(5)])).all()
    assert len(classes) == 10 and classes[0] == "airplane" and classes[9] == "truck"


@pytest.mark.parametrize("folder", ["cifar-10-batches-bin", "."])
def test_cifar10_binary(tmp_path, folder):
    binary10(tmp_path / "data" / folder)
    check10(tmp_path / "data")


@pytest.mark.parametrize("folder", ["cifar-10-batches-py", "."])
def test_cifar10_python(tmp_path, folder, python2_pickle):
    python10(tmp_path / "data" / folder, python2_pickle)
    check10(tmp_path / "data")


def test_cifar10_pickled_again_by_python_3(tmp_path):
    python10(tmp_path / "cifar-10-batches-py", lambda value: pickle.dumps(value, protocol=4))
    check10(tmp_path)


def test_the_planes_are_red_green_blue_in_rows(tmp_path):
    folder = binary10(tmp_path / "cifar-10-batches-bin")
    (folder / "test_batch.bin").write_bytes(bytes([7]) + bytes([1] * 1024 + [2] * 1024 + [3] * 992 + list(range(32))))
    _, test, _ = Cifar10().read(tmp_path)
    assert test.pixels[0, :, 0, 0].tolist() == [1, 2, 3] and test.pixels[0, 2, 31].tolist() == list(range(32))


@pytest.mark.parametrize("version", ["binary", "python"])
def test_cifar100_fine_and_coarse(tmp_path, version, python2_pickle):
    hundred(tmp_path / f"cifar-100-{version}", dump=python2_pickle if version == "python" else None)
    train, test, classes = Cifar100().read(tmp_path)
    assert train.labels.tolist() == test.labels.tolist() == [99, 0] and len(classes) == 100
    assert (classes[0], classes[99]) == ("apple", "worm") and list(classes) == sorted(set(classes))
    train, _, classes = Cifar100(labels="coarse").read(tmp_path)
    assert train.labels.tolist() == [3, 19] and len(classes) == 20
    assert (classes[0], classes[19]) == ("aquatic_mammals", "vehicles_2") and list(classes) == sorted(set(classes))
    assert (train.pixels.numpy().reshape(2, 3072) == pixels(0)).all()


def test_cifar100_has_two_kinds_of_labels():
    with pytest.raises(AdamasError, match=r"'fin'; did you mean 'fine'\? Valid: coarse, fine"):
        Cifar100(labels="fin")  # type: ignore[arg-type]


def test_a_folder_named_train_is_not_the_file_train(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(AdamasError, match=f"found none of .*cifar-100-python/train, .*, {tmp_path}/train; put the file"):
        Cifar100().read(tmp_path)


@pytest.mark.parametrize("size", [0, 3072, 3074, 6145])
def test_a_length_that_is_no_multiple_of_a_record_is_refused(tmp_path, size):
    path = binary10(tmp_path / "cifar-10-batches-bin") / "data_batch_3.bin"
    path.write_bytes(bytes(size))
    with pytest.raises(AdamasError, match=f"^{path}: expected a multiple of 3,073 bytes .one record., got {size:,}; copy it"):
        Cifar10().read(tmp_path)


def test_a_label_out_of_range_names_file_and_image(tmp_path):
    folder = hundred(tmp_path / "cifar-100-binary")
    (folder / "test.bin").write_bytes(bytes([20, 3]) + bytes(3072))
    with pytest.raises(AdamasError, match=r"test.bin: expected labels in 0\.\.19, got 20 for image 0"):
        Cifar100(labels="coarse").read(tmp_path)
    Cifar100(labels="fine").read(tmp_path)


def test_a_missing_batch_is_named(tmp_path):
    folder = binary10(tmp_path / "cifar-10-batches-bin")
    (folder / "data_batch_4.bin").unlink()
    with pytest.raises(AdamasError, match=f"found none of {folder}/data_batch_4.bin; put the file"):
        Cifar10().read(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({b"data": [1]}, r"expected 'data' to be uint8 of shape \(N, 3072\), got a list"),
        ({b"data": np.zeros((2, 3), np.uint8)}, r"got shape \(2, 3\)"),
        ({b"labels": b"ab"}, "expected 'labels' to be a list of small integers, got a str"),
        ({b"labels": [1, b"x"]}, "expected 'labels' to be a list of small integers, got a list"),
        ({b"labels": [1, -1]}, "expected 'labels' to be a list of small integers"),
        ({b"labels": [1]}, "expected one label per image and at least one image, got 2 images and 1 labels"),
        ({b"labels": [1, 10]}, r"expected labels in 0\.\.9, got 10 for image 1"),
    ],
)
def test_a_dictionary_with_other_content_is_refused(tmp_path, python2_pickle, change, message):
    folder = python10(tmp_path / "cifar-10-batches-py", python2_pickle)
    (folder / "data_batch_1").write_bytes(python2_pickle({b"labels": [0, 1], b"data": pixels(0)} | change))
    with pytest.raises(AdamasError, match=f"^{folder}/data_batch_1: .*{message}"):
        Cifar10().read(tmp_path)


def test_a_dictionary_without_labels_is_refused(tmp_path, python2_pickle):
    folder = python10(tmp_path / "cifar-10-batches-py", python2_pickle)
    (folder / "test_batch").write_bytes(python2_pickle({b"data": pixels(0)}))
    with pytest.raises(AdamasError, match="expected 'labels' to be a list of small integers, got nothing"):
        Cifar10().read(tmp_path)


def test_without_a_data_directory_the_archive_is_downloaded_once(tmp_path, monkeypatch):
    binary10(tmp_path / "source" / "cifar-10-batches-bin")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        tar.add(tmp_path / "source", arcname=".")
    asked = []

    def retrieve(url: str, known_hash: str, fname: str, path: Path) -> str:
        asked.append((url, known_hash))
        path.mkdir(parents=True, exist_ok=True)
        (path / fname).write_bytes(archive.getvalue())
        return str(path / fname)

    monkeypatch.setattr("pooch.retrieve", retrieve)
    monkeypatch.setenv("ADAMAS_CACHE", str(tmp_path / "cache"))
    check10(None)
    check10(None)
    assert asked == [("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", "md5:c32a1d4ab5d03f1284b67883e8d87530")]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["cifar-10-batches-bin"]


def test_the_published_archive_of_cifar100():
    published = cifar._CIFAR100.published
    assert published.url == "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
    assert published.md5 == "03b5dce01913d631647c71ecec9e9cb8" and published.unpacks == cifar._CIFAR100.binary


def test_real_cifar10_is_read_to_the_byte(real_data):
    train, test, _ = Cifar10().read(real_data)
    assert train.pixels.shape == (50_000, 3, 32, 32) and test.pixels.shape == (10_000, 3, 32, 32)
    assert train.labels[:8].tolist() == [6, 9, 9, 4, 1, 1, 2, 7] and test.labels[:5].tolist() == [3, 8, 8, 0, 6]
    assert train.labels.bincount().tolist() == [5000] * 10 and test.labels.bincount().tolist() == [1000] * 10
    digest = hashlib.md5()
    for label, image in zip(test.labels.tolist(), test.pixels.numpy(), strict=True):
        digest.update(bytes([label]) + image.tobytes())
    assert digest.hexdigest() == "803d5f7f4d78ea53de84dbe85f74fb6d"  # of test_batch.bin
    assert hashlib.md5(train.pixels.numpy().tobytes()).hexdigest() == "11af95666bd6fd7846144e768325bf13"
