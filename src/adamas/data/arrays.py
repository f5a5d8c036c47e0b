"""Arrays read from files become `Images`, once their counts and labels are checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from adamas.data.images import Images
from adamas.errors import AdamasError


def labelled(pixels: np.ndarray, labels: np.ndarray, classes: int, source: Path | str) -> Images:
    """Pixels (N, C, H, W), uint8 or float32, and integer labels (N,) in 0..classes-1, copied into contiguous tensors.

    Errors name `source`: no images, as many labels as images not given, a label out of range.
    """
    if len(pixels) != len(labels) or not len(labels):
        raise AdamasError(
            f"{source}: expected one label per image and at least one image, got {len(pixels)} images and {len(labels)} labels"
        )
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        at = int(wrong.argmax())
        raise AdamasError(f"{source}: expected labels in 0..{classes - 1}, got {labels[at]} for image {at}")
    return Images(torch.from_numpy(np.array(pixels, order="C")), torch.from_numpy(labels.astype(np.int64)))


def joined(parts: list[Images]) -> Images:
    """Several files as one set, in order."""
    return Images(torch.cat([part.pixels for part in parts]), torch.cat([part.labels for part in parts]))
