"""The plots of a report, labelled in place; shape and colour tell int8 from fp32."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import Bbox

from adamas.deploy.files import INT8
from adamas.report.labels import label
from adamas.report.rows import Row, Run, Share
from adamas.report.svg import BLUE, INK, MUTED, ORANGE, svg
from adamas.report.text import cut, ms, size

MOST_NAMES = 8
"""Points that have room for their names; more are numbered as the rows of the table."""


def numbered(rows: Sequence[Row]) -> bool:
    """Whether points stand for rows by number."""
    return len(rows) > MOST_NAMES


def accuracy_plot(rows: Sequence[Row]) -> str:
    """Worst case of the shipped files against their clean accuracy, with 95 % intervals (over seeds: one sd)."""

    def draw(figure: Figure) -> None:
        ax = figure.subplots()
        _scatter(ax, rows, lambda row: 100 * row.shipped_clean.value, lambda row: row.shipped_clean)
        ax.set_xlabel("clean accuracy, %")

    return svg(draw, "accuracy", 5.4, 4.2)


def size_plot(rows: Sequence[Row]) -> str:
    """Worst case of the shipped files against their bytes on disk."""

    def draw(figure: Figure) -> None:
        ax = figure.subplots()
        low, high = min(row.size for row in rows) / 1.8, max(row.size for row in rows) * 1.8
        ax.set_xscale("log")
        ax.set_xlim(low, high)
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: re.sub(r"\.0+ ", " ", size(value))))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_xlabel("file on disk, logarithmic")
        _scatter(ax, rows, lambda row: row.size)

    return svg(draw, "size", 5.4, 4.2)


def latency_plot(rows: Sequence[Row]) -> str:
    """Median latency of one image for every exported file; empty when nothing was timed."""
    timed = [row for row in rows if row.latency]
    if not timed:
        return ""

    def draw(figure: Figure) -> None:
        ax, at, longest = figure.subplots(), 0.0, max(max(row.latency.values()) for row in timed)
        middles = []
        for row in timed:
            middles.append(at + 0.45 * (len(row.latency) - 1))
            for file, value in row.latency.items():
                ax.barh(at, value, 0.8, color=ORANGE if file == INT8 else BLUE)
                ax.text(value + longest / 60, at, f"{ms(value)} ms {_precision(file)}", va="center", fontsize=9)
                at += 0.9
            at += 0.5
        ax.set_yticks(middles, [cut(row.name, 30) for row in timed])
        ax.tick_params(axis="y", length=0, labelcolor=INK)
        ax.set_ylim(at - 0.8, -0.7)
        ax.set_xlim(0, longest * 1.25)
        ax.grid(visible=False, axis="y")
        ax.set_xlabel("milliseconds for one image, median")

    bars = sum(len(row.latency) for row in timed)
    return svg(draw, "latency", 7.2, 0.8 + 0.25 * bars + 0.14 * len(timed))


def curves(runs: Sequence[Run], name: str = "model") -> list[str]:
    """Training loss and, where there is one, validation accuracy over the epochs of all stages, one line per seed.

    `name` tells the drawings from others in the same page. No epochs, no drawings.
    """
    loss = _curve(runs, "loss", "training loss", 1, BLUE, name)
    validation = _curve(runs, "validation", "validation accuracy, %", 100, ORANGE, name)
    return [drawing for drawing in (loss, validation) if drawing]


def _curve(runs: Sequence[Run], key: str, title: str, scale: float, color: str, name: str) -> str:
    lines = [[(i, scale * epoch[key]) for i, epoch in enumerate(_epochs(run), 1) if key in epoch] for run in runs]
    if not any(lines):
        return ""

    def draw(figure: Figure) -> None:
        ax = figure.subplots()
        for line in lines:
            ax.plot([i for i, _ in line], [value for _, value in line], ".-", color=color, lw=1.4, ms=4, alpha=0.8)
        ends = set(itertools.accumulate(len(stage["epochs"]) for stage in runs[0].card["stages"])) - {0, len(_epochs(runs[0]))}
        for end in sorted(ends):
            ax.axvline(end + 0.5, color=MUTED, lw=0.8, ls=":")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        ax.set_title(title, loc="left", fontsize=9, color=color)
        ax.set_xlabel("epoch; dotted: next stage" if ends else "epoch")

    return svg(draw, f"{name}-{key}", 3.4, 2.1)


def _epochs(run: Run) -> list[dict[str, float]]:
    return [epoch for stage in run.card["stages"] for epoch in stage["epochs"]]


def _precision(file: str) -> str:
    return "int8" if file == INT8 else "fp32"


def _scatter(ax: Axes, rows: Sequence[Row], x: Callable[[Row], float], across: Callable[[Row], Share] | None = None) -> None:
    """Worst cases with their intervals and names; circles are float files, squares int8."""
    points, lines = [(x(row), 100 * row.shipped_worst_case.value) for row in rows], []
    for row, (at, up) in zip(rows, points, strict=True):
        marker, color = ("s", ORANGE) if row.shipped == INT8 else ("o", BLUE)
        ax.plot(at, up, marker, color=color, ms=6, zorder=3)
        low, high = _ends(row.shipped_worst_case)
        lines.append(Bbox([[at, low], [at, high]]))
        if across is not None:
            left, right = _ends(across(row))
            lines.append(Bbox([[left, up], [right, up]]))
        for line in lines[-2 if across else -1 :]:
            ax.plot(line.intervalx, line.intervaly, color=color, lw=1.2, alpha=0.5)
    ax.set_ylabel("worst case as shipped, %")
    ax.margins(0.12)
    _legend(ax, rows)
    names = [str(i) if numbered(rows) else cut(row.name, 28) for i, row in enumerate(rows, 1)]
    label(ax, points, names, lines)


def _ends(share: Share) -> tuple[float, float]:
    """The interval in per cent; over seeds, one standard deviation to either side."""
    if share.sd is not None:
        return 100 * (share.value - share.sd), 100 * (share.value + share.sd)
    return 100 * share.low, 100 * share.high


def _legend(ax: Axes, rows: Sequence[Row]) -> None:
    present = {row.shipped == INT8 for row in rows}
    if True in present:
        ax.text(1, 1.03, "■ int8", color=ORANGE, ha="right", transform=ax.transAxes, fontsize=9)
    if False in present:
        ax.text(0.88 if True in present else 1, 1.03, "● fp32", color=BLUE, ha="right", transform=ax.transAxes, fontsize=9)
