from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from adamas.report.rows import Row, rows
from adamas.report.table import markdown, table

FLAG = "zero gradients: 12% of the images give gradient attacks nothing to follow; add a black-box attack"


def printed(made: Sequence[Row], width: int = 100) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(table(made))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_table_holds_the_figures(make: Any) -> None:
    text = printed(
        rows([make(name="small", int8=True, nonzeros=55_000, shipped_worst=583, clean=941, worst=612, agreement=0.998)])
    )
    line = next(line for line in text.splitlines() if line.strip().startswith("small"))
    assert line.split() == [
        "small",
        "550k",
        "10.0",
        "560",
        "kB",
        "3.40M",
        "94.1",
        "70.0",
        "60.0",
        "61.2",
        "58.3",
        "99.8",
        "0.070",
    ]
    assert "linf(eps=0.1)" in text and "1,000 test images" in text and "pgd = pgd(steps=50)" in text


def test_noise_off_is_a_column_and_a_note_where_a_network_draws_noise(make: Any) -> None:
    made = rows([make(name="noisy", noise_off=(940, 571), worst=612, int8=True), make(name="plain", keep=0.5, int8=True)])
    text, written = printed(made), markdown(made)
    noisy, plain = (
        next(line.split() for line in text.splitlines() if line.startswith(f" {name} ")) for name in ("noisy", "plain")
    )
    assert noisy[8:12] == ["60.0", "61.2", "57.1", "61.2"] and plain[8:12] == ["60.0", "60.0", "–", "60.0"]
    assert max(map(len, text.splitlines())) <= 100
    assert "| worst case % | noise off % | shipped worst % |" in written
    assert (
        "* noisy draws noise, and its figures are those of the mean of 8 draws; with the noise off it keeps 57.1 %" in written
    )
    assert "noise" not in markdown(made[1:])


def test_single_runs_show_intervals_and_seeds_their_spread(make: Any) -> None:
    single, seeds = printed(rows([make()])), printed(rows([make(seed=0, worst=570), make(seed=1, worst=630)]))
    assert "±3.1" in single and "sd" not in single  # Wilson at 600 of 1,000: 56.9 to 63.0
    assert "sd 4.2" in seeds and "2 seeds" in seeds  # |0.63 - 0.57| / sqrt(2)


def test_the_table_fits_100_columns_whatever_is_in_it(make: Any) -> None:
    attacks = tuple(
        (f"{name}, restarts=10)", 600) for name in ("pgd(steps=100", "apgd(steps=100", "pgd(steps=200", "square(n=1")
    )
    name = "filters keep=0.2 + int8 + a-very-long-name-without-any-place-to-break-it"
    made = rows([make(name=name, seed=seed, attacks=attacks, flags=(FLAG,)) for seed in (0, 1)])
    text = printed(made)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100
    assert "…" not in text and "sd 0.0" in text and "2.20 MB" in text and "0.050" in text
    assert (
        "pgd 1 = pgd(steps=100, restarts=10), apgd = apgd(steps=100, restarts=10), pgd 2 = pgd(steps=200, restarts=10)"
        in " ".join(text.split())
    )


def test_flags_are_footnotes(make: Any) -> None:
    made = rows([make(name="good", keep=0.1), make(name="bad", keep=0.2, flags=(FLAG,))])
    text = printed(made, width=200)
    good, bad = (next(line for line in text.splitlines() if line.strip().startswith(name)) for name in ("good", "bad"))
    assert "!1" not in good and bad.rstrip().endswith("!1") and f"!1 {FLAG}" in " ".join(text.split())
    below = markdown(made)
    assert "| bad (!1) |" in below and "* (!1) zero gradients" in below


def test_markup_in_names_is_text(make: Any) -> None:
    made = rows([make(name="[red]x[/red] a|b <script>")])
    assert "[red]x[/red]" in printed(made, width=200)
    assert "\\[red\\]x\\[/red\\] a\\|b \\<script\\>" in markdown(made)


def test_markdown_holds_the_figures(make: Any) -> None:
    head, rule, line, *_ = markdown(rows([make(name="small", clean=941)])).splitlines()
    assert head.startswith("| model | params | nonzero % | size | MACs | clean % | fgsm | pgd(steps=50) | worst case % |")
    assert head.count("|") == rule.count("|") == line.count("|")
    assert line.startswith("| small | 550k | 100.0 | 2.20 MB | 3.40M | 94.1 ±1.6 | 70.0 ±2.9 | 60.0 ±3.1 | **60.0 ±3.1** |")


def test_only_attacks_in_common_have_columns(make: Any) -> None:
    made = rows([make(keep=0.1), make(name="b", keep=0.2, attacks=(("pgd(steps=50)", 600),))])
    assert "fgsm" not in markdown(made)


def test_what_was_not_timed_is_a_dash(make: Any) -> None:
    text = markdown(rows([make(timed=False)]))
    assert "| – |" in text and "None" not in text
