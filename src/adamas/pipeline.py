"""The main line: data and model, then every stage, then the artifact with what was measured on it."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import re
import shutil
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from adamas.artifact import (
    CARD,
    EVALUATION,
    FORMAT,
    WEIGHTS,
    Artifact,
    fingerprint,
    read_weights,
    restore,
    write_weights,
)
from adamas.attacks.transfer import Transfer
from adamas.cost import cost
from adamas.data import Data, load
from adamas.deploy.files import check_parity, export_files, exported
from adamas.deploy.latency import latency
from adamas.deploy.runtime import OnnxModel
from adamas.device import fabric, seeded
from adamas.errors import AdamasError
from adamas.evaluate import evaluate
from adamas.files import read_json, write, write_json
from adamas.fit import fit
from adamas.models import normalized
from adamas.progress import noted
from adamas.provenance import provenance
from adamas.recipe import Recipe, Stage
from adamas.registry import label, plain
from adamas.report.card import model_card
from adamas.report.html import write_report
from adamas.roles import Attack, Threat
from adamas.weights import model_fingerprint

CALIBRATION_BATCH = 256


def run(
    recipe: Recipe,
    *,
    out: Path | str = "runs",
    name: str = "model",
    data_dir: Path | str | None = None,
    model: nn.Module | None = None,
    data: Data | None = None,
    start: Artifact | None = None,
    device: str = "auto",
    timed: bool = True,
) -> Artifact:
    """Run a recipe into the directory out/name and return its artifact.

    `model` and `data` replace what the recipe names, so that a user's own network and loaders take part; the network is
    left as found. `start` is an artifact whose stages are already done. Finished stages are kept under out/stages and
    found again by content, so a run that was killed goes on, and recipes that share their first stages train them once.
    `timed=False` leaves latency, report and model card to a later `complete`.
    Errors: whatever a stage cannot do, with the stage's number; stages finished before stay.
    """
    if data is None:
        if recipe.data is None:
            raise AdamasError("data: expected a data set in the recipe, or data=..., got neither")
        data = load(recipe.data, recipe.split, data_dir=data_dir, seed=recipe.seed)
    done = len(start.recipe.stages) if start else 0
    for source in recipe.transfer:
        if source.stage < done - 1:  # that one left the model as it came to this run
            raise AdamasError(
                f"transfer: expected a stage from {done - 1} on, got {source.stage}, which an earlier run has done"
            )
    network = type(model).__qualname__ if model is not None else recipe.model.name if recipe.model else ""
    model = _initial_model(recipe, data, model, start).to(fabric(device).device)
    path = Path(out) / slug(name)
    keys = _stage_keys(recipe, data, model, done)
    measured_by = _key(keys[-1], plain(recipe.evaluate), plain(recipe.transfer), plain(recipe.deploy), recipe.title)
    if not (path / EVALUATION).exists() or read_json(path / EVALUATION).get("key") != measured_by:
        (path / EVALUATION).unlink(missing_ok=True)  # it speaks of another model from here on
        fresh = copy.deepcopy(model)
        model, records = _run_stages(model, recipe, data, Path(out) / "stages", keys, done, name, device)
        done_before = start.card["stages"] if start else []
        write_json(path / CARD, _card(name, recipe, network, data, done_before + records, write_weights(path / WEIGHTS, model)))
        cache = Path(out) / "stages"
        sources = _transfers(fresh, recipe, cache, keys, done)
        write_json(
            path / EVALUATION,
            {"key": measured_by} | measure(model, recipe, data, path, name, cache / measured_by, sources),
        )
    artifact = Artifact.load(path)
    if timed:
        complete([artifact])
    return artifact


def _card(name: str, recipe: Recipe, network: str, data: Data, stages: list[dict[str, Any]], weights: Path) -> dict[str, Any]:
    """What an artifact says of itself: how it was made, on what, by whom, and which weights it speaks of."""
    sizes = {"train": len(data.train), "validation": len(data.validation)}
    return {
        "format": FORMAT,
        "name": name.rpartition("/")[2],
        "title": recipe.title,
        "recipe": plain(recipe),
        "network": network,
        "image_shape": list(data.image_shape),
        "classes": list(data.classes),
        "data": {"name": data.name, **sizes, "fingerprint": data.fingerprint},
        "stages": stages,
        "weights": fingerprint(weights),
        **provenance(),
    }


def _transfers(fresh: nn.Module, recipe: Recipe, cache: Path, keys: Sequence[str], done: int) -> list[Transfer]:
    """The attacks on models of earlier stages; `fresh` is the model before the first stage of this run."""
    attacks = []
    for source in recipe.transfer:
        model, n = copy.deepcopy(fresh), source.stage + 1 - done
        if n:
            compressors = [stage.compress for stage in recipe.stages[done : done + n] if stage.compress is not None]
            restore(model, compressors, read_weights(cache / keys[n] / WEIGHTS))
        attacks.append(Transfer(model, f"stages.{source.stage}" if n else "the start", source.attack))
    return attacks


def measure(
    model: nn.Module, recipe: Recipe, data: Data, path: Path, name: str, state: Path, also: Sequence[Attack] = ()
) -> dict[str, Any]:
    """Export the model, evaluate it and what was exported on the same images, and measure what it costs.

    `state` keeps outcomes while the evaluation runs; `also` are attacks beside the recipe's.
    """
    files = export_files(model, path, data.image_shape)
    judges = {files.shipped.name: OnnxModel(files.shipped)}
    title = f"{name}: evaluate"
    evaluation = evaluate(
        model, data, recipe.evaluate, recipe.threat, seed=recipe.seed, judges=judges, also=also, title=title, state=state
    )
    shutil.rmtree(state)
    return {
        "test": len(data.test),
        **dataclasses.asdict(evaluation),
        "cost": dataclasses.asdict(cost(model, data.image_shape)),
        "bytes_on_disk": {file.name: file.stat().st_size for file in (path / WEIGHTS, *files.paths)},
        "parity": check_parity(model, files, data.test),
    }


def complete(artifacts: Sequence[Artifact]) -> None:
    """Time the exported files of all artifacts side by side, unless that was done, and describe each for people."""
    if not all("latency" in artifact.evaluation for artifact in artifacts):
        time_files(artifacts)
    for artifact in artifacts:
        write_report([artifact], artifact.path / "report.html")
        card = model_card(artifact)
        write(artifact.path / "README.md", lambda temporary, card=card: temporary.write_text(card, encoding="utf-8"))


def time_files(artifacts: Sequence[Artifact]) -> None:
    """Measure the latency of all exported files of all artifacts in turn, A B C A B C."""
    deploy, shape = artifacts[0].recipe.deploy, artifacts[0].card["image_shape"]
    files = {f"{artifact.path}/{path.name}": path for artifact in artifacts for path in exported(artifact.path).paths}
    timed = latency(files, tuple(shape), batch_sizes=deploy.batch_sizes, threads=deploy.threads)
    for artifact in artifacts:
        mine = {path.name: timed[f"{artifact.path}/{path.name}"] for path in exported(artifact.path).paths}
        in_json = {name: {str(batch): dataclasses.asdict(value) for batch, value in by.items()} for name, by in mine.items()}
        write_json(artifact.path / EVALUATION, artifact.evaluation | {"latency": in_json})


def run_stage(
    model: nn.Module,
    stage: Stage,
    data: Data,
    threat: Threat,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    title: str = "stage",
    device: str = "auto",
) -> list[dict[str, float]]:
    """Compress, then fit, in place; returns the records of the training epochs."""
    if stage.compress is not None:
        stage.compress.attach(model)
        where = next(model.parameters()).device
        with seeded(seed, where):
            stage.compress.calibrate(model, data.train.batches(CALIBRATION_BATCH, device=where, seed=seed), threat)
    epochs: list[dict[str, float]] = []
    if stage.fit is not None:
        epochs = fit(
            model,
            data,
            stage.fit,
            threat,
            compressor=stage.compress,
            seed=seed,
            checkpoint=checkpoint,
            title=title,
            device=device,
        )
    if stage.compress is not None:
        stage.compress.finish(model)
    return epochs


def describe_stage(stage: Stage) -> str:
    """`filters(keep=0.2) + adversarial, 3 epochs`."""
    parts = [label(stage.compress)] if stage.compress is not None else []
    if stage.fit is not None:
        parts.append(f"{type(stage.fit.objective).name}, {stage.fit.epochs} epochs")
    return " + ".join(parts)


def slug(name: str) -> str:
    """A row's name as a directory name, part by part."""
    cleaned = "/".join(re.sub(r"[^\w.=+-]+", "_", part).strip("._") for part in name.split("/"))
    if not all(cleaned.split("/")):
        raise AdamasError(f"expected a name with letters or digits for the run, got {name!r}")
    return cleaned


