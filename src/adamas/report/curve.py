"""A security curve as a file: figures, or a drawing of accuracy against eps."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from adamas.curve import Curve
from adamas.errors import AdamasError
from adamas.files import write, write_json
from adamas.report.svg import BLUE, STYLE

FORMATS = (".json", ".svg", ".png")


def write_curve(curve: Curve, path: Path) -> Path:
    """Write the figures (.json) or a drawing (.svg, .png). Errors: any other ending."""
    if path.suffix not in FORMATS:
        raise AdamasError(f"{path}: expected a file that ends in {', '.join(FORMATS)}, got {path.suffix or 'no ending'}")
    if path.suffix == ".json":
        return write_json(path, curve.plain())
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": "curve"}):  # type: ignore[arg-type]
        figure = Figure(figsize=(6.4, 4.2), layout="constrained", dpi=150)
        _draw(figure, curve)
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        return write(path, lambda temporary: figure.savefig(temporary, format=path.suffix[1:], metadata=metadata))  # type: ignore[arg-type]


def _draw(figure: Figure, curve: Curve) -> None:
    """The exact staircase, its 95 % interval as a band, and a dot at every eps that was asked for."""
    end = curve.epsilons[-1] or 1.0
    steps = sorted({0.0, *(d for d in curve.distances if math.isfinite(d) and d <= end), end})
    rates = [curve.at(eps) for eps in steps]
    ax = figure.subplots()
    low, high = ([100 * getattr(rate, side) for rate in rates] for side in ("low", "high"))
    ax.fill_between(steps, low, high, step="post", color=BLUE, alpha=0.15, linewidth=0)
    ax.step(steps, [100 * rate.value for rate in rates], where="post", color=BLUE)
    ax.plot(curve.epsilons, [100 * rate.value for rate in curve.rates], "o", color=BLUE, markersize=4)
    ax.set_xlim(0, end * 1.02)
    ax.set_ylim(0, 100)
    ax.set_xlabel(f"eps, {curve.threat}, pixels of a [0, 1] image")
    ax.set_ylabel("accuracy, %")
    ax.set_title(f"{curve.attack}, n = {curve.n}, seed {curve.seed}, band: 95 % interval", fontsize=9, loc="left")
