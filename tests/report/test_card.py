from __future__ import annotations

import re
from typing import Any

import yaml

from adamas.report.card import model_card


def test_the_card_holds_the_figures(make: Any) -> None:
    text = model_card(make(name="small", int8=True, clean=941, worst=612, shipped_worst=583, eps="8/255"))
    assert text.startswith("# small\n")
    assert "It ships as `model.int8.onnx` (560 kB) and keeps **58.3 %** of 1,000 test images in the worst case" in text
    assert "| clean | 941 of 1,000 | 94.1 | 92.5 to 95.4 |" in text
    assert "| after pgd(steps=50) | 600 of 1,000 | 60.0 | 56.9 to 63.0 |" in text
    assert "| **shipped file, worst case** | 583 of 1,000 | 58.3 |" in text
    assert "at most 8/255" in text and "digits: 1,257 images for training, 140 for validation, 1,000 for testing." in text
    assert "| qat + trades, 2 epochs | 2 | 8.2 | 1.000 |" in text
    assert "| `model.int8.onnx` | 1 | 0.070 | 0.105 |" in text
    assert "```\nconv1  32 => 16\n```" in text


def test_noise_off_stands_beside_the_headline_of_a_network_that_draws_noise(make: Any) -> None:
    text = model_card(make(worst=612, noise_off=(930, 583), shipped_worst=583))
    assert "The trained network keeps 61.2 %: it draws noise, and its figures are those of the mean of 8 draws; " in text
    assert "it keeps 58.3 % (55.2 to 61.3) in the worst case under the same attacks and 93.0 % (91.2 to 94.4)" in text
    assert "the file is exported without noise." in text
    assert "| noise off, clean | 930 of 1,000 | 93.0 | 91.2 to 94.4 |" in text
    assert "| **noise off, worst case** | 583 of 1,000 | 58.3 |" in text
    assert "noise off" not in model_card(make())


def test_limitations_hold_every_remark(make: Any) -> None:
    text = model_card(make(flags=("zero gradients: 9%",), agreement=0.9, int8=True))
    limits = text.split("## Limitations")[1].split("## Use")[0]
    for words in ("zero gradients", "100 of 1,000 images unlike", "1.4 x slower", "no black-box", "not proven", "One seed"):
        assert words in limits
    assert "> **Unsound?** zero gradients: 9%" in text


def test_the_use_is_code_for_the_shipped_file(make: Any) -> None:
    code = re.search(r"```python\n(.*?)\n```", model_card(make(int8=True)), re.DOTALL)
    assert code
    compile(code[1], "card", "exec")
    assert 'InferenceSession("model.int8.onnx")' in code[1] and "np.zeros((1, 1, 8, 8), dtype=np.float32)" in code[1]
    assert '{"image": images}' in code[1] and '"logits"' in code[1]


def test_the_recipe_can_be_read_back(make: Any) -> None:
    artifact = make(title="with ``` inside")
    recipe = re.search(r"````yaml\n(.*?)\n````", model_card(artifact), re.DOTALL)
    assert recipe and yaml.safe_load(recipe[1]) == artifact.card["recipe"]


def test_foreign_names_are_inert(make: Any) -> None:
    text = model_card(make(name="<script>x</script>", classes=("a|b", "[c](d)"), title="*t*"))
    prose = text.split("## Recipe")[0]
    assert "# \\<script\\>x\\</script\\>" in prose and "a\\|b, \\[c\\](d)" in prose and "\\*t\\*." in prose
    assert "<script>" not in prose.replace("\\<script\\>", "")


def test_models_as_they_were_given_and_untimed(make: Any) -> None:
    artifact = make(timed=False)
    artifact.card["stages"] = []
    text = model_card(artifact)
    assert "No stage was run" in text and "latency" not in text and "None" not in text
