"""Street View House Numbers, cropped digits: MATLAB files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from adamas.data.arrays import joined, labelled
from adamas.data.fetch import Published, directory, find
from adamas.data.images import Dataset, Images
from adamas.data.matlab import read_mat
from adamas.errors import AdamasError
from adamas.registry import register

_HOME = "http://ufldl.stanford.edu/housenumbers"
_MD5 = {
    "train": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test": "eb5a983be6a315427106f1b164d9cef3",
    "extra": "a93ce644f1a588dc4d68dda5feec44a7",
}
_MOST_IMAGES, _IMAGE = 531_131, 32 * 32 * 3


@register("dataset", "svhn")
class Svhn(Dataset):
    """House numbers cropped to single digits of 32 x 32 colour pixels, 73,257 for training and 26,032 for test.

    Files: `train_32x32.mat` and `test_32x32.mat` in the data directory or its folder `SVHN`; `extra` adds the 531,131 easier
    training images of `extra_32x32.mat`. The label 10 of the files is the digit 0.

    Source: Netzer et al. 2011.
    """

    extra: bool = False

    def read(self, data_dir: Path | None) -> tuple[Images, Images, tuple[str, ...]]:
        names = ["train", "extra"] if self.extra else ["train"]
        root = directory(data_dir, [Published(f"{_HOME}/{name}_32x32.mat", _MD5[name]) for name in [*names, "test"]])
        train, test = joined([_read(root, name) for name in names]), _read(root, "test")
        return train, test, tuple("0123456789")


def _read(root: Path, name: str) -> Images:
    path = find(root, [f"{name}_32x32.mat", f"SVHN/{name}_32x32.mat"], "an SVHN file")
    arrays = read_mat(path, ("X", "y"), limit=_MOST_IMAGES * _IMAGE + 1024)
    pixels, labels = arrays.get("X"), arrays.get("y")
    if pixels is None or pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[:3] != (32, 32, 3):
        raise AdamasError(f"{path}: expected X to be uint8 of shape (32, 32, 3, N), got {_shown(pixels)}")
    count = pixels.shape[3]
    if labels is None or labels.shape not in ((count, 1), (1, count)):
        raise AdamasError(f"{path}: expected y to be integers of shape ({count}, 1), got {_shown(labels)}")
    labels = labels.reshape(-1)
    wrong = (labels < 1) | (labels > 10)
    if wrong.any():
        raise AdamasError(f"{path}: expected labels in 1..10 (10 is the digit 0), got {labels[wrong][0]}")
    return labelled(pixels.transpose(3, 2, 0, 1), labels % 10, 10, path)


def _shown(array: np.ndarray | None) -> str:
    return "nothing" if array is None else f"{array.dtype} of shape {array.shape}"
