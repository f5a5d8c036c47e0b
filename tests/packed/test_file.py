"""One file: what it is made of, its bytes by part, and every way in which it can be damaged or hostile."""

from __future__ import annotations

import hashlib
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zstandard
from safetensors.numpy import load, save

from adamas.errors import AdamasError
from adamas.packed.file import HEAD, read_packed, write_packed
from adamas.packed.layout import arranged

STATE = {
    "dense": torch.randn(40, 30),
    "few": torch.randn(50, 60) * (torch.rand(50, 60) < 0.05),
    "bias": torch.randn(40),
    "count": torch.tensor(3),
}
CARD = {"name": "ä", "list": [1, 2]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_packed(tmp_path / "model.adamas", CARD, STATE, {})
    return tmp_path / "model.adamas"


def container(path: Path) -> dict[str, np.ndarray]:
    return load(zstandard.ZstdDecompressor().decompress(path.read_bytes()[32:]))


def sealed(path: Path, body: bytes) -> Path:
    """A file with this body and a checksum that is right."""
    path.write_bytes(HEAD + b"\x01" + hashlib.blake2b(body, digest_size=16).digest() + body)
    return path


def frame(content: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(content)


def text(value: Any) -> np.ndarray:
    return np.frombuffer(value if isinstance(value, bytes) else json.dumps(value).encode(), np.uint8)


def test_card_and_tensors_come_back(path):
    found = read_packed(path)
    assert found.card == CARD and found.state().keys() == STATE.keys()
    assert all(torch.equal(tensor, STATE[name]) for name, tensor in found.state().items())
    assert os.listdir(path.parent) == ["model.adamas"]


def test_the_same_contents_make_the_same_bytes(path, tmp_path):
    write_packed(tmp_path / "again.adamas", CARD, STATE, {})
    assert (tmp_path / "again.adamas").read_bytes() == path.read_bytes()


def test_the_parts_add_up_to_the_file(path):
    sizes = write_packed(path, CARD, STATE, {})
    assert sum(sizes.values()) == path.stat().st_size
    assert sizes.keys() == {"container", "card", "index", "positions", "codes", *("weights.float32", "vectors.float32")} | {
        "vectors.int64"
    }
    assert 4000 < sizes["weights.float32"] < 4 * (1200 + 160) and sizes["card"] < 40


def test_what_zstd_gives_is_a_safetensors_file(path):
    parts = container(path)
    assert json.loads(parts["card"].tobytes()) == CARD
    assert [entry["name"] for entry in json.loads(parts["index"].tobytes())] == list(STATE)
    values = parts["weights.float32"].T.copy().view(np.float32)[:1200, 0]
    assert np.array_equal(values.reshape(40, 30), STATE["dense"].numpy())


def test_a_failed_write_leaves_the_old_file(path, monkeypatch):
    before = path.read_bytes()
    monkeypatch.setattr("adamas.packed.file.tensor_limit", lambda size: 5)
    with pytest.raises(AdamasError, match="expected tensors of at most 5 bytes in so small a file"):
        write_packed(path, CARD, STATE, {})
    assert path.read_bytes() == before and os.listdir(path.parent) == ["model.adamas"]


# ------------------------------------------------------------------------------------------------------- damaged


def refused(path: Path, sentence: str) -> None:
    with pytest.raises(AdamasError, match=sentence) as caught:
        read_packed(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_files_that_are_something_else_are_refused(path):
    for content in (b"", b"x", b"PK\x03\x04" * 20, frame(b"abc"), path.read_bytes()[32:], path.read_bytes()[:14]):
        path.write_bytes(content)
        refused(path, "expected a file that `adamas pack` wrote, got something else")


def test_another_version_is_refused(path):
    data = path.read_bytes()
    path.write_bytes(data[:15] + b"\x07" + data[16:])
    refused(path, "expected version 1 of the packed format, got 7; a newer adamas may read it")
    path.write_bytes(data[:15])
    refused(path, "expected version 1 of the packed format, got 0")


def test_a_cut_at_any_place_is_refused(path):
    data = path.read_bytes()
    for end in [*range(17, 60), *range(60, len(data), 97), len(data) - 1]:
        path.write_bytes(data[:end])
        refused(path, "checksum says that it is damaged or cut short")


def test_a_changed_byte_at_any_place_is_refused(path):
    data = path.read_bytes()
    for at in [*range(60), *range(60, len(data), 61), len(data) - 1]:
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        refused(path, "expected")


def test_a_byte_too_many_is_refused(path):
    path.write_bytes(path.read_bytes() + b"\0")
    refused(path, "damaged or cut short")


# -------------------------------------------------------------------------- hostile: the checksum is right, the rest is not


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "expected one zstd frame, got not enough data"),
        (b"no frame at all", "expected one zstd frame, got .*Unknown frame descriptor"),
        (frame(b"abc" * 99)[:-5], "expected one zstd frame, got"),
        (frame(b"abc") + frame(b"abc"), "expected one zstd frame, got .*unused data"),
        (frame(b""), "expected a safetensors container, got"),
        (frame(b"abc"), "expected a safetensors container, got"),
        (frame(b"\xff" * 64), "expected a safetensors container, got"),
        (zstandard.ZstdCompressor(write_content_size=False).compress(b"abc"), "it declares no size"),
        (frame(bytes(2**21)), "expected at most 1,048,576 bytes of content in so small a file, it declares 2,097,152 bytes"),
    ],
)
def test_bodies_that_are_no_container_are_refused(tmp_path, body, sentence):
    refused(sealed(tmp_path / "x.adamas", body), sentence)


