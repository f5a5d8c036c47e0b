from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from adamas.errors import AdamasError
from adamas.report.html import write_report

VOID = {"meta", "br", "hr", "img", "link", "input", "wbr"}
EVIL = "<script>alert('x')</script>"


class Page(HTMLParser):
    """Checks that tags close in order; keeps text, ids, links and what a browser would load."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text, self.ids, self.links, self.loads = "", [], [], []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.open += [] if tag in VOID else [tag]
        self.ids += [values["id"]] if "id" in values else []
        if tag == "a":
            self.links.append(values["href"])
        self.loads += [values[key] for key in ("src", "data", "srcset") if key in values]
        self.loads += [tag] if tag in ("link", "script", "iframe", "img") else []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for key, value in attrs if key == "id"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "pre"} & set(self.open):
            self.text += data


def report(tmp_path: Path, *artifacts: Any, title: str = "") -> tuple[str, Page]:
    source = write_report(artifacts, tmp_path / "out" / "report.html", title).read_text(encoding="utf-8")
    return source, Page(source)


def test_the_page_parses_and_needs_nothing_else(make: Any, tmp_path: Path) -> None:
    made = [make(name="dense", keep=0.1), make(name="small", int8=True, worst=590, flags=("zero gradients: 9%",))]
    made += [make(name=f"many seed={seed}", keep=0.3, seed=seed) for seed in (0, 1)]
    source, page = report(tmp_path, *made, title="Comparison")
    assert page.loads == [] and "http" not in source and "url(" not in re.sub(r"url\(#", "", source) and "@import" not in source
    assert len(page.ids) == len(set(page.ids))
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    for word in ("NaN", "nan", "None", "Infinity", "undefined"):
        assert not re.search(rf"\b{word}\b", source), word
    assert "prefers-color-scheme: dark" in source and "Comparison" in page.text


def test_the_page_holds_the_figures(make: Any, tmp_path: Path) -> None:
    dense, small = make(name="dense", keep=0.1), make(
        name="small", int8=True, eps="8/255", clean=941, worst=612, shipped_worst=583, nonzeros=55_000, bits=8, agreement=0.994
    )  # fmt: skip
    source, page = report(tmp_path, dense, small)
    text = re.sub(r"\s+", " ", page.text)
    assert "conv1  32 =&gt; 16" in source
    assert "linf(eps=8/255): every pixel value may change by at most 8/255." in text
    for figure in ("94.1", "61.2", "58.3", "99.4", "56.9–63.0"):
        assert figure in text, figure
    assert "259 of 941" not in text and "241 of 941" in text  # fgsm left 700 of 941 standing
    assert "sparsity 90.0 %" in text and "55.0 kB40.0 x" in text.replace("> <", "")  # 4 x 550,000 bytes over 55,000
    assert "adversarial, 3 epochs" in text and "12.5" in text and "0.667" in text
    assert "Example CPU @ 2.00GHz" in text and "not recorded" in text and "eps: 8/255" in source
    assert "model.int8.onnx classifies 6 of 1,000 images unlike" in text


def test_marks_stand_at_the_figures_they_touch(make: Any, tmp_path: Path) -> None:
    source, _ = report(tmp_path, make(name="x", agreement=0.9))
    cell = re.search(r'<td data-label="agree %">.*?</td>', source, re.DOTALL)
    assert cell and '<a href="#remark-1" class="alarm">!1</a>' in cell[0]
    assert re.search(r'<li id="remark-1" class="alarm">x: model.fp32.onnx', source)


def test_foreign_text_is_escaped_wherever_it_comes_from(make: Any, tmp_path: Path) -> None:
    artifact = make(name=EVIL, title=EVIL, classes=(EVIL, "b"), flags=(EVIL,), attacks=((EVIL, 600),), processor=EVIL)
    artifact.card["network"] = artifact.card["data"]["name"] = artifact.card["commit"] = EVIL
    artifact.card["stages"] = [{"stage": EVIL, "seconds": 1.0, "epochs": [], "notes": []}]
    source, page = report(tmp_path, artifact)
    assert "<script" not in source and page.loads == []
    for words in (f"{EVIL} keeps", f"{EVIL}, b", f"{EVIL}, 1,257", f"{EVIL}, cores", f"{EVIL}: {EVIL}."):
        assert words in page.text, words


def test_untimed_and_untrained_models_have_a_page(make: Any, tmp_path: Path) -> None:
    artifact = make(timed=False, attacks=())
    artifact.card["stages"] = []
    source, page = report(tmp_path, artifact)
    assert "Latency was not measured" in page.text and "the weights are as they were given" in page.text
    assert "<svg" not in source and "None" not in source


def test_the_title_is_the_recipes_if_they_agree(make: Any, tmp_path: Path) -> None:
    assert "<h1>One</h1>" in report(tmp_path, make(title="One"))[0]
    assert "<h1>Report</h1>" in report(tmp_path, make(title="One"), make(title="Two", name="b"))[0]
    assert "<h1>Mine</h1>" in report(tmp_path, make(title="One"), title="Mine")[0]


def test_equal_artifacts_make_equal_bytes(make: Any, tmp_path: Path) -> None:
    artifacts = [make(name="dense", keep=0.1), make(name="small", int8=True)]
    assert report(tmp_path, *artifacts)[0] == report(tmp_path, *artifacts)[0]


def test_no_artifact_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(AdamasError, match="at least one artifact"):
        write_report([], tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []
