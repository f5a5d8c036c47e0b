"""Progress bars on a terminal; one line per finished step, if it took over two seconds, anywhere else."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

QUIET = 60
"""Seconds between two lines of a long job where there is no terminal to draw a bar on."""

console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
errors = Console(stderr=True, highlight=False, soft_wrap=True)
_bars: list[Progress] = []


@contextmanager
def progress(label: str, total: float) -> Iterator[Callable[..., None]]:
    """A bar of `total` steps; call the yielded function after each step (or several), with a short note if there is one."""
    start, last = time.monotonic(), ""
    said = start
    bar = _bars[-1] if _bars else Progress(
        TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[note]}"), console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip
    owner = not _bars
    if owner:
        _bars.append(bar)
        bar.start()
    task = bar.add_task(label, total=total, note="")

    def advance(note: str = "", steps: float = 1) -> None:
        nonlocal last, said
        last = note or last
        bar.update(task, advance=steps, note=last)
        now = time.monotonic()
        if not console.is_terminal and now - said > QUIET:
            said, share = now, bar.tasks[bar.task_ids.index(task)].completed / total
            left = (now - start) * (1 / share - 1) if share else 0
            console.print(f"  {label}: {share:.0%}, {last}, about {left / 60:.0f} min left", markup=False)

    try:
        yield advance
    finally:
        bar.remove_task(task)
        if owner:
            bar.stop()
            _bars.pop()
    seconds = time.monotonic() - start
    if seconds > 2:
        console.print(f"  {label}: {last + ', ' if last else ''}{seconds:.0f} s", markup=False)


class _Collect(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def noted() -> Iterator[list[str]]:
    """Collect what methods log while the block runs, such as the plan of a pruner, for the card and the report."""
    log, collect = logging.getLogger("adamas"), _Collect()
    level = log.level
    log.addHandler(collect)
    log.setLevel(logging.INFO)
    try:
        yield collect.lines
    finally:
        log.removeHandler(collect)
        log.setLevel(level)
