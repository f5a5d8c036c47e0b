from __future__ import annotations

import gzip
import hashlib
import shutil
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from adamas.data import fetch
from adamas.data.idx import FashionMnist, Mnist, read_idx
from adamas.errors import AdamasError

COUNTS = {"train": 5, "t10k": 3}


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


def images(part: str) -> np.ndarray:
    return np.random.default_rng(COUNTS[part]).integers(0, 256, (COUNTS[part], 28, 28), np.uint8)


def write(folder: Path, *, zipped: bool = False) -> Path:
    """Tiny files in the real format: 5 training images, labels 0..4, and 3 test images, labels 0..2."""
    folder.mkdir(parents=True)
    for part, count in COUNTS.items():
        for name, array in (("images-idx3", images(part)), ("labels-idx1", np.arange(count, dtype=np.uint8))):
            content = gzip.compress(idx(array)) if zipped else idx(array)
            (folder / f"{part}-{name}-ubyte{'.gz' if zipped else ''}").write_bytes(content)
    return folder


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(("dataset", "place"), [(Mnist, "MNIST/raw"), (FashionMnist, "FashionMNIST/raw"), (Mnist, ".")])
def test_files_are_found_where_torchvision_puts_them_or_flat(tmp_path, dataset, place, zipped):
    write(tmp_path / "data" / place, zipped=zipped)
    train, test, classes = dataset().read(tmp_path / "data")
    assert train.pixels.shape == (5, 1, 28, 28) and test.pixels.shape == (3, 1, 28, 28) and len(classes) == 10
    assert (train.pixels[:, 0].numpy() == images("train")).all() and (test.pixels[:, 0].numpy() == images("t10k")).all()
    assert train.labels.tolist() == [0, 1, 2, 3, 4] and test.labels.tolist() == [0, 1, 2]
    assert train.pixels.is_contiguous()


def test_gzip_is_known_by_content_not_by_name(tmp_path):
    path = tmp_path / "labels"
    path.write_bytes(gzip.compress(idx(np.arange(4, dtype=np.uint8))))
    assert read_idx(path, ()).tolist() == [0, 1, 2, 3]


def test_a_missing_file_names_every_path_that_was_tried(tmp_path):
    with pytest.raises(AdamasError) as error:
        Mnist().read(tmp_path)
    for place in ("MNIST/raw/", ""):
        for end in ("", ".gz"):
            assert f"{tmp_path}/{place}train-images-idx3-ubyte{end}" in str(error.value)
    assert "leave --data-dir out to download" in str(error.value)


def test_one_missing_file_of_four_is_named(tmp_path):
    folder = write(tmp_path / "MNIST" / "raw")
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(AdamasError, match=r"expected an IDX file, found none of .*raw/t10k-labels-idx1-ubyte"):
        Mnist().read(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected an IDX header of 8 bytes, got 0"),
        (b"\0\0\x08\x01\0", "expected an IDX header of 8 bytes, got 5"),
        (struct.pack(">II", 0x803, 2) + b"ab", "expected IDX magic number 2049, got 2051; images and labels may be swapped"),
        (struct.pack(">II", 0x801, 4) + b"abc", "expected 4 bytes after the IDX header, got 3"),
        (struct.pack(">II", 0x801, 4) + b"abcde", "expected 4 bytes after the IDX header, got more"),
        (struct.pack(">II", 0x801, 0), r"expected 1\.\.60,000 items of size \(\), got 0 of size \(\)"),
        (struct.pack(">II", 0x801, 2**32 - 1), r"expected 1\.\.60,000 items of size \(\), got 4,294,967,295"),
        (
            gzip.compress(struct.pack(">II", 0x801, 4) + b"abcd", mtime=0)[:-9],
            "expected a readable, whole IDX file, got EOFError",
        ),
        (b"\x1f\x8bnot gzip at all", "expected a readable, whole IDX file, got BadGzipFile"),
    ],
)
def test_a_bad_file_is_refused_in_one_sentence(tmp_path, content, message):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(AdamasError, match=f"^{path}: {message}"):
        read_idx(path, ())


