"""The user's own arrays in one .npz file."""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path

import numpy as np
from numpy.lib.format import read_array, read_array_header_1_0, read_array_header_2_0, read_magic

from adamas.data.arrays import labelled
from adamas.data.images import Dataset, Images
from adamas.errors import AdamasError
from adamas.registry import register

_KEYS = ("x_train", "y_train", "x_test", "y_test")
_BEST_DEFLATE = 1032  # no deflated byte can expand to more


@register("dataset", "npz")
class Npz(Dataset):
    """Arrays x_train, y_train, x_test and y_test of a .npz file, as numpy.savez writes them.

    `path` is relative to the data directory, or to the working directory if there is none. Images are (N, H, W), (N, H, W, C)
    or (N, C, H, W) with C = 1 or 3, uint8 or floats in [0, 1] (kept as float32); labels are integers (N,) from 0, every class
    named by its number. Pickled (object) arrays are refused.
    """

    path: str = "data.npz"

    def read(self, data_dir: Path | None) -> tuple[Images, Images, tuple[str, ...]]:
        path = (data_dir or Path()) / self.path
        if not os.path.isfile(path):
            raise AdamasError(f"expected a .npz file at {path}, found none; correct the dataset's 'path' or --data-dir")
        x_train, y_train, x_test, y_test = _arrays(path)
        classes = _classes(y_train, y_test, path)
        train = labelled(_pixels(x_train, "x_train", path), y_train, classes, f"{path}: y_train")
        test = labelled(_pixels(x_test, "x_test", path), y_test, classes, f"{path}: y_test")
        return train, test, tuple(map(str, range(classes)))


def _arrays(path: Path) -> list[np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            missing = [key for key in _KEYS if f"{key}.npy" not in archive.namelist()]
            if missing:
                raise AdamasError(f"{path}: expected the arrays {', '.join(_KEYS)}, found no {', '.join(missing)}")
            return [_array(archive, key, path) for key in _KEYS]
    except AdamasError:
        raise
    except Exception as error:  # zipfile and numpy raise errors of many types
        raise AdamasError(f"{path}: expected a readable .npz file, got {type(error).__name__}; save it again") from error


def _array(archive: zipfile.ZipFile, key: str, path: Path) -> np.ndarray:
    """One array, read only after its header has shown a plain type and a size that the file can hold."""
    member = archive.getinfo(f"{key}.npy")
    with archive.open(member) as file:
        header = read_array_header_1_0 if read_magic(file) == (1, 0) else read_array_header_2_0
        shape, _, dtype = header(file)
    if dtype.kind not in ("ui" if key.startswith("y") else "uf"):
        wanted = "integers" if key.startswith("y") else "uint8, or floats in [0, 1]"
        raise AdamasError(f"{path}: expected {key} to be {wanted}, got dtype {dtype}")
    size, room = math.prod(shape) * dtype.itemsize, min(member.file_size, _BEST_DEFLATE * os.path.getsize(path))
    if size > room:
        raise AdamasError(
            f"{path}: {key} declares {size:,} bytes, expected at most {room:,} from the file's length; save it again"
        )
    with archive.open(member) as file:
        return read_array(file, allow_pickle=False)


def _pixels(array: np.ndarray, key: str, path: Path) -> np.ndarray:
    """As (N, C, H, W), uint8 or float32."""
    channels_last, channels_first = array.shape[3:] in ((1,), (3,)), array.shape[1:2] in ((1,), (3,))
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim != 4 or channels_last == channels_first:
        raise AdamasError(
            f"{path}: expected {key} of shape (N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1 or 3, got {array.shape}"
        )
    elif channels_last:
        array = array.transpose(0, 3, 1, 2)
    if array.dtype.kind == "u" and array.dtype != np.uint8:
        raise AdamasError(f"{path}: expected {key} to be uint8, or floats in [0, 1], got dtype {array.dtype}")
    if array.dtype.kind == "f" and not ((array >= 0) & (array <= 1)).all():
        raise AdamasError(
            f"{path}: expected {key} in [0, 1], got {array.min():.3g}..{array.max():.3g}; do not normalise the images"
        )
    return array if array.dtype == np.uint8 else array.astype(np.float32)


def _classes(y_train: np.ndarray, y_test: np.ndarray, path: Path) -> int:
    """The number of classes, two to as many as there are training images."""
    if y_train.ndim != 1 or y_test.ndim != 1 or not len(y_train):
        raise AdamasError(f"{path}: expected y_train and y_test of shape (N,), got {y_train.shape} and {y_test.shape}")
    classes = int(y_train.max()) + 1
    if not 2 <= classes <= len(y_train):
        raise AdamasError(
            f"{path}: expected labels from 0 for 2 to {len(y_train)} classes, got a largest y_train of {classes - 1}"
        )
    return classes