def _initial_model(recipe: Recipe, data: Data, model: nn.Module | None, start: Artifact | None) -> nn.Module:
    """A copy of the user's model, the model of the artifact to go on from, or the recipe's with weights drawn by its seed."""
    if start is not None:
        return start.model(copy.deepcopy(model))
    if model is not None:
        return copy.deepcopy(model)
    if recipe.model is None:
        raise AdamasError("model: expected a model in the recipe, or model=..., got neither")
    mean, std = recipe.normalise.mean, recipe.normalise.std
    measured_mean, measured_std = data.channel_statistics()
    with seeded(recipe.seed):
        return normalized(recipe.model.build(data.image_shape, len(data.classes)), mean or measured_mean, std or measured_std)


def _stage_keys(recipe: Recipe, data: Data, model: nn.Module, done: int) -> list[str]:
    """Content ids of the starting point and of every stage to come: equal keys mean equal weights."""
    keys = [
        _key(
            version("adamas"),
            data.fingerprint,
            plain(recipe.split),
            plain(recipe.threat),
            recipe.seed,
            model_fingerprint(model),
        )
    ]
    for stage in recipe.stages[done:]:
        keys.append(_key(keys[-1], plain(stage)))
    return keys


def _key(*parts: Any) -> str:
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=10).hexdigest()


