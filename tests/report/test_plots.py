from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any

from adamas.report.plots import accuracy_plot, curves, latency_plot, size_plot
from adamas.report.rows import rows


def words(svg: str) -> list[str]:
    return ["".join(text.itertext()) for text in ET.fromstring(svg).iter("text")]


def models(make: Any) -> list[Any]:
    return [make(name="dense", keep=0.1), make(name="a < b & $c_d", keep=0.2, int8=True, worst=590)]


def test_points_and_bars_are_labelled_by_name(make: Any) -> None:
    made = rows(models(make))
    for svg in (accuracy_plot(made), size_plot(made), latency_plot(made)):
        assert {"dense", "a < b & $c_d"} <= set(words(svg))
    assert {"0.050 ms fp32", "0.070 ms int8"} <= set(words(latency_plot(made)))


def test_drawings_are_deterministic_and_take_colours_from_the_page(make: Any) -> None:
    made = rows(models(make))
    svg = size_plot(made)
    assert svg == size_plot(made)
    assert "http" not in svg and "<style" not in svg and "font-family" not in svg
    assert {"ink", "muted", "rule", "blue", "orange"} == set(re.findall(r"var\(--(\w+)", svg))


def test_ids_of_two_drawings_differ(make: Any) -> None:
    made = rows(models(make))
    ids = [set(re.findall(r' id="([^"]+)"', plot(made))) for plot in (accuracy_plot, size_plot)]
    assert ids[0] and not ids[0] & ids[1]
    assert set(re.findall(r'(?:url\(|href=")#([^")]+)', accuracy_plot(made))) <= ids[0]


def test_equal_points_keep_readable_labels(make: Any) -> None:
    made = rows([make(name=f"model {i}", keep=(i + 1) / 10) for i in range(6)])
    text = [element for element in ET.fromstring(accuracy_plot(made)).iter("text") if (element.text or "").startswith("model")]
    assert len({(element.get("x"), element.get("y")) for element in text}) == 6


def test_many_points_are_numbered(make: Any) -> None:
    made = rows([make(name=f"model {i}", keep=i / 10) for i in range(1, 10)])
    assert "9" in words(size_plot(made)) and "model 9" not in words(size_plot(made))
    assert "model 8" in words(size_plot(made[:8])) and "model 9" in words(latency_plot(made))


def test_nothing_timed_nothing_drawn(make: Any) -> None:
    assert latency_plot(rows([make(timed=False)])) == ""


def test_curves_show_loss_and_validation_over_all_stages(make: Any) -> None:
    loss, validation = curves(rows([make(int8=True)])[0].runs)
    assert "training loss" in words(loss) and "validation accuracy, %" in words(validation)
    assert "epoch; dotted: next stage" in words(loss) and "5" in words(loss)
    assert "epoch" in words(curves(rows([make()])[0].runs)[0])


def test_no_epochs_no_curves(make: Any) -> None:
    artifact = make()
    artifact.card["stages"] = [{"stage": "filters(keep=0.2)", "seconds": 1.0, "epochs": [], "notes": []}]
    assert curves(rows([artifact])[0].runs) == []