def test_a_damaged_gzip_stream_is_refused(tmp_path):
    content = bytearray(gzip.compress(idx(images("train"))))
    content[40:60] = bytes(20)
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(AdamasError, match="expected a readable, whole IDX file"):
        read_idx(tmp_path / "file", (28, 28))


def test_images_of_another_size_are_refused_with_a_way_out(tmp_path):
    (tmp_path / "file").write_bytes(idx(np.zeros((2, 8, 8), np.uint8)))
    with pytest.raises(AdamasError, match=r"size \(28, 28\), got 2 of size \(8, 8\); data of another shape .* 'npz'"):
        read_idx(tmp_path / "file", (28, 28))


def test_image_and_label_counts_must_agree(tmp_path):
    folder = write(tmp_path / "MNIST" / "raw")
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(4, dtype=np.uint8)))
    with pytest.raises(AdamasError, match=r"expected as many labels as images, got 4 in .*labels.* and 5 in .*images"):
        Mnist().read(tmp_path)


def test_a_label_above_9_is_refused(tmp_path):
    folder = write(tmp_path / "MNIST" / "raw")
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(np.array([0, 1, 10, 3, 4], np.uint8)))
    with pytest.raises(AdamasError, match=r"train-labels-idx1-ubyte: expected labels in 0\.\.9, got 10 for image 2"):
        Mnist().read(tmp_path)


def test_a_gzip_bomb_is_read_no_further_than_it_declares(tmp_path):
    path = tmp_path / "bomb"
    path.write_bytes(gzip.compress(struct.pack(">II", 0x801, 4) + bytes(50_000_000), 1))
    tracemalloc.start()
    with pytest.raises(AdamasError, match="expected 4 bytes after the IDX header, got more"):
        read_idx(path, ())
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("dataset", "md5"),
    [
        (Mnist, "f68b3c2dcbeaaa9fbdd348bbdeb94873 d53e105ee54ea40749a09fcbcd1e9432 "
                "9fb629c4189551a2d022fa330f9573f3 ec29112dd5afa0611ce80d1b7f02629c"),
        (FashionMnist, "8d4fb7e6c68d591d4c3dfef9ec88bf0d 25c81989df183df01b3e8a0aad5dffbe "
                       "bef4ecab320f06d8554ea6380940ec79 bb300cfdad3c16e7a12a480ee83cd310"),
    ],
)  # fmt: skip
def test_without_a_data_directory_the_published_files_are_downloaded(tmp_path, monkeypatch, dataset, md5):
    source, asked = write(tmp_path / "source", zipped=True), []

    def retrieve(url: str, known_hash: str, fname: str, path: Path) -> str:
        asked.append(known_hash.removeprefix("md5:"))
        path.mkdir(parents=True, exist_ok=True)
        return str(shutil.copy(source / fname, path / fname))

    monkeypatch.setenv("ADAMAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("pooch.retrieve", retrieve)
    train, test, _ = dataset().read(None)
    assert (len(train), len(test)) == (5, 3) and asked == md5.split()
    assert fetch.cache() == tmp_path / "cache"


@pytest.mark.parametrize(
    ("dataset", "train_md5", "test_md5", "first"),
    [
        (Mnist, "6bbc9ace898e44ae57da46a324031adb", "2646ac647ad5339dbf082846283269ea", [5, 0, 4, 1, 9]),
        (FashionMnist, "f4a8712d7a061bf5bd6d2ca38dc4d50a", "8181f5470baa50b63fa0f6fddb340f0a", [9, 0, 0, 3, 0]),
    ],
)
def test_the_real_files_are_read_to_the_byte(real_data, dataset, train_md5, test_md5, first):
    train, test, _ = dataset().read(real_data)
    assert len(train) == 60_000 and len(test) == 10_000
    assert train.labels[:5].tolist() == first
    for part, expected in ((train, train_md5), (test, test_md5)):
        header = struct.pack(">4I", 0x803, len(part), 28, 28)
        assert hashlib.md5(header + part.pixels.numpy().tobytes()).hexdigest() == expected
