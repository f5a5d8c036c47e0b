"""Whether what is shipped is what was trained: the exported file against the model, image by image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from adamas.data import Images
from adamas.device import device_of
from adamas.errors import AdamasError
from adamas.graph import modes_kept


@dataclass(frozen=True)
class Parity:
    """Images compared, the share on which both predict the same class, and the largest difference of any logit."""

    n: int
    agreement: float
    largest_logit_difference: float


@torch.no_grad()
def parity(model: nn.Module, runtime: nn.Module, images: Images, batch_size: int = 256) -> Parity:
    """Compare `model`, in eval mode, with an exported file on `images`; the model is left as found.

    Errors: no images.
    """
    if not len(images):
        raise AdamasError("expected images to compare the exported file on, got none")
    device = device_of(model)
    agree, largest = 0, 0.0
    with modes_kept(model):
        model.eval()
        for x, _ in images.batches(batch_size, device=device):
            trained, shipped = model(x), runtime(x)
            agree += int((trained.argmax(1) == shipped.argmax(1)).sum())
            largest = max(largest, float((trained - shipped).abs().max()))
    return Parity(len(images), agree / len(images), largest)
