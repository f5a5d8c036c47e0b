"""The record of an artifact for the adversarial-pruning benchmark: taxonomy, model key, robustness, counted density."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from adamas.artifact import Artifact
from adamas.attacks.autoattack import AutoAttack
from adamas.attacks.fmn import FMN
from adamas.curve import GRID, security_curve
from adamas.device import fabric
from adamas.errors import AdamasError
from adamas.evaluate import Evaluate, Evaluation, evaluate
from adamas.files import read_json, write_json
from adamas.outcomes import content_key
from adamas.provenance import provenance
from adamas.registry import label, parse, plain
from adamas.report.density import Density, density
from adamas.report.taxonomy import Taxonomy, filled, pruning, taxonomy
from adamas.report.text import DASH, percent
from adamas.roles import AnyThreat, Threat
from adamas.subject import Subject, subject

RECORD = "benchmark.json"
EPSILONS = ("0.031", "8/255")
"""Of the Linf threat: the benchmark's AutoAttack uses the first, its minimum-norm attack the second."""
CURVE = [i / 200 for i in range(31)]
"""Where an Linf curve is read: every .005 from 0 to .15."""
AUTOATTACK, NEAREST = AutoAttack(), FMN(steps=200)
FIGURES = ("key", "n", "seed", "data", "provenance", "clean", "robust", "flags", "security_curve")
"""What is measured, and stays while nothing of it changes."""
NETWORKS, DATA = {"resnet18": "R18", "vgg16_bn": "V16"}, {"cifar10": "CIFAR10", "svhn": "SVHN"}


