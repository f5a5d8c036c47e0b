from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adamas.data.image_folder import ImageFolder
from adamas.errors import AdamasError


def picture(value: int, size: tuple[int, int] = (6, 4), mode: str = "RGB") -> Image.Image:
    """Columns x rows of one grey or colour: (value, value + 1, value + 2)."""
    return Image.new(mode, size, (value, value + 1, value + 2) if mode == "RGB" else value)


def write(root: Path, test: str = "test") -> Path:
    """Two classes, three training images each and two test images each, 6 wide and 4 high."""
    for part, count in (("train", 3), (test, 2)):
        for label, name in enumerate(("cat", "dog")):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                picture(100 * label + 10 * i).save(folder / f"{i}.png")
    return root


def test_images_are_read_by_class_and_name(tmp_path):
    train, test, classes = ImageFolder().read(write(tmp_path))
    assert classes == ("cat", "dog") and train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert train.pixels.shape == (6, 3, 4, 6) and train.pixels.is_contiguous()
    assert train.pixels[:, 0, 0, 0].tolist() == [0, 10, 20, 100, 110, 120] and train.pixels[4, :, 3, 5].tolist() == [
        110,
        111,
        112,
    ]
    assert sorted(zip(test.labels.tolist(), test.pixels[:, 0, 0, 0].tolist(), strict=True)) == [
        (0, 0),
        (0, 10),
        (1, 100),
        (1, 110),
    ]


def test_the_test_images_are_shuffled_always_alike(tmp_path):
    write(tmp_path)
    for i in range(2, 20):
        for name in ("cat", "dog"):
            picture(i).save(tmp_path / "test" / name / f"{i:02}.png")
    one, two = ImageFolder().read(tmp_path)[1], ImageFolder().read(tmp_path)[1]
    assert one.labels.tolist() == two.labels.tolist() and 4 <= int(one.labels[:20].sum()) <= 16


def test_val_stands_in_for_test_and_path_is_a_subfolder(tmp_path, monkeypatch):
    write(tmp_path / "pets", test="val")
    assert len(ImageFolder(path="pets").read(tmp_path)[1]) == 4
    monkeypatch.chdir(tmp_path / "pets")
    assert len(ImageFolder().read(None)[1]) == 4


def test_rows_columns_and_modes_are_kept_apart(tmp_path):
    write(tmp_path)
    ramp = np.arange(24, dtype=np.uint8).reshape(4, 6)
    folder = tmp_path / "train" / "cat"
    Image.fromarray(ramp).save(folder / "0.png")
    Image.fromarray(np.stack([ramp] * 3 + [np.zeros_like(ramp)], axis=2)).save(folder / "1.png")  # wholly transparent
    Image.fromarray(ramp).convert("P").save(folder / "2.png", transparency=bytes([0, 100, 255]))
    Image.fromarray(ramp).save(folder / "3.bmp")
    Image.fromarray(ramp).save(folder / "4.PGM", format="PPM")
    train, _, _ = ImageFolder().read(tmp_path)
    assert all((train.pixels[i].numpy() == ramp).all() for i in range(5))
    grey, _, _ = ImageFolder(colour="grey").read(tmp_path)
    assert grey.pixels.shape == (8, 1, 4, 6) and (grey.pixels[0, 0].numpy() == ramp).all()


def test_jpeg_and_webp_are_read(tmp_path):
    write(tmp_path)
    picture(77).save(tmp_path / "train" / "cat" / "0.jpg", quality=95)
    picture(77).save(tmp_path / "train" / "cat" / "1.webp", lossless=True)
    train, _, _ = ImageFolder().read(tmp_path)
    found = train.pixels[[0, 3]].int() - 77  # beside 0.png, 1.png, 2.png
    assert len(train) == 8 and found.min() >= -1 and found.max() <= 3


def test_another_size_names_the_first_offender_and_the_way_out(tmp_path):
    path = write(tmp_path) / "train" / "dog" / "1.png"
    picture(1, (5, 4)).save(path)
    picture(1, (9, 9)).save(tmp_path / "test" / "cat" / "0.png")
    message = "expected 6 x 4 pixels like the first image, got 5 x 4; give the dataset a 'size' to resize all images"
    with pytest.raises(AdamasError, match=f"^{path}: {message}$"):
        ImageFolder().read(tmp_path)
    train, test, _ = ImageFolder(size=8).read(tmp_path)
    assert train.pixels.shape == (6, 3, 8, 8) and test.pixels.shape == (4, 3, 8, 8)
    assert train.pixels[4].unique().tolist() == [1, 2, 3]


