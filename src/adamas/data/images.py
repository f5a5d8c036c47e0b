"""Images in memory, batches on the device, and the split into training, validation and test data."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Lt
from torch import Tensor

from adamas.errors import AdamasError
from adamas.registry import Choice, Count, Number, settings

Augment = Literal["none", "flip", "crop", "crop_flip"]


@dataclass(frozen=True)
class Images:
    """Pixels (N, C, H, W), uint8 or float32 in [0, 1], and labels (N,), int64."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: slice | Tensor) -> Images:
        return Images(self.pixels[index], self.labels[index])

    def batches(
        self, size: int, *, device: torch.device | str = "cpu", seed: int | None = None, augment: Augment = "none"
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of float32 images in [0, 1] and labels; shuffled when a seed is given, in order otherwise."""
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        order = torch.arange(len(self)) if generator is None else torch.randperm(len(self), generator=generator)
        for index in order.split(size):
            x, y = self.pixels[index].to(device), self.labels[index].to(device)
            x = x.float().div_(255) if x.dtype == torch.uint8 else x.float()
            yield _augmented(x, augment, generator), y


def _augmented(x: Tensor, augment: Augment, generator: torch.Generator | None) -> Tensor:
    if "flip" in augment:
        flipped = torch.rand(len(x), generator=generator).to(x.device) < 0.5
        x = torch.where(flipped[:, None, None, None], x.flip(3), x)
    return _random_crop(x, 4, generator) if "crop" in augment else x


def _random_crop(x: Tensor, pad: int, generator: torch.Generator | None) -> Tensor:
    """Shift every image by up to `pad` pixels, zeros moving in, all images of the batch in one gather."""
    n, _, height, width = x.shape
    shift = torch.randint(0, 2 * pad + 1, (2, n), generator=generator).to(x.device)
    rows = (shift[0, :, None] + torch.arange(height, device=x.device))[:, None, :, None]
    columns = (shift[1, :, None] + torch.arange(width, device=x.device))[:, None, None, :]
    image = torch.arange(n, device=x.device)[:, None, None, None]
    channel = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
    return F.pad(x, [pad] * 4)[image, channel, rows, columns]


@dataclass(frozen=True)
class Data:
    """One data set, split; training and validation come from the training files, and only `evaluate` reads `test`."""

    name: str
    classes: tuple[str, ...]
    train: Images
    validation: Images
    test: Images
    fingerprint: str = field(default="", compare=False)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        channels, height, width = self.train.pixels.shape[1:]
        return channels, height, width

    def channel_statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of every channel of the training images, in [0, 1] units."""
        x = self.train.pixels
        scale = 255.0 if x.dtype == torch.uint8 else 1.0
        planes = x.transpose(0, 1).flatten(1).double() / scale
        return [round(v, 6) for v in planes.mean(1).tolist()], [round(v, 6) for v in planes.std(1).clamp_min(1e-3).tolist()]


@settings
class Split:
    """How many images are used: `train` and `test` cut the published sets, `validation` is held out of `train`."""

    train: Count | None = None
    validation: Annotated[Number, Ge(0), Lt(1)] = 0.1
    test: Count | None = None


class Dataset(ABC):
    """A registered data set: its fields say where and how, `read` returns the published training and test sets."""

    name: ClassVar[str]

    @abstractmethod
    def read(self, data_dir: Path | None) -> tuple[Images, Images, tuple[str, ...]]:
        """Training images, test images and class names; `data_dir` is the user's directory, None for the cache."""


AnyDataset = Annotated[Dataset, Choice("dataset")]


def load(dataset: Dataset, split: Split | None = None, *, data_dir: Path | str | None = None, seed: int = 0) -> Data:
    """Read a data set, check it and split it by seed."""
    train, test, classes = dataset.read(None if data_dir is None else Path(data_dir))
    return divide(dataset.name, train, test, classes, split or Split(), seed)


def divide(name: str, train: Images, test: Images, classes: tuple[str, ...], split: Split, seed: int) -> Data:
    """Split published training images into train and validation by seed, cut to the asked sizes, and fingerprint all."""
    for part, images in (("training", train), ("test", test)):
        _check(name, part, images, len(classes))
    if train.pixels.shape[1:] != test.pixels.shape[1:]:
        raise AdamasError(
            f"data {name}: training images are {tuple(train.pixels.shape[1:])} and test images {tuple(test.pixels.shape[1:])} "
            "(channels, height, width); expected the same size"
        )
    used = min(split.train or len(train), len(train))
    held_out = round(used * split.validation)
    if used - held_out < 1:
        raise AdamasError(f"data {name}: expected at least one training image besides validation, got {used} in all")
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    return Data(
        name=name,
        classes=classes,
        train=train[order[held_out:used]],
        validation=train[order[:held_out]],
        test=test[: split.test] if split.test else test,
        fingerprint=fingerprint(train, test),
    )


def _check(name: str, part: str, images: Images, classes: int) -> None:
    if images.pixels.dim() != 4 or len(images.pixels) != len(images.labels) or not len(images):
        raise AdamasError(
            f"data {name}: expected {part} images of shape (N, C, H, W) with N labels, "
            f"got images {tuple(images.pixels.shape)} and labels {tuple(images.labels.shape)}"
        )
    low, high = int(images.labels.min()), int(images.labels.max())
    if low < 0 or high >= classes:
        raise AdamasError(f"data {name}: expected {part} labels in 0..{classes - 1}, got {low}..{high}")
    if images.pixels.dtype != torch.uint8 and (images.pixels.min() < 0 or images.pixels.max() > 1):
        raise AdamasError(
            f"data {name}: expected {part} pixels in [0, 1], got [{float(images.pixels.min()):.3g}, "
            f"{float(images.pixels.max()):.3g}]; put the normalisation into the model's first layer instead"
        )


def fingerprint(*parts: Images) -> str:
    """Content id of images and their labels."""
    digest = hashlib.blake2b(digest_size=16)
    for images in parts:
        digest.update(images.pixels.contiguous().numpy().tobytes())
        digest.update(images.labels.contiguous().numpy().tobytes())
    return digest.hexdigest()


def from_loaders(
    train: Iterable[tuple[Tensor, Tensor]],
    test: Iterable[tuple[Tensor, Tensor]],
    *,
    classes: tuple[str, ...] | None = None,
    name: str = "loader",
    split: Split | None = None,
    seed: int = 0,
) -> Data:
    """Data from the user's own loaders of (images, labels); images (N, C, H, W), uint8 or float in [0, 1], not normalised.

    Errors: pixels outside [0, 1], labels outside the classes, training and test images of different size.
    """
    published = _collect(train), _collect(test)
    if classes is None:
        classes = tuple(str(i) for i in range(1 + max(int(part.labels.max()) for part in published)))
    return divide(name, *published, classes, split or Split(), seed)


def _collect(loader: Iterable[tuple[Tensor, Tensor]]) -> Images:
    pairs = [(torch.as_tensor(x), torch.as_tensor(y)) for x, y in loader]
    if not pairs:
        raise AdamasError("expected a loader of (images, labels) batches, got none; an exhausted iterator yields nothing twice")
    pixels = torch.cat([x for x, _ in pairs]).cpu()
    if pixels.dtype != torch.uint8:
        pixels = pixels.float()
    return Images(pixels, torch.cat([y.flatten() for _, y in pairs]).long().cpu())
