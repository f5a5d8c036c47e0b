"""Drawings as inline SVG: coloured through CSS variables, so that they follow the page into the dark."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK, MUTED, RULE, BLUE, ORANGE = "#1b1f24", "#5b6470", "#d5d9df", "#0067a8", "#c25100"
VARIABLES = {INK: "ink", MUTED: "muted", RULE: "rule", BLUE: "blue", ORANGE: "orange"}
"""Colours of paper and the CSS variables that replace them; blue and orange differ to every eye, and in shape besides."""
STYLE = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "text.parse_math": False,
}


def svg(draw: Callable[[Figure], None], name: str, width: float, height: float) -> str:
    """An <svg> element that takes its size, font and colours from the page; `name` starts every id in it."""
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": name}):  # type: ignore[arg-type]
        figure, file = Figure(figsize=(width, height), layout="constrained"), io.StringIO()
        draw(figure)
        figure.set_canvas(FigureCanvasSVG(figure))
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})  # type: ignore[arg-type]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", file.getvalue(), flags=re.DOTALL)
    text = re.sub(r'^.*?<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" role="img">', text, count=1, flags=re.DOTALL)
    text = re.sub(r"( id=\"|url\(#|href=\"#)", rf"\1{name}-", text.replace("xlink:href", "href"))
    text = text.replace("font-family: 'DejaVu Sans'; ", "")
    for color, variable in VARIABLES.items():
        text = text.replace(color, f"var(--{variable}, {color})")
    return text