def test_test_images_must_have_the_size_of_the_training_images(tmp_path):
    path = write(tmp_path) / "test" / "cat" / "1.png"
    picture(1, (4, 6)).save(path)
    with pytest.raises(AdamasError, match=f"^{path}: expected 6 x 4 pixels like the first image, got 4 x 6"):
        ImageFolder().read(tmp_path)


@pytest.mark.parametrize("size", [0, 4097, -3])
def test_size_is_bounded(size):
    with pytest.raises(AdamasError, match=r"size: input should be (greater|less) than or equal to .*, got"):
        ImageFolder(size=size)


def test_missing_folders_are_named(tmp_path):
    with pytest.raises(AdamasError, match=f"expected a folder of class folders, found none of {tmp_path}/train; correct the"):
        ImageFolder().read(tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(AdamasError, match=f"found none of {tmp_path}/test, {tmp_path}/val; correct the dataset's 'path' or"):
        ImageFolder().read(tmp_path)


def test_at_least_two_classes(tmp_path):
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
    with pytest.raises(AdamasError, match=f"expected at least two class folders in {tmp_path}/train, got none"):
        ImageFolder().read(tmp_path)
    (tmp_path / "train" / "cat").mkdir()
    (tmp_path / "train" / ".hidden").mkdir()
    with pytest.raises(AdamasError, match=f"expected at least two class folders in {tmp_path}/train, got cat$"):
        ImageFolder().read(tmp_path)


def test_train_and_test_have_the_same_classes(tmp_path):
    write(tmp_path)
    (tmp_path / "test" / "dog").rename(tmp_path / "test" / "dogs")
    with pytest.raises(AdamasError, match=r"expected the same class folders in .*, got in only one of them: dog, dogs$"):
        ImageFolder().read(tmp_path)


@pytest.mark.parametrize("name", ["notes.txt", "scan.tiff", "sub"])
def test_other_files_are_named_and_hidden_ones_skipped(tmp_path, name):
    folder = write(tmp_path) / "train" / "dog"
    (folder / ".DS_Store").write_bytes(b"x")
    assert len(ImageFolder().read(tmp_path)[0]) == 6
    (folder / name).mkdir() if name == "sub" else (folder / name).write_bytes(b"x")
    with pytest.raises(AdamasError, match=rf"expected only image files \(\.png, .*\) in {folder}, got {name}$"):
        ImageFolder().read(tmp_path)


def test_an_empty_class_is_refused(tmp_path):
    for path in (write(tmp_path) / "test" / "dog").iterdir():
        path.unlink()
    with pytest.raises(AdamasError, match=rf"expected only image files .* in {tmp_path}/test/dog, got nothing$"):
        ImageFolder().read(tmp_path)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_of(width: int, height: int) -> bytes:
    """A tiny PNG file that declares a large image."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a whole image file, got UnidentifiedImageError; mend or remove it"),
        (b"GIF89a\x01\0\x01\0\0\0\0;", "expected a whole image file, got UnidentifiedImageError"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 4\n", "expected a whole image file, got UnidentifiedImageError"),
        ("cut", "expected a whole image file, got OSError"),
        (png_of(6, 4000), "expected a whole image file, got OSError"),
        (png_of(5000, 4), r"expected 8 bits per channel and at most 4096 pixels a side, got mode RGB and 5000 x 4; convert"),
        (png_of(10_000, 10_000), "expected a whole image file, got DecompressionBombWarning"),
        (png_of(60_000, 60_000), "expected a whole image file, got DecompressionBombError"),
        ("16 bits", r"expected 8 bits per channel and at most 4096 pixels a side, got mode I;16 and 6 x 4; convert"),
    ],
)
def test_a_bad_image_is_named_in_one_sentence(tmp_path, content, message):
    path = write(tmp_path) / "train" / "cat" / "1.png"
    noise = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    Image.fromarray(noise).save(path)
    if content == "16 bits":
        Image.fromarray(noise[..., 0].astype(np.uint16)).save(path)
    else:
        path.write_bytes(path.read_bytes()[:-40] if content == "cut" else content)
    with pytest.raises(AdamasError, match=f"^{path}: {message}"):
        ImageFolder().read(tmp_path)
