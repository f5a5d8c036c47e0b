"""The result table: one list of columns, printed to the terminal, as Markdown and in the HTML report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from adamas.report.rows import Row, Share
from adamas.report.text import DASH, escaped, ms, percent, short, size

MOST_ATTACKS = 3
"""Attacks with a column of their own in the terminal; all of them count in the worst case."""


@dataclass(frozen=True)
class Column:
    """A figure as text, and as a share where it is one; `figure` names it for remarks."""

    header: str
    value: Callable[[Row], str]
    share: Callable[[Row], Share] | None = None
    figure: str = ""

    def spread(self, row: Row) -> str:
        """±0.4 of one run's interval, sd 0.4 over seeds, nothing for what is no share."""
        if self.share is None:
            return ""
        share = self.share(row)
        return f"±{percent(share.half)}" if share.sd is None else f"sd {percent(share.sd)}"


def columns(rows: Sequence[Row], attacks: Sequence[str]) -> list[Column]:
    """Columns after the model's name, with one for each of these attacks by its label."""
    return [
        Column("params", lambda row: short(row.params)),
        Column("nonzero %", lambda row: percent(row.filled)),
        Column("size", lambda row: size(row.size)),
        Column("MACs", lambda row: short(row.macs)),
        _accuracy("clean %", lambda row: row.clean, "clean"),
        *(_accuracy(attack, lambda row, attack=attack: row.attacks[attack]) for attack in attacks),
        _accuracy("worst case %", lambda row: row.worst_case, "worst_case"),
        *([Column("noise off %", _noise_off)] if any(row.noise_off for row in rows) else []),
        _accuracy("shipped worst %", lambda row: row.shipped_worst_case, "shipped_worst_case"),
        Column("agree %", lambda row: percent(row.agreement), figure="agreement"),
        Column("ms", lambda row: ms(row.latency[row.shipped]) if row.shipped in row.latency else DASH, figure="latency"),
    ]


def common_attacks(rows: Sequence[Row]) -> list[str]:
    """Labels of the attacks that every row faced, in the order they ran."""
    return [label for label in rows[0].attacks if all(label in row.attacks for row in rows)]


def table(rows: Sequence[Row]) -> Table:
    """The result table for a terminal of 100 columns; flags are footnotes."""
    flags, attacks = all_flags(rows), common_attacks(rows)
    names = _short_names(attacks)
    made = Table(box=box.SIMPLE_HEAD, padding=0, caption_justify="left", caption_style="dim")
    made.add_column("model", overflow="fold", min_width=12)
    shown = columns(rows, attacks[:MOST_ATTACKS])
    for column in shown:
        header = names.get(column.header, column.header)
        made.add_column(Text(header.replace(" ", "\n")), justify="right", no_wrap=True)
    made.add_column("!" if flags else "", style="bold red")
    for row in rows:
        cells = [_cell(column, row) for column in shown]
        made.add_row(_name(row), *cells, "\n".join(f"!{flags.index(flag) + 1}" for flag in row.flags))
    made.caption = Text("\n".join([*notes(rows, names), *(f"!{i} {flag}" for i, flag in enumerate(flags, 1))]))
    return made


def markdown(rows: Sequence[Row]) -> str:
    """The same table as plain Markdown, notes and flags below it."""
    flags, attacks = all_flags(rows), common_attacks(rows)
    shown = columns(rows, attacks)
    lines = [["model", *(escaped(column.header) for column in shown)], ["---", *("---:" for _ in shown)]]
    for row in rows:
        marks = "".join(f" (!{flags.index(flag) + 1})" for flag in row.flags)
        lines.append([escaped(row.name) + marks, *(_markdown_cell(column, row) for column in shown)])
    below = [*notes(rows, {}), *(f"(!{i}) {flag}" for i, flag in enumerate(flags, 1))]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", *(f"* {escaped(note)}" for note in below)]) + "\n"


def notes(rows: Sequence[Row], names: dict[str, str]) -> list[str]:
    """What a reader must know to read the table; `names` are short column headers by attack."""
    test = " or ".join(f"{count:,}" for count in sorted({row.test for row in rows}))
    threat = " or ".join(sorted({row.threat for row in rows}))
    spread = "± or a range: the 95 % interval" + ("; sd over seeds" if any(row.clean.sd is not None for row in rows) else "")
    lines = [f"Accuracy in % on {test} test images, worst case over all attacks under {threat}; {spread}."]
    if renamed := [f"{name} = {attack}" for attack, name in names.items() if name != attack]:
        lines.append(", ".join(renamed) + ".")
    if any(len(row.attacks) > 1 and not row.exhaustive for row in rows):
        lines.append("Attacks ran one after the other on the images still standing; each figure is what they left together.")
    if len(common_attacks(rows)) > MOST_ATTACKS and names:
        lines.append(f"The attacks after the first {MOST_ATTACKS} have their figures in the report.")
    lines += [f"{row.name} {noise(row)}" for row in rows if row.noise_off]
    return [*lines, "size, shipped, agree, ms: of the exported file; its agreement with its network, median time of one image."]


def noise(row: Row) -> str:
    """What a network keeps with the noise that it draws and without, empty where it draws none."""
    if row.noise_off is None:
        return ""
    clean, worst = (f"{percent(share.value)} % ({percent(share.low)} to {percent(share.high)})" for share in row.noise_off)
    draws = f"{row.samples} draws" if row.samples > 1 else "one draw"
    return (
        f"draws noise, and its figures are those of the mean of {draws}; with the noise off it keeps {worst} "
        f"in the worst case under the same attacks and {clean} on clean images; the file is exported without noise."
    )


def _noise_off(row: Row) -> str:
    return percent(row.noise_off[1].value) if row.noise_off else DASH


def _accuracy(header: str, share: Callable[[Row], Share], figure: str = "") -> Column:
    return Column(header, lambda row: percent(share(row).value), share, figure)


def all_flags(rows: Sequence[Row]) -> list[str]:
    """Every soundness flag once, in the order of the rows; its place is its footnote number."""
    return list(dict.fromkeys(flag for row in rows for flag in row.flags))


def seeds(row: Row) -> str:
    """Empty for one seed."""
    return f"{len(row.runs)} seeds" if len(row.runs) > 1 else ""


def _name(row: Row) -> Text:
    return Text("\n".join(filter(None, [row.name, seeds(row)])))


def _cell(column: Column, row: Row) -> Text:
    """The figure above its spread; the headline is bold."""
    text = Text(column.value(row), style="bold" if column.figure == "worst_case" else "")
    return text.append(f"\n{column.spread(row)}", style="not bold dim") if column.spread(row) else text


def _markdown_cell(column: Column, row: Row) -> str:
    text = " ".join(filter(None, [column.value(row), column.spread(row)]))
    return f"**{text}**" if column.figure == "worst_case" else text


def _short_names(attacks: Sequence[str]) -> dict[str, str]:
    """Attack labels without their settings, numbered where that leaves two alike."""
    bare = [attack.partition("(")[0] for attack in attacks]
    numbered = [f"{name} {bare[: i + 1].count(name)}" if bare.count(name) > 1 else name for i, name in enumerate(bare)]
    return dict(zip(attacks, numbered, strict=True))
