"""The user's own image files, one folder per class."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Le
from PIL import Image

from adamas.data.arrays import labelled
from adamas.data.images import Dataset, Images
from adamas.errors import AdamasError
from adamas.registry import register

_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm")
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM")
_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
_MOST_SIDE = 4096


@register("dataset", "image_folder")
class ImageFolder(Dataset):
    """Image files in `train/<class>/` and `test/<class>/` (or `val/<class>/`), read by Pillow.

    `path` is relative to the data directory, or to the working directory if there is none. Images are PNG, JPEG, BMP, WebP or
    PPM files of 8 bits per channel, all of one size unless `size` asks for resizing to `size` x `size` (bilinear, proportions
    not kept); `colour` says whether they become RGB or grey; transparency is dropped. Classes are the sorted folder names.
    Names that start with a dot are skipped. Test images are shuffled, always alike, so that the first n are a fair sample.
    """

    path: str = "."
    size: Annotated[int, Ge(1), Le(_MOST_SIDE)] | None = None
    colour: Literal["rgb", "grey"] = "rgb"

    def read(self, data_dir: Path | None) -> tuple[Images, Images, tuple[str, ...]]:
        root = (data_dir or Path()) / self.path
        folders = _part(root, ["train"]), _part(root, ["test", "val"])
        classes = _classes(*folders)
        files, test_files = (_files(folder, classes) for folder in folders)
        shape = self._image(files[0][0]).shape
        train, test = self._images(files, shape, classes), self._images(test_files, shape, classes)
        return train, test[torch.randperm(len(test), generator=torch.Generator().manual_seed(0))], classes

    def _images(self, files: list[tuple[Path, int]], shape: tuple[int, ...], classes: tuple[str, ...]) -> Images:
        pixels = []
        for path, _ in files:
            pixels.append(self._image(path))
            if pixels[-1].shape != shape:
                (_, height, width), (_, got_height, got_width) = shape, pixels[-1].shape
                raise AdamasError(
                    f"{path}: expected {width} x {height} pixels like the first image, got {got_width} x {got_height}; "
                    "give the dataset a 'size' to resize all images"
                )
        return labelled(np.stack(pixels), np.array([label for _, label in files]), len(classes), "image_folder")

    def _image(self, path: Path) -> np.ndarray:
        """One image as uint8 (C, H, W)."""
        try:
            with (
                warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning),
                Image.open(path, formats=_FORMATS) as image,
            ):
                _check(image, path)
                image.load()
        except AdamasError:
            raise
        except Exception as error:  # Pillow raises errors of many types
            raise AdamasError(f"{path}: expected a whole image file, got {type(error).__name__}; mend or remove it") from error
        plain = image.convert("RGBA") if image.mode == "P" else image
        plain = plain.convert("RGB" if self.colour == "rgb" else "L")
        if self.size:
            plain = plain.resize((self.size, self.size), Image.Resampling.BILINEAR)
        return np.asarray(plain).reshape(plain.height, plain.width, -1).transpose(2, 0, 1)


def _check(image: Image.Image, path: Path) -> None:
    """Refuse by the header, before any pixel is decoded."""
    if image.mode not in _MODES or max(image.size) > _MOST_SIDE:
        raise AdamasError(
            f"{path}: expected 8 bits per channel and at most {_MOST_SIDE} pixels a side, "
            f"got mode {image.mode} and {image.width} x {image.height}; convert the file"
        )


def _part(root: Path, names: list[str]) -> Path:
    tried = [root / name for name in names]
    for folder in tried:
        if os.path.isdir(folder):
            return folder
    raise AdamasError(
        f"expected a folder of class folders, found none of {', '.join(map(str, tried))}; "
        "correct the dataset's 'path' or --data-dir"
    )


def _classes(train: Path, test: Path) -> tuple[str, ...]:
    classes, test_classes = ([path.name for path in _visible(folder) if path.is_dir()] for folder in (train, test))
    if len(classes) < 2:
        raise AdamasError(f"expected at least two class folders in {train}, got {', '.join(classes) or 'none'}")
    if classes != test_classes:
        differ = ", ".join(sorted({*classes} ^ {*test_classes}))
        raise AdamasError(f"expected the same class folders in {train} and {test}, got in only one of them: {differ}")
    return tuple(classes)


def _files(folder: Path, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
    """Every image file and its class, by class and name."""
    files = []
    for label, name in enumerate(classes):
        found = _visible(folder / name)
        wrong = [path for path in found if path.suffix.lower() not in _ENDINGS or not path.is_file()]
        if wrong or not found:
            got = wrong[0].name if wrong else "nothing"
            raise AdamasError(f"expected only image files ({', '.join(_ENDINGS)}) in {folder / name}, got {got}")
        files += [(path, label) for path in found]
    return files


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise AdamasError(f"{folder}: expected a readable folder, got {type(error).__name__}; check its permissions") from error