def test_a_bomb_is_refused_without_its_memory(tmp_path):
    honest = frame(bytes(2**28))
    absurd = honest[:4] + bytes([0xE0 | honest[4] & 0x1F]) + (2**60).to_bytes(8, "little") + honest[9:]  # declares 2^60 bytes
    understated = honest[:4] + bytes([honest[4] & 0x3F | 0x40]) + b"\x00\x01" + honest[9:]
    for body in (honest, absurd, understated):
        path = sealed(tmp_path / "bomb.adamas", body)
        tracemalloc.start()
        refused(path, "expected (at most .* bytes of content|one zstd frame)")
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 2**22


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"card": text(b"{")}, "expected a card and an index in JSON, got Expecting property name"),
        ({"card": text(b"")}, "expected a card and an index in JSON"),
        ({"card": text([1])}, "expected a card that is a JSON object, got list"),
        ({"index": text(b"\xff")}, "expected a card and an index in JSON, got .*can't decode"),
        ({"index": text(b"[" * 200_000)}, "expected a card and an index in JSON, got .*recursion"),
        ({"index": text(b"[" + b"9" * 5000 + b"]")}, "expected a card and an index in JSON, got Exceeds the limit"),
        ({"index": text({"a": 1})}, "expected an index of tensors, got one with .*Input should be a valid list"),
        ({"index": text([{"name": "w"}])}, "expected an index of tensors, got one with 0.dtype: .*required"),
        (
            {"index": text([{"name": "w", "dtype": "float32", "shape": [-1]}])},
            "0.shape.0: Input should be greater than or equal to 0",
        ),
        (
            {"index": text([{"name": "w", "dtype": "float32", "shape": [2], "values": "huffman"}])},
            "values: .*'raw', 'codebook' or",
        ),
        (
            {"index": text([{"name": "w", "dtype": "float32", "shape": [2], "positions": "csr"}])},
            "positions: .*'all', 'bitmap'",
        ),
        (
            {"index": text([{"name": "w", "dtype": "float32", "shape": [2], "width": 17}])},
            "0.width: Input should be less than or equal to 16",
        ),
        (
            {"index": text([{"name": "w", "dtype": "float32", "shape": [2**40]}])},
            "expected tensors of at most 67,108,864 bytes",
        ),
        ({"index": text([])}, "expected codes of shape None, as the index says"),
        ({"codes": np.zeros((2, 2), np.uint8)}, "expected codes of shape"),
        ({"positions": np.zeros(150, np.int16)}, "expected positions of shape"),
    ],
)
def test_contents_that_contradict_themselves_are_refused(path, changed, sentence):
    refused(sealed(path, frame(save(container(path) | changed))), sentence)


def test_a_card_of_absurd_length_is_refused(path, monkeypatch):
    monkeypatch.setattr("adamas.packed.file.TEXT", 100)
    refused(path, "expected a card and an index of at most 100 bytes, got more")


def test_positions_that_contradict_the_index_are_refused_when_the_tensors_are_made(path):
    parts = container(path)
    parts["positions"] = np.full_like(parts["positions"], 254)
    sealed(path, frame(save(parts)))
    with pytest.raises(AdamasError, match="few: expected .* positions below 3000, got"):
        read_packed(path).state()


def test_random_damage_below_the_checksum_never_crashes(path):
    parts, generator = container(path), np.random.default_rng(0)
    whole = save(parts)
    for _ in range(300):
        data = bytearray(whole)
        for at in generator.integers(0, len(data) if generator.random() < 0.5 else 900, 3):
            data[at] = generator.integers(256)
        sealed(path, frame(bytes(data)))
        try:
            read_packed(path).state()
        except AdamasError as error:
            assert len(str(error)) > 20


def test_the_parts_are_what_the_layout_says(path):
    entries, parts = arranged(STATE, {})
    found = read_packed(path)
    assert found.entries == entries and all(np.array_equal(found.parts[name], parts[name]) for name in parts)
