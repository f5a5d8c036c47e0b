from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from adamas.data.svhn import Svhn
from adamas.errors import AdamasError

COUNTS = {"train": 4, "test": 3, "extra": 2}


def arrays(name: str) -> dict[str, np.ndarray]:
    """Images (32, 32, 3, N) and labels (N, 1): 10, 1, 2, ... in the way of the published files."""
    count = COUNTS[name]
    pixels = np.random.default_rng(count).integers(0, 256, (32, 32, 3, count), np.uint8)
    return {"X": pixels, "y": np.array([[10], [1], [2], [9]], np.uint8)[:count]}


def write(folder: Path, *, compressed: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in COUNTS:
        savemat(folder / f"{name}_32x32.mat", arrays(name), do_compression=compressed)
    return folder


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("place", [".", "SVHN"])
def test_label_10_is_the_digit_0_and_images_are_turned(tmp_path, place, compressed):
    write(tmp_path / place, compressed=compressed)
    train, test, classes = Svhn().read(tmp_path)
    assert classes == tuple("0123456789")
    assert train.pixels.shape == (4, 3, 32, 32) and test.pixels.shape == (3, 3, 32, 32) and train.pixels.is_contiguous()
    assert train.labels.tolist() == [0, 1, 2, 9] and test.labels.tolist() == [0, 1, 2]
    assert train.pixels[3, 1, 5, 7] == arrays("train")["X"][5, 7, 1, 3]  # image, channel, row, column
    assert (train.pixels.numpy() == arrays("train")["X"].transpose(3, 2, 0, 1)).all()


def test_extra_images_follow_the_training_images(tmp_path):
    train, test, _ = Svhn(extra=True).read(write(tmp_path))
    assert train.labels.tolist() == [0, 1, 2, 9, 0, 1] and len(test) == 3
    assert (train.pixels[4:].numpy() == arrays("extra")["X"].transpose(3, 2, 0, 1)).all()


def test_missing_files_are_named(tmp_path):
    with pytest.raises(AdamasError, match=rf"none of {tmp_path}/train_32x32.mat, {tmp_path}/SVHN/train_32x32.mat; put"):
        Svhn().read(tmp_path)
    (write(tmp_path) / "extra_32x32.mat").unlink()
    Svhn().read(tmp_path)
    with pytest.raises(AdamasError, match=r"none of .*extra_32x32.mat"):
        Svhn(extra=True).read(tmp_path)


X_WANTED = r"expected X to be uint8 of shape \(32, 32, 3, N\)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": np.zeros((32, 32, 3, 4), np.int16)}, rf"{X_WANTED}, got int16 of shape \(32, 32, 3, 4\)"),
        ({"X": np.zeros((4, 32, 32, 3), np.uint8)}, rf"{X_WANTED}, got uint8 of shape \(4, 32, 32, 3\)"),
        ({"X": np.zeros((32, 32), np.uint8)}, rf"{X_WANTED}, got uint8 of shape \(32, 32\)"),
        ({"X": None}, rf"{X_WANTED}, got nothing"),
        ({"y": None}, r"expected y to be integers of shape \(4, 1\), got nothing"),
        ({"y": np.ones((3, 1), np.uint8)}, r"expected y to be integers of shape \(4, 1\), got uint8 of shape \(3, 1\)"),
        ({"y": np.array([[1], [2], [11], [3]], np.uint8)}, r"expected labels in 1\.\.10 \(10 is the digit 0\), got 11"),
        ({"y": np.array([[1], [0], [1], [3]], np.int64)}, r"expected labels in 1\.\.10 \(10 is the digit 0\), got 0"),
        ({"y": np.ones((4, 1))}, "expected a readable MATLAB 5 file of integer arrays, got KeyError; copy it again"),
    ],
)
def test_other_content_is_refused(tmp_path, change, message):
    path = write(tmp_path) / "train_32x32.mat"
    savemat(path, {name: value for name, value in (arrays("train") | change).items() if value is not None})
    with pytest.raises(AdamasError, match=f"^{path}: {message}"):
        Svhn().read(tmp_path)


def test_without_a_data_directory_the_published_files_are_downloaded(tmp_path, monkeypatch):
    source, asked = write(tmp_path / "source"), {}

    def retrieve(url: str, known_hash: str, fname: str, path: Path) -> str:
        asked[url.removeprefix("http://ufldl.stanford.edu/housenumbers/")] = known_hash.removeprefix("md5:")
        path.mkdir(parents=True, exist_ok=True)
        return str(shutil.copy(source / fname, path / fname))

    monkeypatch.setenv("ADAMAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("pooch.retrieve", retrieve)
    train, _, _ = Svhn(extra=True).read(None)
    assert len(train) == 6
    assert asked == {
        "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
        "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
        "extra_32x32.mat": "a93ce644f1a588dc4d68dda5feec44a7",
    }
