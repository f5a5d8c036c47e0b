from __future__ import annotations

import numpy as np
import pytest
import torch

from adamas.data.arrays import joined, labelled
from adamas.errors import AdamasError

PIXELS = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4, 1).transpose(0, 3, 1, 2)


def test_arrays_become_contiguous_tensors_of_their_own():
    images = labelled(PIXELS, np.array([1, 0], np.uint8), 2, "here")
    assert images.pixels.is_contiguous() and images.pixels.dtype == torch.uint8 and images.labels.dtype == torch.int64
    assert images.pixels.shape == (2, 1, 3, 4) and images.pixels.flatten().tolist() == list(range(24))
    images.pixels[:] = 0
    assert PIXELS.sum() == 276  # untouched


def test_joined_keeps_the_order_of_the_files():
    one, two = labelled(PIXELS[:1], np.array([0]), 2, "one"), labelled(PIXELS[1:], np.array([1]), 2, "two")
    both = joined([one, two])
    assert both.labels.tolist() == [0, 1] and both.pixels.flatten().tolist() == list(range(24))


@pytest.mark.parametrize("label", [-1, 2, 2**60])
def test_a_label_out_of_range_is_named_with_its_image(label: int):
    with pytest.raises(AdamasError, match=rf"^here: expected labels in 0\.\.1, got {label} for image 1$"):
        labelled(PIXELS, np.array([0, label]), 2, "here")


@pytest.mark.parametrize(("images", "labels"), [(2, 1), (1, 2), (0, 0)])
def test_counts_must_agree_and_not_be_zero(images: int, labels: int):
    with pytest.raises(AdamasError, match=f"^here: expected one label per image.*got {images} images and {labels} labels$"):
        labelled(PIXELS[:images], np.zeros(labels, np.int64), 2, "here")
