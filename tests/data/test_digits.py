from __future__ import annotations

import torch
from sklearn.datasets import load_digits

from adamas.data.digits import Digits


def test_every_digit_has_its_last_36_images_in_the_test_set():
    train, test, classes = Digits().read(None)
    assert classes == tuple("0123456789")
    assert len(train) == 1437 and len(test) == 360
    assert test.labels.bincount().tolist() == [36] * 10
    _, labels = load_digits(return_X_y=True)
    assert train.labels[:10].tolist() == list(labels[:10]) == list(range(10))
    assert (train.labels.bincount() + 36).tolist() == torch.as_tensor(labels).bincount().tolist()


def test_grey_0_to_16_becomes_0_to_255():
    train, _, _ = Digits().read(None)
    raw, _ = load_digits(return_X_y=True)
    assert train.pixels.shape == (1437, 1, 8, 8) and train.pixels.dtype == torch.uint8 and train.pixels.is_contiguous()
    assert raw[0, 2:6].tolist() == [5, 13, 9, 1]
    assert train.pixels[0, 0, 0, 2:6].tolist() == [80, 207, 143, 16]  # 5/16, 13/16, 9/16, 1/16 of 255, rounded
    assert train.pixels.min() == 0 and train.pixels.max() == 255


def test_no_file_is_asked_for(tmp_path):
    train, _, _ = Digits().read(tmp_path / "nowhere")
    assert len(train) == 1437
