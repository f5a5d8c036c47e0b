"""MNIST and Fashion-MNIST: IDX files, gzipped or not."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from adamas.data.arrays import labelled
from adamas.data.fetch import Published, directory, find
from adamas.data.images import Dataset, Images
from adamas.errors import AdamasError
from adamas.registry import register

_SIDE, _MOST_IMAGES = 28, 60_000
_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_MNIST_MD5 = (
    "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "d53e105ee54ea40749a09fcbcd1e9432",
    "9fb629c4189551a2d022fa330f9573f3",
    "ec29112dd5afa0611ce80d1b7f02629c",
)
_FASHION_MD5 = (
    "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "25c81989df183df01b3e8a0aad5dffbe",
    "bef4ecab320f06d8554ea6380940ec79",
    "bb300cfdad3c16e7a12a480ee83cd310",
)
_GARMENTS = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


@register("dataset", "mnist")
class Mnist(Dataset):
    """70,000 handwritten digits of 28 x 28 grey pixels, 60,000 of them for training.

    Files: `MNIST/raw/train-images-idx3-ubyte` and its three fellows, or the same names straight in the data directory,
    each gzipped or not.

    Source: LeCun et al. 1998.
    """

    def read(self, data_dir: Path | None) -> tuple[Images, Images, tuple[str, ...]]:
        base = "https://ossci-datasets.s3.amazonaws.com/mnist"
        return *_read(data_dir, "MNIST/raw", base, _MNIST_MD5), tuple("0123456789")


@register("dataset", "fashion_mnist")
class FashionMnist(Dataset):
    """70,000 garments of 28 x 28 grey pixels, 60,000 of them for training.

    Files: `FashionMNIST/raw/train-images-idx3-ubyte` and its three fellows, or the same names straight in the data
    directory, each gzipped or not.

    Source: Xiao et al. 2017.
    """

    def read(self, data_dir: Path | None) -> tuple[Images, Images, tuple[str, ...]]:
        base = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
        return *_read(data_dir, "FashionMNIST/raw", base, _FASHION_MD5), _GARMENTS


def _read(data_dir: Path | None, folder: str, base: str, md5: tuple[str, ...]) -> tuple[Images, Images]:
    published = [Published(f"{base}/{name}.gz", sum_, folder) for name, sum_ in zip(_FILES, md5, strict=True)]
    root = directory(data_dir, published)
    first = find(root, [f"{place}{_FILES[0]}{end}" for place in (f"{folder}/", "") for end in ("", ".gz")], "an IDX file")
    paths = [find(first.parent, [name, f"{name}.gz"], "an IDX file") for name in _FILES]
    return _images(*paths[:2]), _images(*paths[2:])


def _images(image_path: Path, label_path: Path) -> Images:
    pixels, labels = read_idx(image_path, (_SIDE, _SIDE)), read_idx(label_path, ())
    if len(pixels) != len(labels):
        raise AdamasError(
            f"expected as many labels as images, got {len(labels)} in {label_path} and {len(pixels)} in {image_path}"
        )
    return labelled(pixels[:, None], labels, 10, label_path)


def read_idx(path: Path, item: tuple[int, ...]) -> np.ndarray:
    """The unsigned bytes of an IDX file, shape (N, *item); reads no more than one byte beyond what its header declares.

    Errors: wrong magic number, other item size, more than 60,000 items, more or fewer bytes than declared, broken gzip.
    """
    try:
        with _opened(path) as file:
            count = _count(file.read(8 + 4 * len(item)), item, path)
            size = count * math.prod(item)
            body = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise AdamasError(f"{path}: expected a readable, whole IDX file, got {type(error).__name__}; copy it again") from error
    if len(body) != size:
        got = "more" if len(body) > size else f"{len(body):,}"
        raise AdamasError(f"{path}: expected {size:,} bytes after the IDX header, got {got}; copy the file again")
    return np.frombuffer(body, np.uint8).reshape(count, *item)


def _opened(path: Path) -> BinaryIO:
    """The file, decompressed on the fly if its content, whatever its name, is gzip."""
    with open(path, "rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if zipped else open(path, "rb")  # type: ignore[return-value]


def _count(header: bytes, item: tuple[int, ...], path: Path) -> int:
    expected = 8 + 4 * len(item)
    if len(header) != expected:
        raise AdamasError(f"{path}: expected an IDX header of {expected} bytes, got {len(header)}; copy the file again")
    magic, count, *sizes = struct.unpack(f">{expected // 4}I", header)
    if magic != 0x801 + len(item):
        raise AdamasError(
            f"{path}: expected IDX magic number {0x801 + len(item)}, got {magic}; images and labels may be swapped"
        )
    if tuple(sizes) != item or not 1 <= count <= _MOST_IMAGES:
        raise AdamasError(
            f"{path}: expected 1..{_MOST_IMAGES:,} items of size {item}, got {count:,} of size {tuple(sizes)}; "
            "data of another shape can be read by the dataset 'npz'"
        )
    return count
