"""Packing on the command line: bytes by part, one file that every verb takes, sentences for what is no packed file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.test_cli import QUICK, adamas


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pack")
    adamas("train", "--model", "cnn8", "--out", "runs/net", *QUICK, "model.width=8", cwd=folder)
    adamas("compress", "runs/net", "ptq", "--out", "runs/int8", cwd=folder)
    return folder


def test_an_artifact_is_packed_measured_and_unpacked(folder: Path) -> None:
    printed = adamas("pack", "runs/int8", "--out", "small.adamas", cwd=folder)
    size = (folder / "small.adamas").stat().st_size
    for part in ("small.adamas", "positions", "codes", "codebooks and scales", "biases, norms, ranges", "card", f"{size:,}"):
        assert part in printed, part
    assert "entropy bound of its tensors" in printed and "dense, 32 bits a weight" in printed
    assert "n = 20, seed 0" in adamas("evaluate", "small.adamas", "-a", "fgsm", "-n", "20", cwd=folder)
    assert "artifact: runs/back" in adamas("unpack", "small.adamas", "--out", "runs/back", cwd=folder)
    adamas("export", "small.adamas", cwd=folder)
    assert (folder / "model.int8.onnx").read_bytes() == (folder / "runs/int8/model.int8.onnx").read_bytes()


def test_mistakes_are_sentences(folder: Path) -> None:
    assert "runs/net/model.adamas" in adamas("pack", "runs/net", cwd=folder)
    for arguments, sentence in (
        (["unpack", "runs/net"], "runs/net: expected a packed file, got an artifact's directory"),
        (["unpack", "runs/net/card.json"], "runs/net/card.json: expected a file that `adamas pack` wrote, got something else"),
        (["report", "runs/net/model.adamas", "--benchmark"], "to write benchmark.json to, got a packed file; unpack it first"),
        (["report", "runs/net/model.adamas"], "got a packed file, which has none; measure with `adamas evaluate"),
    ):
        assert sentence in " ".join(adamas(*arguments, cwd=folder, code=1).split())
