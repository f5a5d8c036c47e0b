"""Scikit-learn's digits: the data set that needs no files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from adamas.data.arrays import labelled
from adamas.data.images import Dataset, Images
from adamas.registry import register

_TEST_PER_DIGIT = 36


@register("dataset", "digits")
class Digits(Dataset):
    """1,797 handwritten digits of 8 x 8 grey pixels, embedded in scikit-learn.

    Grey values 0..16 become uint8 0..255. The last 36 images of every digit, in published order, are the test set (360);
    the 1,437 others are the training set.

    Source: Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits (UCI), its test file.
    """

    def read(self, data_dir: Path | None) -> tuple[Images, Images, tuple[str, ...]]:
        from sklearn.datasets import load_digits

        pixels, labels = (np.asarray(array) for array in load_digits(return_X_y=True))
        images = labelled(np.rint(pixels.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8), labels, 10, "digits")
        test = np.sort(np.concatenate([np.flatnonzero(labels == digit)[-_TEST_PER_DIGIT:] for digit in range(10)]))
        train = np.setdiff1d(np.arange(len(labels)), test)
        return images[torch.from_numpy(train)], images[torch.from_numpy(test)], tuple("0123456789")
