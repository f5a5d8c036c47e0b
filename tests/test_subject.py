"""What commands open: artifacts and files, with whose data and threat."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import adamas
from adamas.deploy.export import export_onnx
from adamas.errors import AdamasError
from adamas.registry import parse
from adamas.subject import share, subject
from tests.helpers import SmallNet


@pytest.fixture(scope="module")
def artifact(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    recipe = parse(
        adamas.Recipe,
        {
            "data": "digits", "model": {"name": "cnn8", "width": 8}, "threat": {"name": "linf", "eps": 0.05}, "seed": 3,
            "split": {"train": 100, "test": 20}, "stages": [{"fit": {"epochs": 1}}], "evaluate": {"attacks": ["fgsm"]},
        },
    )  # fmt: skip
    return adamas.run(recipe, out=folder, name="net", timed=False).path


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return export_onnx(SmallNet().eval(), tmp_path_factory.mktemp("file") / "net.onnx", (1, 8, 8))


def test_an_artifact_brings_its_own_data_threat_seed_and_file(artifact):
    found = subject(artifact)
    assert (str(found.threat), found.seed, len(found.data.test)) == ("linf(eps=0.05)", 3, 20)
    assert found.file == artifact / "model.fp32.onnx" and found.artifact is not None
    changed = subject(artifact, n=7, eps="1/10", seed=5)
    assert (str(changed.threat), changed.seed, len(changed.data.test)) == ("linf(eps=0.1)", 5, 7)
    assert str(subject(artifact, norm="l2").threat) == "l2(eps=0.5)"
    assert str(subject(artifact, norm="l2", eps="2").threat) == "l2(eps=2.0)"


def test_a_file_is_its_own_twin_and_needs_data(file, tmp_path):
    found = subject(file, dataset="digits", n=11)
    assert (str(found.threat), found.seed, len(found.data.test), found.file) == ("linf(eps=8/255)", 0, 11, file)
    assert found.model(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    with pytest.raises(AdamasError, match=r"net\.onnx: expected --data, the test images to attack the file on"):
        subject(file)
    x, y = np.zeros((10, 8, 8), np.uint8), np.arange(10)
    np.savez(tmp_path / "mine.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    assert len(subject(file, dataset=str(tmp_path / "mine.npz")).data.test) == 10


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"eps": "8"}, r"eps: expected at most 1, .* got 8\.0; did you mean 8/255\?"),
        ({"norm": "linv"}, "unknown threat 'linv'; did you mean 'linf'"),
        ({"dataset": "digit"}, "unknown dataset 'digit'; did you mean 'digits'"),
    ],
)
def test_mistakes_are_named_before_anything_is_loaded(artifact, file, changes, sentence):
    for path in (artifact, file):
        with pytest.raises(AdamasError, match=sentence):
            subject(path, **changes)


def test_shares():
    assert share("2/4") == (2, 4)
    for text in ("2", "0/3", "a/b", "1/2/3", "-1/2"):
        with pytest.raises(AdamasError, match=f"part: expected a share of the images such as 2/4, got '{text}'"):
            share(text)