def write_record(
    path: Path,
    *,
    fill: Sequence[str] = (),
    norm: str = "linf",
    epsilons: Sequence[str] = (),
    n: int | None = None,
    seed: int | None = None,
    data_dir: Path | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Measure what is not measured yet, write benchmark.json into the artifact's directory and return what it says.

    `fill`: fields of the taxonomy that the card cannot tell, as "key=Name_AuthorYearWord". `epsilons`: largest distances for
    AutoAttack, in pixels; without them .031 and 8/255 of Linf, or the default of another `norm`. Figures of an earlier record
    stay if weights, test images, seed, threats and attacks are the same; an interrupted measurement goes on.
    Source: Piras et al. 2024. Deviation: the curve is by FMN with fixed settings on all n images, and an image for which
    nothing was found counts as right; density is counted, not taken from a file's name.
    Errors: no artifact, no test data, an unknown field, norm or device, an eps that is no distance.
    """
    artifact = Artifact.load(path)
    if artifact.packed:
        raise AdamasError(f"{path}: expected an artifact's directory to write {RECORD} to, got a packed file; unpack it first")
    known = taxonomy(artifact.recipe, artifact.card["network"])
    told = filled(known, fill)
    found = subject(path, norm=norm, n=n, seed=seed, data_dir=data_dir)
    threats = _threats(found.threat, epsilons)
    counted = density(artifact, found.model)
    figures = _figures(found, threats, n or artifact.recipe.split.test, device)
    record = {
        "model_key": model_key(artifact, told, counted),
        "name": artifact.card["name"],
        "taxonomy": told.entry(),
        "filled": [name for name, value in plain(told).items() if value != plain(known)[name]],
        "density": asdict(counted) | {"sparsity": counted.sparsity},
        **figures,
    }
    record["flags"] = list(dict.fromkeys([*_density_flags(counted), *figures["flags"]]))
    write_json(path / RECORD, record)
    return record


def model_key(artifact: Artifact, told: Taxonomy, counted: Density) -> str | None:
    """`HARP_Zhao2023Holistic_R18_CIFAR10_US_99`, the last part being the counted sparsity; None as long as a part is not known.

    Other networks and data sets stand under their own names, a network that is not pruned as `dense_0`.
    """
    recipe = artifact.recipe
    network, data = label(recipe.model), str(artifact.card["data"]["name"])
    structure = "+".join(re.findall(r"\((US|S)\)", told.structure or ""))
    structure = structure or ("" if pruning(recipe.stages) else "dense")
    if told.key is None or not structure:
        return None
    sparsity = f"{100 * counted.sparsity:.2f}".rstrip("0").rstrip(".")
    names = (NETWORKS.get(network, network), DATA.get(data, data))
    own = [re.sub(r"[^A-Za-z0-9.=]+", "-", name).strip("-") for name in names]
    return "_".join([told.key, *own, structure, sparsity])


def _threats(threat: Threat, epsilons: Sequence[str]) -> list[Threat]:
    """One threat for every eps, the smallest first."""
    if not epsilons and threat.name != "linf":
        return [parse(AnyThreat, {"name": threat.name})]  # type: ignore[arg-type]
    made = [parse(AnyThreat, {"name": threat.name, "eps": eps}) for eps in epsilons or EPSILONS]  # type: ignore[arg-type]
    return sorted(dict.fromkeys(made), key=lambda one: one.eps)


def _figures(found: Subject, threats: Sequence[Threat], n: int | None, device: str) -> dict[str, Any]:
    """Everything that is measured; taken from the earlier record where that is of the same."""
    assert found.artifact is not None
    folder, asked = found.artifact.path, plain([AUTOATTACK, NEAREST, threats, n, found.seed])
    key = content_key(version("adamas"), found.artifact.card["weights"], found.data.fingerprint, asked)
    kept = read_json(folder / RECORD) if (folder / RECORD).exists() else {}
    if kept.get("key") == key and kept.keys() >= set(FIGURES):
        return {name: kept[name] for name in FIGURES}
    found.model.to(fabric(device).device)
    state = folder / f"benchmark-{key}"
    results = [_attacked(found, threat, state / f"{i}") for i, threat in enumerate(threats)]
    at = [threat.eps for threat in threats]
    grid = CURVE if found.threat.name == "linf" else [share * at[-1] for share in GRID]
    curve = security_curve(found.model, found.data, threats[-1], NEAREST, epsilons=[*grid, *at], seed=found.seed)
    shutil.rmtree(state)
    robust: list[dict[str, Any]] = [
        {"threat": result.threat, "eps": eps, "autoattack": asdict(result.worst_case), "fmn": asdict(curve.at(eps))}
        | {"attacks": [asdict(attack) for attack in result.attacks]}
        for result, eps in zip(results, at, strict=True)
    ]
    flags = [flag for result in results for flag in result.flags] + curve.flags
    flags += [
        f"{part['threat']}: fmn leaves fewer images right than autoattack; its figure is the one to quote"
        for part in robust
        if part["fmn"]["right"] < part["autoattack"]["right"]
    ]
    return {
        "key": key,
        "n": curve.n,
        "seed": found.seed,
        "data": {"name": found.data.name, "fingerprint": found.data.fingerprint},
        "provenance": provenance(),
        "clean": asdict(results[0].clean),
        "robust": robust,
        "flags": list(dict.fromkeys(flags)),
        "security_curve": curve.plain(),
    }


def _attacked(found: Subject, threat: Threat, state: Path) -> Evaluation:
    title = f"{found.name}: autoattack, {threat}"
    settings = Evaluate(attacks=(AUTOATTACK,))
    return evaluate(found.model, found.data, settings, threat, seed=found.seed, title=title, state=state)


def _density_flags(counted: Density) -> list[str]:
    """What a reader must know of the sparsity."""
    if counted.density == 1:
        return ["sparsity 0: no weight is zero and no channel is gone"]
    if counted.agree is False:
        return [f"density: expected {counted.target:.4g} of the {counted.unit}, as asked for, counted {counted.verified:.4g}"]
    return []


def records_table(records: Sequence[dict[str, Any]]) -> Table:
    """One line per record: accuracies in per cent above their 95 % interval, the density asked for and counted; flags below."""
    threats = list(dict.fromkeys(part["threat"] for record in records for part in record["robust"]))
    made = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), caption_justify="left", caption_style="dim")
    made.add_column("model key", overflow="fold", min_width=12)
    attacked = [f"{name}\n{threat}" for threat in threats for name in ("AutoAttack", "fmn")]
    for header in ("n", "clean %", *attacked, "density", "target"):
        made.add_column(header, justify="right", no_wrap=True)
    for record in records:
        by_threat = {part["threat"]: part for part in record["robust"]}
        rates = [
            by_threat[threat][name] if threat in by_threat else None for threat in threats for name in ("autoattack", "fmn")
        ]
        density, target = record["density"], record["density"]["target"]
        counted = f"{density['verified']:.4g}\nof {density['unit']}"
        asked = DASH if target is None else f"{target:.4g}\n{'met' if density['agree'] else 'not met'}"
        name = record["model_key"] or f"{record['name']}\n(not known without its taxonomy's key)"
        made.add_row(escape(name), f"{record['n']}", *map(_rate, [record["clean"], *rates]), counted, asked)
    made.caption = Text("\n".join(dict.fromkeys(f"! {flag}" for record in records for flag in record["flags"])))
    return made


def _rate(rate: dict[str, Any] | None) -> str:
    return DASH if rate is None else f"{percent(rate['value'])}\n{percent(rate['low'])} - {percent(rate['high'])}"
