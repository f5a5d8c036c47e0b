"""What the figures say in plain sentences, each tied to the figure it touches: soundness, parity, speed, certainty."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from adamas.deploy.files import FP32
from adamas.report.rows import Row
from adamas.report.text import listed, ms, percent, size

Figure = Literal["clean", "worst_case", "shipped_worst_case", "agreement", "latency", ""]
SURE, PARITY, SHIPPED, SAME_SPEED = 0.03, 0.995, 0.005, 1.05
"""Half an interval, agreement, difference in worst case and ratio of latencies from which on a remark is made."""


@dataclass(frozen=True)
class Remark:
    """One sentence about one figure (all figures if empty) of some rows; an alarm questions the figure itself."""

    rows: tuple[Row, ...]
    figure: Figure
    text: str
    alarm: bool = False


def remarks(rows: Sequence[Row]) -> list[str]:
    """Plain sentences drawn from the figures, alarms first."""
    return [remark.text for remark in findings(rows)]


def findings(rows: Sequence[Row]) -> list[Remark]:
    """The remarks with the rows and figures they belong to, alarms first."""
    found = [remark for row in rows for remark in (*_flags(row), *_parity(row), *_shipped(row), *_latency(row))]
    found += [*_families(rows), *_certainty(rows), *_unlike(rows)]
    return sorted(found, key=lambda remark: not remark.alarm)


def headline(rows: Sequence[Row]) -> list[str]:
    """The result in one or two sentences: the most robust row as shipped, and the smallest."""
    best = max(rows, key=lambda row: row.shipped_worst_case.value)
    least = min(rows, key=lambda row: row.size)
    if len(rows) == 1:
        return [f"{best.name} keeps {_kept(best)} under {best.threat}, in a file of {size(best.size)}."]
    first = f"{best.name} is the most robust of {len(rows)}: it keeps {_kept(best)} under {best.threat}"
    if least is best:
        return [f"{first}; at {size(best.size)} it is the smallest as well."]
    second = (
        f"{least.name} is the smallest: {size(least.size)}, {best.size / least.size:.1f} x smaller, and keeps {_kept(least)}"
    )
    overlap = least.shipped_worst_case.high >= best.shipped_worst_case.low
    return [f"{first}, in a file of {size(best.size)}.", second + ("; the two intervals overlap." if overlap else ".")]


def _kept(row: Row) -> str:
    worst, clean = row.shipped_worst_case, row.shipped_clean
    spread = f"{percent(worst.low)} to {percent(worst.high)}"
    if worst.sd is not None:
        spread = f"mean of {len(row.runs)} seeds, sd {percent(worst.sd)}"
    return f"{percent(worst.value)} % in the worst case ({spread}) and {percent(clean.value)} % on clean images"


def _flags(row: Row) -> Iterator[Remark]:
    for flag in row.flags:
        yield Remark((row,), "worst_case", f"{row.name}: {flag}.", alarm=True)


def _parity(row: Row) -> Iterator[Remark]:
    """The worst seed of every exported file."""
    for file in row.runs[0].evaluation["parity"]:
        worst = min((run.evaluation["parity"][file] for run in row.runs), key=lambda parity: parity["agreement"])
        if worst["agreement"] < PARITY:
            other = round((1 - worst["agreement"]) * worst["n"])
            text = (
                f"{row.name}: {file} classifies {other:,} of {worst['n']:,} images unlike the network it was exported from "
                f"(at most {(1 - PARITY) * worst['n']:,.0f} expected); do not ship it before that is understood."
            )
            yield Remark((row,), "agreement", text, alarm=True)


def _shipped(row: Row) -> Iterator[Remark]:
    trained, shipped = (row.noise_off[1] if row.noise_off else row.worst_case).value, row.shipped_worst_case.value
    lost = round(trained - shipped, 9)
    if abs(lost) > SHIPPED:
        text = (
            f"{row.name} as shipped ({row.shipped}) keeps {percent(shipped)} % in the worst case, {percent(abs(lost))} points "
            f"{'less' if lost > 0 else 'more'} than the trained model{' with its noise off' if row.noise_off else ''} "
            f"({percent(trained)} %)"
        )
        text += "." if lost > 0 else "; the attacks saw the trained model, so the file may only look stronger."
        yield Remark((row,), "shipped_worst_case", text)


def _latency(row: Row) -> Iterator[Remark]:
    if {FP32, row.shipped} <= row.latency.keys() and row.shipped != FP32:
        fast, slow = sorted((row.latency[row.shipped], row.latency[FP32]))
        ratio, slower = slow / fast, row.latency[row.shipped] == slow
        verdict = f"{ratio:.1f} x {'slower' if slower else 'faster'} than" if ratio > SAME_SPEED else "as fast as"
        times = f"({ms(row.latency[row.shipped])} against {ms(row.latency[FP32])} ms)"
        yield Remark((row,), "latency", f"int8 makes {row.name} {verdict} its own fp32 file at batch 1 {times}.")


def _families(rows: Sequence[Row]) -> Iterator[Remark]:
    """Rows whose worst case rests on one family of attacks, or on none."""
    for (attacks, families), group in _by(rows, [(tuple(row.attacks), row.families) for row in rows]):
        run = set(families)
        if len(run) == 1:
            missing = [name for name in ("cross-entropy gradient", "margin-loss gradient", "black-box") if name not in run]
            text = f"rests on {'one attack' if len(attacks) == 1 else 'one family of attacks'} ({', '.join(attacks)}); "
            text += f"no {' and no '.join(missing)} attack was run, and a stronger attack can only lower it."
            yield Remark(group, "worst_case", f"{_whose(group, rows, 'worst case')} {text}")
        elif not run:
            text = "is plain clean accuracy: no attack was run."
            yield Remark(group, "worst_case", f"{_whose(group, rows, 'worst case')} {text}", alarm=True)


def _certainty(rows: Sequence[Row]) -> Iterator[Remark]:
    """Rows whose test set is too small for a figure to a few points."""
    unsure = [row for row in rows if round(row.worst_case.half, 9) > SURE]
    for test, group in _by(unsure, [row.test for row in unsure]):
        half = max(row.worst_case.half for row in group)
        text = f"is known to ±{percent(half)} points only: the test set has {test:,} images."
        yield Remark(group, "worst_case", f"{_whose(group, rows, 'worst case')} {text}")


def _unlike(rows: Sequence[Row]) -> Iterator[Remark]:
    """What keeps the rows from being compared."""
    everything = tuple(rows)
    if len({row.threat for row in rows}) > 1:
        threats = listed(sorted({row.threat for row in rows}))
        yield Remark(
            everything, "", f"The rows face different threats ({threats}): their worst cases do not compare.", alarm=True
        )
    if len({(row.runs[0].card["data"]["fingerprint"], row.test) for row in rows}) > 1:
        yield Remark(everything, "", "The rows were tested on different images: their accuracies do not compare.", alarm=True)
    if len({frozenset(row.attacks) for row in rows}) > 1:
        text = "The rows faced different attacks: a worst case over more attacks is lower by itself."
        yield Remark(everything, "", text, alarm=True)
    machines = {(run.card["processor"], run.card["recipe"]["deploy"]["threads"]) for row in rows for run in row.runs}
    if len(machines) > 1 and any(row.latency for row in rows):
        yield Remark(everything, "", "The latencies come from different processors or numbers of threads: they do not compare.")


def _by(rows: Sequence[Row], keys: Sequence[Hashable]) -> list[tuple]:
    groups: dict[Hashable, list[Row]] = defaultdict(list)
    for row, key in zip(rows, keys, strict=True):
        groups[key].append(row)
    return [(key, tuple(group)) for key, group in groups.items()]


def _whose(group: Sequence[Row], rows: Sequence[Row], figure: str) -> str:
    """ "The worst case of a and b", or of every row."""
    return f"Every {figure}" if len(group) == len(rows) > 1 else f"The {figure} of {listed([row.name for row in group])}"
