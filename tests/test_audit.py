"""The shipped file under attack: what counts is what the runtime says."""

from __future__ import annotations

from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import nn

from adamas.attacks.fgsm import FGSM
from adamas.attacks.pgd import PGD
from adamas.audit import Audit, audit
from adamas.compress.ptq import PTQ
from adamas.deploy.export import export_onnx
from adamas.deploy.runtime import OnnxModel
from adamas.errors import AdamasError
from adamas.evaluate import Evaluate, evaluate
from adamas.threat import Linf
from tests.helpers import SmallNet

THREAT = Linf(eps=0.1)
QUICK = Audit(evaluate=Evaluate(attacks=(PGD(steps=5),)), transfer=FGSM(), queries=10)


@pytest.fixture(scope="module")
def files(_trained, digits, tmp_path_factory) -> dict[str, Path]:
    """The trained network as float file, and its int8 form as integer file."""
    import copy

    folder, model = tmp_path_factory.mktemp("files"), copy.deepcopy(_trained)
    made = {"fp32": export_onnx(model, folder / "model.fp32.onnx", (1, 8, 8))}
    quantizer = PTQ()
    quantizer.attach(model)
    quantizer.calibrate(model, digits.train.batches(64, seed=1), THREAT)
    quantizer.finish(model)
    made["int8"] = export_onnx(model, folder / "model.int8.onnx", (1, 8, 8))
    return made


@pytest.mark.parametrize("kind", ["fp32", "int8"])
def test_the_headline_is_the_worst_case_on_the_runtime(files, digits, trained, kind):
    found = audit(files[kind], digits, THREAT, QUICK, sources={"parent": trained})
    assert [a.attack for a in found.file.attacks] == [
        "pgd(steps=5)", "fgsm on parent", f"square(queries=10) on model.{kind}.onnx",
    ]  # fmt: skip
    assert [a.family for a in found.file.attacks] == ["cross-entropy gradient", "transfer", "black-box"]
    assert found.agreement.agreement >= 0.99 and found.agreement.n == 120
    assert found.engine.startswith("ONNX Runtime 1.") and found.bytes == files[kind].stat().st_size and len(found.sha256) == 64
    clean = evaluate(OnnxModel(files[kind]), digits, Evaluate(attacks=(), checks=False), THREAT).clean
    assert found.file.clean == clean and found.file.worst_case.right < clean.right - 40
    assert abs(found.file.worst_case.right - found.twin.worst_case.right) <= 2
    assert asdict(found)["file"]["worst_case"]["n"] == 120


def test_a_file_that_hides_its_gradient_falls_to_the_queries(digits, trained, tmp_path):
    """A float file whose input is rounded to five levels in a way that the twin follows straight through is no defence; one
    whose logits saturate gives the cross-entropy nothing to follow, but its answers still give it away."""

    class Saturated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = trained

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x) * 1e4

    path = export_onnx(Saturated(), tmp_path / "saturated.onnx", (1, 8, 8))
    found = audit(path, digits, THREAT, Audit(evaluate=Evaluate(attacks=(PGD(steps=5),)), queries=150))
    white, black = found.file.attacks
    assert black.broken > 10 and found.file.worst_case.right < white.accuracy.right - 10
    assert found.flags


def test_a_twin_that_sees_another_model_is_flagged(files, digits, monkeypatch):
    monkeypatch.setattr(import_module("adamas.audit"), "twin", lambda path: SmallNet())  # adamas.audit is the function
    found = audit(files["fp32"], digits, THREAT, QUICK)
    assert found.agreement.agreement < 0.5
    assert found.flags[0].startswith("the twin predicts ") and "of 120 images unlike the file" in found.flags[0]


def test_what_is_no_onnx_file_is_named(tmp_path, digits):
    (tmp_path / "model.onnx").write_text("no model")
    with pytest.raises(AdamasError, match=r"model\.onnx: expected an ONNX model"):
        audit(tmp_path / "model.onnx", digits, THREAT)


def test_an_audit_is_kept_and_goes_on(files, digits, tmp_path):
    first = audit(files["int8"], digits, THREAT, QUICK, state=tmp_path)
    again = audit(files["int8"], digits, THREAT, QUICK, state=tmp_path)
    assert asdict(first) == asdict(again)
    assert (tmp_path / "outcomes.json").exists()
