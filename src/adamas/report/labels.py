"""Names beside the points of a plot, placed where they cover least."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from adamas.report.svg import MUTED


class Place(NamedTuple):
    """Where a label may stand: points away from its point, offset in points, alignment."""

    radius: int
    dx: float
    dy: float
    align: str


PLACES = [
    Place(radius, radius * dx, radius * dy, "center" if not dx else "left" if dx > 0 else "right")
    for radius in (10, 18, 28, 40, 55)
    for dx, dy in ((0.9, 0), (-0.9, 0), (0, 1.1), (0, -1.1), (0.8, 0.8), (-0.8, 0.8), (0.8, -0.8), (-0.8, -0.8))
]


def label(ax: Axes, points: Sequence[tuple[float, float]], names: Sequence[str], lines: Sequence[Bbox]) -> None:
    """Write each name near its point; covering a point or a name is worse than leaving the frame, a line least.

    `points` and `lines` (thin boxes that are better left free) are in data units; names are taken in order.
    """
    canvas = FigureCanvasAgg(ax.get_figure(root=True))  # type: ignore[arg-type]
    canvas.draw()
    renderer, frame = canvas.get_renderer(), ax.get_window_extent()
    solid = [Bbox.from_extents(x - 5, y - 5, x + 5, y + 5) for x, y in ax.transData.transform(points)]
    thin = [line.transformed(ax.transData).padded(1) for line in lines]
    for point, name in zip(points, names, strict=True):
        text = ax.annotate(name, point, xytext=(0, 0), textcoords="offset points", fontsize=9, va="center")
        scores = [_badness(_put(text, place, renderer), frame, solid, thin) + place.radius / 100 for place in PLACES]
        place = PLACES[scores.index(min(scores))]
        solid.append(_put(text, place, renderer))
        if place.radius > PLACES[0].radius:
            line = {"arrowstyle": "-", "color": MUTED, "lw": 0.6, "shrinkA": 1, "shrinkB": 4}
            ax.annotate("", point, xytext=(place.dx, place.dy), textcoords="offset points", arrowprops=line)


def _put(text: Annotation, place: Place, renderer: RendererBase) -> Bbox:
    """Move a label and return the box of its letters."""
    text.xyann = place.dx, place.dy
    text.set_horizontalalignment(place.align)  # type: ignore[arg-type]
    text.update_positions(renderer)
    return Text.get_window_extent(text, renderer).padded(1)


def _badness(box: Bbox, frame: Bbox, solid: Sequence[Bbox], thin: Sequence[Bbox]) -> float:
    outside = box.x0 < frame.x0 or box.x1 > frame.x1 or box.y0 < frame.y0 or box.y1 > frame.y1
    return 3 * sum(box.overlaps(other) for other in solid) + 2 * outside + 0.4 * sum(box.overlaps(other) for other in thin)
