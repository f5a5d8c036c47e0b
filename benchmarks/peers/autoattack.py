"""AutoAttack's standard version: the reference against ours, part by part and image by image."""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import torch
from peers.networks import Case
from peers.reference import Counted, Outcome, Part, reference
from rich.table import Table

import adamas
from adamas.files import read_json, write_json
from adamas.outcomes import content_key
from adamas.panel import MODEL
from adamas.weights import model_fingerprint

SEED, BATCH = 0, 250


def compare(case: Case, keep: Path) -> tuple[Table, str]:
    """One row per part, and one sentence on the images that the two disagree about."""
    theirs, ours = kept_reference(case, keep), of_adamas(case)
    title = f"AutoAttack, {case.name}, {len(ours.robust)} images, {case.threat}, clean {sum(ours.clean)}"
    columns = ("part", "left: reference", "adamas", "seconds: reference", "adamas", "ratio", "passes: reference", "adamas")
    table = Table(*columns, title=title)
    for name, their, our in zip(theirs.parts, theirs.parts.values(), ours.parts.values(), strict=True):
        table.add_row(name, str(their.left), str(our.left), *_seconds(their.seconds, our.seconds), _passes(their, theirs))
    table.add_section()
    left = (str(sum(outcome.robust)) for outcome in (theirs, ours))
    passes = (_passes(outcome.total, outcome) for outcome in (theirs, ours))
    table.add_row("all", *left, *_seconds(theirs.seconds, ours.seconds), *passes)
    table.add_row("of which computing", "", "", *_seconds(theirs.cpu, ours.cpu))
    return table, agreement(theirs, ours)


def kept_reference(case: Case, keep: Path) -> Outcome:
    """The reference's outcome on this network and these images, run once on as many threads and then kept."""
    x, y = case.images()
    asked = (len(x), SEED, BATCH, torch.get_num_threads())
    key = content_key(model_fingerprint(case.model), case.data.fingerprint, case.threat.eps, *asked)
    path = keep / f"reference_{case.name}_{key}.json"
    if not path.is_file():
        got = reference(case.plain_model(), x, y, case.threat.eps, seed=SEED, batch_size=BATCH)
        write_json(path, asdict(got))
    return Outcome.of(read_json(path))


def of_adamas(case: Case) -> Outcome:
    """Ours, inside `adamas.evaluate`; passes are counted over all parts together."""
    model = Counted(case.plain_model())
    settings = adamas.Evaluate(attacks=(adamas.AutoAttack(),), batch_size=BATCH)
    with tempfile.TemporaryDirectory() as state:
        start, cpu = time.perf_counter(), time.process_time()
        got = adamas.evaluate(model, case.data, settings, case.threat, seed=SEED, state=state)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        letters = read_json(Path(state) / "outcomes.json")
    clean = [letter == "1" for letter in letters["clean"][MODEL]]
    broken = ["0" in every for every in zip(*(attack[MODEL] for attack in letters["attacks"]), strict=True)]
    parts = {result.attack: Part(result.attacked, result.accuracy.right, result.seconds) for result in got.attacks}
    robust = [right and not lost for right, lost in zip(clean, broken, strict=True)]
    return Outcome(clean, robust, seconds, cpu, parts, Part(forwards=model.forwards, backwards=model.backwards))


def agreement(theirs: Outcome, ours: Outcome) -> str:
    """How many images each of the two breaks."""
    pairs = list(zip(theirs.robust, ours.robust, strict=True))
    both, neither = pairs.count((False, False)) - theirs.clean.count(False), pairs.count((True, True))
    alone = f"{pairs.count((False, True))} by the reference alone, {pairs.count((True, False))} by adamas alone"
    return f"Images broken: {both} by both, {alone}; robust to both: {neither}."


def _seconds(theirs: float, ours: float) -> tuple[str, str, str]:
    return f"{theirs:.1f}", f"{ours:.1f}", f"{ours / theirs:.3f}"


def _passes(part: Part, outcome: Outcome) -> str:
    """Forward and backward passes per image."""
    return f"{part.forwards / len(outcome.robust):.0f} + {part.backwards / len(outcome.robust):.0f}"