def _run_stages(
    model: nn.Module, recipe: Recipe, data: Data, cache: Path, keys: Sequence[str], done: int, name: str, device: str
) -> tuple[nn.Module, list[dict[str, Any]]]:
    """Go on after the last stage that is already in the cache."""
    stages = recipe.stages[done:]
    finished = next((n for n in range(len(stages), 0, -1) if (cache / keys[n] / WEIGHTS).exists()), 0)
    if finished:
        compressors = [stage.compress for stage in stages[:finished] if stage.compress is not None]
        restore(model, compressors, read_weights(cache / keys[finished] / WEIGHTS))
    records = [read_json(cache / key / "stage.json") for key in keys[1 : finished + 1]]
    for n, stage in enumerate(stages[finished:], finished + 1):
        here, began = cache / keys[n], time.perf_counter()
        title = f"{name}: {describe_stage(stage)}"
        try:
            with noted() as notes:
                epochs = run_stage(
                    model, stage, data, recipe.threat,
                    seed=recipe.seed * 1_009 + done + n, checkpoint=here / "checkpoint.pt", title=title, device=device,
                )  # fmt: skip
        except AdamasError as error:
            raise AdamasError(f"stages.{done + n - 1} ({describe_stage(stage)}): {error}") from error
        seconds = round(time.perf_counter() - began, 2)
        records.append({"stage": describe_stage(stage), "seconds": seconds, "epochs": epochs, "notes": notes})
        write_json(here / "stage.json", records[-1])
        write_weights(here / WEIGHTS, model)
        (here / "checkpoint.pt").unlink(missing_ok=True)
    return model.eval(), records
