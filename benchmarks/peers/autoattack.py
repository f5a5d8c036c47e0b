"""AutoAttack's standard version: the reference against ours, part by part and image by image."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

from peers.networks import Case
from peers.reference import Outcome, Part, reference
from rich.table import Table

import adamas
from adamas.files import read_json
from adamas.panel import MODEL
from adamas.progress import console

SEED, BATCH = 0, 200


def compare(case: Case) -> tuple[Table, str]:
    """One row per part, and one sentence on the images that the two disagree about; batch by batch in changing order."""
    runs = {"theirs": of_reference, "ours": of_adamas}
    sums: dict[str, Outcome] = {}
    for number, first in enumerate(range(0, len(case.data.test), BATCH)):
        batch = replace(case, data=replace(case.data, test=case.data.test[first : first + BATCH]))
        for name in sorted(runs, reverse=bool(number % 2)):
            got = runs[name](batch)
            sums[name] = sums[name] + got if name in sums else got
        console.print(f"{case.name}: {first + len(batch.data.test)} of {len(case.data.test)} images")
    theirs, ours = sums["theirs"], sums["ours"]
    title = f"AutoAttack, {case.name}, {len(ours.robust)} images, {case.threat}, clean {sum(ours.clean)}"
    table = Table("part", "left: reference", "adamas", "seconds: reference", "adamas", "ratio", title=title)
    for name, their, our in zip(theirs.parts, theirs.parts.values(), ours.parts.values(), strict=True):
        table.add_row(name, str(their.left), str(our.left), *_seconds(their.seconds, our.seconds))
    table.add_section()
    table.add_row("all", *(str(sum(outcome.robust)) for outcome in (theirs, ours)), *_seconds(theirs.seconds, ours.seconds))
    table.add_row("of which computing", "", "", *_seconds(theirs.cpu, ours.cpu))
    return table, agreement(theirs, ours)


def of_reference(case: Case) -> Outcome:
    """Theirs, on the same images in one batch."""
    return reference(case.plain_model(), *case.images(), case.threat.eps, seed=SEED, batch_size=BATCH)


def of_adamas(case: Case) -> Outcome:
    """Ours, inside `adamas.evaluate`."""
    settings = adamas.Evaluate(attacks=(adamas.AutoAttack(),), batch_size=BATCH)
    with tempfile.TemporaryDirectory() as state:
        start, cpu = time.perf_counter(), time.process_time()
        got = adamas.evaluate(case.plain_model(), case.data, settings, case.threat, seed=SEED, state=state)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        letters = read_json(Path(state) / "outcomes.json")
    clean = [letter == "1" for letter in letters["clean"][MODEL]]
    broken = ["0" in every for every in zip(*(attack[MODEL] for attack in letters["attacks"]), strict=True)]
    parts = {result.attack: Part(result.attacked, result.accuracy.right, result.seconds) for result in got.attacks}
    robust = [right and not lost for right, lost in zip(clean, broken, strict=True)]
    return Outcome(clean, robust, seconds, cpu, parts)


def agreement(theirs: Outcome, ours: Outcome) -> str:
    """How many images each of the two breaks."""
    pairs = list(zip(theirs.robust, ours.robust, strict=True))
    both, neither = pairs.count((False, False)) - theirs.clean.count(False), pairs.count((True, True))
    alone = f"{pairs.count((False, True))} by the reference alone, {pairs.count((True, False))} by adamas alone"
    return f"Images broken: {both} by both, {alone}; robust to both: {neither}."


def _seconds(theirs: float, ours: float) -> tuple[str, str, str]:
    return f"{theirs:.1f}", f"{ours:.1f}", f"{ours / theirs:.3f}"
