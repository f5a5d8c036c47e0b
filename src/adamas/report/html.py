"""One self-contained HTML page: what was measured, how sure it is, how it was made, and what speaks against it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from adamas.artifact import Artifact
from adamas.files import write
from adamas.report import plots, text
from adamas.report.describe import origin, recipe_yaml, threat_sentence
from adamas.report.remarks import Remark, findings, headline
from adamas.report.rows import Row, rows
from adamas.report.table import columns, common_attacks, notes

TEMPLATE = "report.html.j2"


def write_report(artifacts: Iterable[Artifact], path: Path | str, title: str = "") -> Path:
    """Write the report on these artifacts as one HTML file that needs nothing else. Errors: no artifact."""
    made = rows(artifacts)
    found = findings(made)
    titles = {row.runs[0].card["title"] for row in made}
    page = (
        _environment()
        .get_template(TEMPLATE)
        .render(
            title=title or (titles.pop() if len(titles) == 1 else "") or "Report",
            headline=headline(made),
            rows=made,
            numbered=plots.numbered(made),
            columns=columns(made, common_attacks(made)),
            notes=notes(made, {}),
            remarks=found,
            marks=_marks(found),
            figures=[(caption, Markup(drawing)) for caption, drawing in _figures(made) if drawing],
            largest=4 * max(row.params for row in made),
        )
    )
    return write(Path(path), lambda temporary: temporary.write_text(page, encoding="utf-8"))


def _marks(found: Sequence[Remark]) -> dict[tuple[str, str], list[tuple[int, bool]]]:
    """Numbers of the remarks, and whether they are alarms, by row name and figure."""
    marks: dict[tuple[str, str], list[tuple[int, bool]]] = defaultdict(list)
    for number, remark in enumerate(found, 1):
        for row in remark.rows if remark.figure else ():
            marks[row.name, remark.figure].append((number, remark.alarm))
    return marks


def _figures(made: Sequence[Row]) -> list[tuple[str, str]]:
    """Captions and drawings; a single row is compared with nothing."""
    latency = ("Latency of the exported files", plots.latency_plot(made))
    if len(made) == 1:
        return [latency]
    which = " (numbered as in the table)" if plots.numbered(made) else ""
    accuracy = (f"Robust against clean accuracy{which}", plots.accuracy_plot(made))
    return [accuracy, (f"Robust accuracy against size{which}", plots.size_plot(made)), latency]


def _curves(row: Row, number: int) -> list[Markup]:
    return [Markup(drawing) for drawing in plots.curves(row.runs, f"model{number}")]


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": text.percent, "short": text.short, "size": text.size, "ms": text.ms}
    environment.globals |= {"curves": _curves, "threat_sentence": threat_sentence, "recipe_yaml": recipe_yaml, "origin": origin}
    return environment
