"""Many recipes, one after the other: a row that fails is reported at the end and costs no other row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from adamas.artifact import Artifact
from adamas.errors import AdamasError
from adamas.pipeline import complete, run, slug
from adamas.recipe import Recipe


def sweep(
    rows: Mapping[str, Recipe],
    *,
    out: Path | str = "runs",
    group: str = "",
    data_dir: Path | str | None = None,
    device: str = "auto",
    announce: Callable[[str], None] = lambda line: None,
) -> list[Artifact]:
    """Run every row into out/group/row, then time all exported files side by side; returns the artifacts in order.

    Errors: one AdamasError at the end that lists every row that failed; what the others made is kept.
    """
    names = {row: f"{group}/{row}" if group else row for row in rows}
    if len({slug(name) for name in names.values()}) < len(names):
        raise AdamasError(f"expected rows that differ in letters and digits, got {', '.join(rows)}")
    artifacts, failures = [], []
    for row, recipe in rows.items():
        announce(row)
        try:
            artifacts.append(run(recipe, out=out, name=names[row], data_dir=data_dir, device=device, timed=False))
        except AdamasError as error:
            failures.append(f"{row}: {error}")
    complete(artifacts)
    if failures:
        raise AdamasError(
            "\n".join([*failures, f"{len(artifacts)} of {len(rows)} rows are finished and kept in {Path(out) / group}"])
        )
    return artifacts
