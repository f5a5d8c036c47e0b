"""What the terminal shows of an evaluation, an audit and a curve."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from rich.console import Console, RenderableType

from adamas.audit import Audited
from adamas.curve import Curve
from adamas.deploy.parity import Parity
from adamas.errors import AdamasError
from adamas.evaluate import Evaluation
from adamas.report.curve import write_curve
from adamas.report.evaluation import audited, curved, evaluated
from adamas.verdict import AttackResult, Rate, Verdict

ATTACKS = [
    AttackResult("pgd", "cross-entropy gradient", 90, 30, Rate.of(60, 100), 1.25),
    AttackResult("square", "black-box", 60, 5, Rate.of(55, 100), 99.0),
]
FILE = Verdict(Rate.of(91, 100), ATTACKS, Rate.of(54, 100))
FOUND = Evaluation(Rate.of(90, 100), ATTACKS, Rate.of(55, 100), "linf(eps=8/255)", 3, ["a [red]flag[/red]"], {"m.onnx": FILE})
CURVE = Curve("linf", "fmn", 4, 3, [0.0, 0.02, 0.05, float("inf")], [0.0, 0.03], [Rate.of(3, 4), Rate.of(2, 4)], 0.035, ["f"])


def shown(what: RenderableType) -> str:
    console = Console(width=160, color_system=None)
    with console.capture() as capture:
        console.print(what)
    return " ".join(capture.get().split())


def test_every_figure_has_attack_threat_n_seed_and_interval():
    text = shown(evaluated("net", FOUND))
    assert "net: linf(eps=8/255), n = 100, seed 3" in text
    assert "clean 90.0% 82.6% - 94.5%" in text
    assert "pgd 60.0% 50.2% - 69.1% 90 30 1.2" in text and "square 55.0% 45.2% - 64.4% 60 5 99.0" in text
    assert "m.onnx: clean 91.0% (83.8% - 95.2%), worst case 54.0% (44.3% - 63.4%)" in text
    assert "! a [red]flag[/red]" in text  # shown as it is, not as markup


def test_a_network_that_draws_noise_stands_beside_itself_without():
    quiet = Verdict(Rate.of(88, 100), [], Rate.of(40, 100))
    text = shown(evaluated("net", replace(FOUND, samples=8, noise_off=quiet)))
    assert "n = 100, seed 3, mean of 8 draws of its noise" in text
    assert "noise off, under the same attacks: clean 88.0% (80.2% - 93.0%), worst case 40.0% (30.9% - 49.8%)" in text
    assert "m.onnx, which draws no noise: clean 91.0%" in text
    assert "mean of 1 draw of its noise" in shown(evaluated("net", replace(FOUND, noise_off=quiet)))
    assert "noise" not in shown(evaluated("net", FOUND)) and "draw" not in shown(evaluated("net", FOUND))


def test_an_audit_opens_with_what_the_engine_says():
    found = Audited("m.onnx", "ab" * 32, 12345, "ONNX Runtime 1.2, CPU", FILE, FOUND, Parity(100, 0.99, 0.1), ["look"])
    text = shown(audited(found))
    assert text.startswith("m.onnx (12,345 bytes, sha256 abababababababab...) on ONNX Runtime 1.2, CPU worst case 54.0%")
    assert "the same prediction as the file on 99.0% of 100 images" in text and text.endswith("! look")


def test_a_curve_is_a_table_and_a_file(tmp_path):
    text = shown(curved("net", CURVE))
    assert "net: linf, fmn, n = 4, seed 3; median distance 0.035" in text and "0.03 50.0% 15.0% - 85.0%" in text
    figures = json.loads(write_curve(CURVE, tmp_path / "c.json").read_text())
    assert figures["distances"] == [0.0, 0.02, 0.05, None]
    assert write_curve(CURVE, tmp_path / "c.svg").read_text().lstrip().startswith("<?xml")
    assert write_curve(CURVE, tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    write_curve(replace(CURVE, epsilons=[0.0], rates=[Rate.of(3, 4)]), tmp_path / "zero.png")
    with pytest.raises(AdamasError, match=r"c\.gif: expected a file that ends in \.json, \.svg, \.png, got \.gif"):
        write_curve(CURVE, tmp_path / "c.gif")
