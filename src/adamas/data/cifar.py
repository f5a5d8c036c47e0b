"""CIFAR-10 and CIFAR-100: the binary version and the python version."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from adamas.data.arrays import joined, labelled
from adamas.data.fetch import Published, directory, find
from adamas.data.images import Dataset, Images
from adamas.data.pickles import read_pickle
from adamas.errors import AdamasError
from adamas.registry import register

_PIXELS = 3 * 32 * 32
_HOME = "https://www.cs.toronto.edu/~kriz"

_CLASSES_10 = "airplane automobile bird cat deer dog frog horse ship truck"
_COARSE = """
    aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices household_furniture insects
    large_carnivores large_man-made_outdoor_things large_natural_outdoor_scenes large_omnivores_and_herbivores medium_mammals
    non-insect_invertebrates people reptiles small_mammals trees vehicles_1 vehicles_2
"""
_FINE = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
    forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
    mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
    possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
    sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
    willow_tree wolf woman worm
"""


@dataclass(frozen=True)
class _Layout:
    """The folders and files of one data set; `labels` are the label bytes of a binary record, in order."""

    binary: str
    python: str
    train: tuple[str, ...]
    test: str
    labels: tuple[str, ...]
    published: Published


_CIFAR10 = _Layout(
    binary="cifar-10-batches-bin",
    python="cifar-10-batches-py",
    train=tuple(f"data_batch_{i}" for i in range(1, 6)),
    test="test_batch",
    labels=("labels",),
    published=Published(f"{_HOME}/cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530", unpacks="cifar-10-batches-bin"),
)
_CIFAR100 = _Layout(
    binary="cifar-100-binary",
    python="cifar-100-python",
    train=("train",),
    test="test",
    labels=("coarse_labels", "fine_labels"),
    published=Published(f"{_HOME}/cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8", unpacks="cifar-100-binary"),
)


@register("dataset", "cifar10")
class Cifar10(Dataset):
    """60,000 colour photographs of 32 x 32 pixels in 10 classes, 50,000 of them for training.

    Files: the folder `cifar-10-batches-bin` or `cifar-10-batches-py`, or its files straight in the data directory.

    Source: Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images.
    """

    def read(self, data_dir: Path | None) -> tuple[Images, Images, tuple[str, ...]]:
        classes = tuple(_CLASSES_10.split())
        return *_read(data_dir, _CIFAR10, "labels", len(classes)), classes


@register("dataset", "cifar100")
class Cifar100(Dataset):
    """60,000 colour photographs of 32 x 32 pixels in 100 fine or 20 coarse classes, 50,000 of them for training.

    Files: the folder `cifar-100-binary` or `cifar-100-python`, or its files straight in the data directory.

    Source: Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images.
    """

    labels: Literal["fine", "coarse"] = "fine"

    def read(self, data_dir: Path | None) -> tuple[Images, Images, tuple[str, ...]]:
        classes = tuple((_FINE if self.labels == "fine" else _COARSE).split())
        return *_read(data_dir, _CIFAR100, f"{self.labels}_labels", len(classes)), classes


def _read(data_dir: Path | None, layout: _Layout, labels: str, classes: int) -> tuple[Images, Images]:
    root = directory(data_dir, [layout.published])
    first = layout.train[0]
    places = [f"{layout.binary}/{first}.bin", f"{layout.python}/{first}", f"{first}.bin", first]
    found = find(root, places, "a CIFAR file")

    def part(name: str) -> Images:
        path = find(found.parent, [name + found.suffix], "a CIFAR file")
        pixels, values = _binary(path, layout, labels) if found.suffix else _python(path, labels)
        return labelled(pixels.reshape(-1, 3, 32, 32), values, classes, path)

    return joined([part(name) for name in layout.train]), part(layout.test)


def _binary(path: Path, layout: _Layout, labels: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 3072) and labels (N,) of records of one or two label bytes and three colour planes."""
    record = len(layout.labels) + _PIXELS
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise AdamasError(f"{path}: expected a readable file, got {type(error).__name__}; check its permissions") from error
    if not content.size or content.size % record:
        raise AdamasError(f"{path}: expected a multiple of {record:,} bytes (one record), got {content.size:,}; copy it again")
    records = content.reshape(-1, record)
    return records[:, len(layout.labels) :], records[:, layout.labels.index(labels)]


def _python(path: Path, labels: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 3072) and labels (N,) of a pickled dictionary."""
    content = read_pickle(path)
    pixels, values = content.get("data"), content.get(labels)
    if not isinstance(pixels, np.ndarray) or pixels.shape[1:] != (_PIXELS,):
        raise AdamasError(f"{path}: expected 'data' to be uint8 of shape (N, {_PIXELS}), got {_shown(pixels)}")
    if not isinstance(values, list) or not all(isinstance(value, int) and 0 <= value < 256 for value in values):
        raise AdamasError(f"{path}: expected {labels!r} to be a list of small integers, got {_shown(values)}")
    return pixels, np.array(values, np.int64)


def _shown(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"shape {value.shape}"
    return "nothing" if value is None else f"a {type(value).__name__} with other content"
