from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from adamas.data.npz import Npz
from adamas.errors import AdamasError

NHWC = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), np.uint8)
GOOD = {"x_train": NHWC, "y_train": np.array([0, 1, 2, 0]), "x_test": NHWC[:2], "y_test": np.array([2, 1])}


def save(folder: Path, **change: object) -> Path:
    """The good arrays, some of them changed; None leaves one out."""
    np.savez(folder / "data.npz", **{key: value for key, value in (GOOD | change).items() if value is not None})
    return folder


@pytest.mark.parametrize("writer", [np.savez, np.savez_compressed])
def test_channels_last_is_turned(tmp_path, writer):
    writer(tmp_path / "mine.npz", **GOOD)
    train, test, classes = Npz(path="mine.npz").read(tmp_path)
    assert train.pixels.shape == (4, 3, 5, 6) and train.pixels.dtype == torch.uint8 and train.pixels.is_contiguous()
    assert train.pixels[1, 2, 3, 4] == NHWC[1, 3, 4, 2]
    assert train.labels.tolist() == [0, 1, 2, 0] and test.labels.tolist() == [2, 1] and classes == ("0", "1", "2")


def test_channels_first_and_grey(tmp_path):
    first = np.ascontiguousarray(NHWC.transpose(0, 3, 1, 2))
    train, _, _ = Npz().read(save(tmp_path, x_train=np.asfortranarray(first), x_test=first[:2]))
    assert (train.pixels.numpy() == first).all()
    train, _, _ = Npz().read(save(tmp_path, x_train=NHWC[..., 0], x_test=NHWC[:2, ..., :1]))
    assert train.pixels.shape == (4, 1, 5, 6) and (train.pixels[:, 0].numpy() == NHWC[..., 0]).all()


def test_floats_in_0_1_stay_floats(tmp_path):
    train, test, _ = Npz().read(save(tmp_path, x_train=NHWC / 255, x_test=(NHWC[:2] / 255).astype(">f4")))
    assert train.pixels.dtype == test.pixels.dtype == torch.float32
    assert torch.equal(train.pixels[:2], test.pixels) and train.pixels[0, 0, 0, 0] == np.float32(NHWC[0, 0, 0, 0] / 255)


def test_path_is_relative_to_the_data_or_the_working_directory(tmp_path, monkeypatch):
    save(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert len(Npz().read(None)[0]) == len(Npz(path=str(tmp_path / "data.npz")).read(Path("elsewhere"))[0]) == 4
    with pytest.raises(
        AdamasError, match=r"expected a .npz file at elsewhere/data.npz, found none; correct the dataset's 'path'"
    ):
        Npz().read(Path("elsewhere"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y_test": None, "x_test": None}, "expected the arrays x_train, y_train, x_test, y_test, found no x_test, y_test"),
        ({"x_train": np.array([{}, 1], object)}, r"expected x_train to be uint8, or floats in \[0, 1\], got dtype object"),
        ({"y_train": np.array(["a"], object)}, "expected y_train to be integers, got dtype object"),
        ({"y_train": np.ones(4)}, "expected y_train to be integers, got dtype float64"),
        ({"x_test": NHWC[:2].astype(np.int32)}, r"expected x_test to be uint8, or floats in \[0, 1\], got dtype int32"),
        ({"x_test": NHWC[:2].astype(np.uint16)}, r"expected x_test to be uint8, or floats in \[0, 1\], got dtype uint16"),
        ({"x_train": NHWC[0]}, "expected one label per image and at least one image, got 5 images and 4 labels"),
        ({"x_train": NHWC[0, 0]}, r"expected x_train of shape \(N, H, W\), .* got \(6, 3\)"),
        ({"x_train": np.zeros((4, 5, 6, 2), np.uint8)}, r"with C = 1 or 3, got \(4, 5, 6, 2\)"),
        ({"x_train": np.zeros((4, 3, 6, 3), np.uint8)}, r"with C = 1 or 3, got \(4, 3, 6, 3\)"),
        ({"x_train": NHWC / 127.5}, r"expected x_train in \[0, 1\], got .*; do not normalise the images"),
        ({"x_test": np.full((2, 5, 6), np.nan)}, r"expected x_test in \[0, 1\], got nan"),
        ({"y_train": np.array([[0], [1], [2], [0]])}, r"of shape \(N,\), got \(4, 1\) and \(2,\)"),
        ({"y_train": np.zeros(4, int)}, "expected labels from 0 for 2 to 4 classes, got a largest y_train of 0"),
        ({"y_train": np.array([0, 1, 2, 2**62])}, "expected labels from 0 for 2 to 4 classes, got a largest y_train of 4611"),
        ({"y_train": np.array([0, 1, -1, 2])}, r"y_train: expected labels in 0\.\.2, got -1 for image 2"),
        ({"y_test": np.array([0, 3])}, r"y_test: expected labels in 0\.\.2, got 3 for image 1"),
        ({"y_test": np.array([0])}, "y_test: expected one label per image and at least one image, got 2 images and 1 labels"),
        ({"x_train": NHWC[:0], "y_train": np.zeros(0, int)}, r"expected y_train and y_test of shape \(N,\), got \(0,\)"),
    ],
)
def test_other_content_is_refused(tmp_path, change, message):
    with pytest.raises(AdamasError, match=f"^{tmp_path}/data.npz: .*{message}"):
        Npz().read(save(tmp_path, **change))


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "bent", "npy"])
def test_a_broken_file_is_one_sentence(tmp_path, damage):
    path = save(tmp_path) / "data.npz"
    whole, npy = path.read_bytes(), io.BytesIO()
    np.save(npy, NHWC)
    path.write_bytes(
        {
            "empty": b"",
            "text": b"hello",
            "cut": whole[:-50],
            "bent": whole[:150] + bytes(60) + whole[210:],
            "npy": npy.getvalue(),
        }[damage]
    )
    with pytest.raises(AdamasError, match=f"^{path}: expected a readable .npz file, got [A-Za-z]+; save it again$"):
        Npz().read(tmp_path)


def hostile(path: Path, shape: tuple[int, ...], size: int, compression: int) -> None:
    """A file whose x_train declares `shape` and holds `size` zeros."""
    save(path.parent)
    with zipfile.ZipFile(path) as archive:
        others = {name: archive.read(name) for name in archive.namelist() if name != "x_train.npy"}
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in others.items():
            archive.writestr(name, content)
        archive.writestr("x_train.npy", header.getvalue() + bytes(size))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_declared_size_that_the_file_cannot_hold_is_refused_unread(tmp_path, compression):
    hostile(tmp_path / "data.npz", (10**6, 1000, 1000, 3), 1000, compression)
    tracemalloc.start()
    with pytest.raises(AdamasError, match=r"x_train declares 3,000,000,000,000 bytes, expected at most [\d,]+ from the file's"):
        Npz().read(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def test_a_bomb_is_bounded_by_the_length_of_the_file(tmp_path):
    hostile(tmp_path / "data.npz", (1000, 100, 100, 3), 30_000_000, zipfile.ZIP_LZMA)
    with pytest.raises(AdamasError, match=r"x_train declares 30,000,000 bytes, expected at most [\d,]+ from the file's"):
        Npz().read(tmp_path)
