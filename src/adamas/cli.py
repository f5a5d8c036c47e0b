"""The command line: verbs that call the library, and errors as sentences."""

from __future__ import annotations

import errno
import json
import logging
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.markup import escape
from rich.table import Table
from torch import nn

from adamas import recipe as recipes
from adamas.artifact import Artifact
from adamas.audit import Audit, audit
from adamas.claims import check_claims, judged, verdicts_table
from adamas.curve import security_curve
from adamas.deploy.files import export_files
from adamas.deploy.pack import pack, unpack
from adamas.deploy.runtime import OnnxModel
from adamas.deploy.twin import twin
from adamas.documents import changed
from adamas.errors import AdamasError, nearest
from adamas.evaluate import Evaluate, evaluate
from adamas.files import write_json
from adamas.pipeline import run, slug
from adamas.progress import console
from adamas.progress import errors as error_console
from adamas.recipe import Recipe, Stage
from adamas.registry import KINDS, Pixels, describe, parse, plain, registered
from adamas.report.benchmark import records_table, write_record
from adamas.report.curve import write_curve
from adamas.report.evaluation import audited, curved, evaluated
from adamas.report.html import write_report
from adamas.report.packing import packing_table
from adamas.report.rows import rows
from adamas.report.table import table
from adamas.subject import share, subject
from adamas.sweep import sweep

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

Changes = Annotated[list[str] | None, typer.Argument(help="Settings as key=value, e.g. stages.1.compress.keep=0.2 seed=3.")]
Settings = Annotated[list[str] | None, typer.Argument(help="Settings as key=value, e.g. epochs=3 lr=0.01.")]
DataDir = Annotated[Path | None, typer.Option(help="Where data sets lie; without it they are downloaded to the cache.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Subjects = Annotated[Path, typer.Argument(metavar="ARTIFACT_OR_ONNX", help="An artifact's directory or an ONNX file.")]
Attacks = Annotated[
    list[str] | None,
    typer.Option(
        "--attack", "-a", help="Attack to run, e.g. autoattack or '{name: pgd, steps: 30}', see `adamas ls attack`; repeat."
    ),
]
Number = Annotated[int | None, typer.Option("-n", "--n", help="Use so many test images only.", min=1)]
Norm = Annotated[str | None, typer.Option(help="Threat, see `adamas ls threat`; the artifact's own if not given.")]
Eps = Annotated[str | None, typer.Option(help="Largest distance in pixels of a [0, 1] image, e.g. 8/255.")]
DataName = Annotated[str | None, typer.Option("--data", help="Data set or .npz file; the artifact's own if not given.")]
Seed = Annotated[int | None, typer.Option(help="Seed of every random draw.", min=0)]
State = Annotated[
    Path | None, typer.Option(help="Folder that keeps every image's outcomes; the same command goes on from there.")
]
Part = Annotated[str, typer.Option(help="Only this share of the images, e.g. 2/4; without it, merge what is in --state.")]
Json = Annotated[Path | None, typer.Option(help="Write all figures to this JSON file.")]
Out = Annotated[Path, typer.Option(help="Directory of the new artifact.")]


@app.command()
def ls(kind: Annotated[str | None, typer.Argument(help="One kind only.")] = None) -> None:
    """List models, attacks, objectives, compressors, data sets, threats and recipes."""
    kinds = [*KINDS, "recipe"]
    if kind is not None and kind.rstrip("s") not in kinds:
        raise AdamasError(f"unknown kind {kind!r}{nearest(kind, kinds)}")
    for name in kinds if kind is None else [kind.rstrip("s")]:
        listing = Table(title=f"{name}s", title_justify="left", box=None, show_header=False, pad_edge=False)
        entries = _recipe_files() if name == "recipe" else {key: describe(cls) for key, cls in registered(name).items()}
        for key, sentence in entries.items():
            listing.add_row(escape(key), escape(sentence))
        console.print(listing, "")


@app.command()
def show(recipe: Path, changes: Changes = None) -> None:
    """Print a recipe's rows in full, every default written out."""
    for name, row in recipes.read(recipe, changes or []).items():
        console.print(f"# {name}\n{recipes.dump(row)}", markup=False)


@app.command()
def check(recipe: list[Path]) -> None:
    """Validate recipe files and report every mistake at once."""
    mistakes = []
    for path in recipe:
        try:
            found = recipes.read(path)
            check_claims(recipes.claims(path), found)
            console.print(f"{path}: {len(found)} rows, no mistakes", markup=False)
        except AdamasError as error:
            mistakes.append(str(error))
    if mistakes:
        raise AdamasError("\n".join(mistakes))


@app.command("run")
def run_recipe(
    recipe: Path,
    changes: Changes = None,
    out: Annotated[Path, typer.Option(help="Where artifacts and finished stages are kept.")] = Path("runs"),
    only: Annotated[str, typer.Option(help="Only rows whose name matches this pattern, e.g. '*seed=0'.")] = "*",
    data_dir: DataDir = None,
    device: Device = "auto",
) -> None:
    """Run every row of a recipe, write a report and check its claims; the same command goes on after an interruption."""
    chosen = recipes.read(recipe, changes or [], only)
    claims: list[str] = []
    if not changes:  # they speak of the recipe as it is written
        claims = check_claims(recipes.claims(recipe), chosen if only == "*" else recipes.read(recipe))
    made = sweep(
        chosen, out=out, group=recipe.stem, data_dir=data_dir, device=device,
        announce=lambda row: console.print(f"{row}", style="bold", markup=False),
    )  # fmt: skip
    _report(made, out / slug(recipe.stem) / "report.html", next(iter(chosen.values())).title or recipe.stem)
    if claims:
        verdicts = judged(claims, made)
        console.print(verdicts_table(verdicts))
        if failed := [verdict.claim for verdict in verdicts if verdict.holds is False]:
            raise AdamasError("\n".join(f"expected the claim {claim} to hold, it does not" for claim in failed))


@app.command()
def schema() -> None:
    """Print the JSON schema of recipes, for editors."""
    print(json.dumps(recipes.schema(), indent=2))


@app.command()
def train(
    data: Annotated[str, typer.Option(help="Data set, see `adamas ls dataset`.")] = "digits",
    model: Annotated[str, typer.Option(help="Network, see `adamas ls model`.")] = "cnn8",
    objective: Annotated[str, typer.Option(help="Loss, see `adamas ls objective`.")] = "natural",
    changes: Changes = None,
    out: Out = Path("runs/trained"),
    data_dir: DataDir = None,
    device: Device = "auto",
) -> None:
    """Train a network and keep it as an artifact."""
    raw: dict[str, Any] = {
        "data": {"name": data},
        "model": {"name": model},
        "threat": {"name": "linf"},
        "stages": [{"fit": {"objective": {"name": objective}}}],
    }
    recipe = parse(Recipe, changed(raw, changes or []))
    _finish(run(recipe, out=out.parent, name=out.name, data_dir=data_dir, device=device))


@app.command()
def compress(
    artifact: Path,
    method: Annotated[str, typer.Argument(help="Compressor, see `adamas ls compressor`.")],
    values: Settings = None,
    out: Out = Path("runs/compressed"),
    data_dir: DataDir = None,
    device: Device = "auto",
) -> None:
    """Compress an artifact by one method, without training."""
    _extend(artifact, {"compress": {"name": method}}, values, out, data_dir, device)


@app.command()
def finetune(
    artifact: Path,
    values: Settings = None,
    objective: Annotated[str, typer.Option(help="Loss, see `adamas ls objective`.")] = "adversarial",
    out: Out = Path("runs/finetuned"),
    data_dir: DataDir = None,
    device: Device = "auto",
) -> None:
    """Train an artifact further, adversarially unless told otherwise."""
    stage = {"fit": {"objective": {"name": objective}, "epochs": 3, "lr": 0.01}}
    _extend(artifact, stage, values, out, data_dir, device)


@app.command()
def attack(
    path: Subjects,
    method: Annotated[str, typer.Argument(help="Attack, see `adamas ls attack`.")] = "pgd",
    values: Settings = None,
    n: Number = None,
    norm: Norm = None,
    eps: Eps = None,
    data: DataName = None,
    data_dir: DataDir = None,
) -> None:
    """Attack an artifact or an ONNX file with one attack and print what is left of its accuracy."""
    found = subject(path, dataset=data, data_dir=data_dir, n=n, norm=norm, eps=eps)
    chosen = parse(Evaluate, {"attacks": [changed({"name": method}, values or [])]})
    console.print(evaluated(found.name, evaluate(found.model, found.data, chosen, found.threat, seed=found.seed)))


@app.command("evaluate")
def evaluate_artifact(
    path: Subjects,
    values: Settings = None,
    attacks: Attacks = None,
    n: Number = None,
    norm: Norm = None,
    eps: Eps = None,
    data: DataName = None,
    data_dir: DataDir = None,
    seed: Seed = None,
    state: State = None,
    part: Part = "1/1",
    out: Json = None,
) -> None:
    """Evaluate an artifact or an ONNX file: clean, every attack, worst case, and the same as shipped."""
    found = subject(path, dataset=data, data_dir=data_dir, n=n, norm=norm, eps=eps, seed=seed)
    default = plain(found.artifact.recipe.evaluate if found.artifact else Evaluate())
    chosen = parse(Evaluate, changed(default | _chosen(attacks), values or []))
    judges = {found.file.name: OnnxModel(found.file)} if found.file else {}
    result = evaluate(
        found.model, found.data, chosen, found.threat, seed=found.seed, judges=judges, title=f"evaluate {found.name}",
        state=state, part=share(part),
    )  # fmt: skip
    console.print(evaluated(found.name, result))
    _write_json(out, {"settings": plain(chosen), **asdict(result)})


@app.command("audit")
def audit_file(
    path: Subjects,
    values: Settings = None,
    attacks: Attacks = None,
    sources: Annotated[
        list[Path] | None,
        typer.Option("--from", help="Artifact or ONNX file to craft images on, such as the fp32 parent; repeat."),
    ] = None,
    queries: Annotated[int, typer.Option(help="Queries per image to the file itself.", min=1)] = 5000,
    n: Number = None,
    norm: Norm = None,
    eps: Eps = None,
    data: DataName = None,
    data_dir: DataDir = None,
    seed: Seed = None,
    state: State = None,
    part: Part = "1/1",
    out: Json = None,
) -> None:
    """Audit what is shipped: attack an ONNX file, or an artifact's, by every way there is and score all on its runtime."""
    found = subject(path, dataset=data, data_dir=data_dir, n=n, norm=norm, eps=eps, seed=seed)
    if found.file is None:
        raise AdamasError(f"{path}: expected an exported file in the artifact, there is none; run `adamas export {path}` first")
    raw = plain(Audit(queries=queries))
    raw["evaluate"] |= _chosen(attacks)
    chosen = parse(Audit, changed(raw, [f"evaluate.{value}" for value in values or []]))
    others = {} if found.artifact is None else {"the trained model": found.model}
    others |= {str(other): _network(other) for other in sources or []}
    result = audit(found.file, found.data, found.threat, chosen, sources=others, seed=found.seed, state=state, part=share(part))
    console.print(audited(result))
    _write_json(out, {"settings": plain(chosen), **asdict(result)})


@app.command("curve")
def security_curve_of(
    path: Subjects,
    values: Settings = None,
    method: Annotated[str, typer.Option("--attack", "-a", help="An attack that looks for the nearest image.")] = "fmn",
    epsilons: Annotated[list[str] | None, typer.Option("--at", help="Read the curve at this eps, e.g. 4/255; repeat.")] = None,
    n: Number = None,
    norm: Norm = None,
    eps: Eps = None,
    data: DataName = None,
    data_dir: DataDir = None,
    seed: Seed = None,
    out: Annotated[Path | None, typer.Option(help="Write the curve to this .json, .svg or .png file.")] = None,
) -> None:
    """Accuracy at every eps from one run of a minimum-norm attack."""
    found = subject(path, dataset=data, data_dir=data_dir, n=n, norm=norm, eps=eps, seed=seed)
    chosen = parse(Evaluate, {"attacks": [changed({"name": method}, values or [])]}).attacks[0]
    at = None if epsilons is None else parse(list[Pixels], epsilons)  # type: ignore[arg-type]
    result = security_curve(found.model, found.data, found.threat, chosen, epsilons=at, seed=found.seed)
    console.print(curved(found.name, result))
    if out is not None:
        console.print(f"curve: {write_curve(result, out)}", markup=False)


@app.command()
def export(
    artifact: Path, out: Annotated[Path | None, typer.Option(help="Directory; the artifact's own if not given.")] = None
) -> None:
    """Export an artifact to ONNX: fp32, and int8 where it is quantized."""
    loaded = Artifact.load(artifact)
    folder = out or loaded.folder
    folder.mkdir(parents=True, exist_ok=True)
    for path in export_files(loaded.model(), folder, tuple(loaded.card["image_shape"])).paths:
        console.print(f"{path}  {path.stat().st_size:,} bytes", markup=False)


@app.command("pack")
def pack_artifact(
    artifact: Path,
    out: Annotated[Path | None, typer.Option(help="The file; model.adamas in the artifact's directory if not given.")] = None,
) -> None:
    """Pack an artifact into one file, as small as it really is, and show its bytes by part."""
    console.print(packing_table(pack(Artifact.load(artifact), out)))


@app.command("unpack")
def unpack_file(file: Path, out: Out = Path("runs/unpacked")) -> None:
    """Write a packed file out as an artifact's directory, weights and card."""
    console.print(f"artifact: {unpack(file, out).path}", markup=False)


@app.command()
def report(
    artifacts: list[Path],
    out: Annotated[Path, typer.Option(help="The HTML file.")] = Path("report.html"),
    benchmark: Annotated[
        bool, typer.Option("--benchmark", help="Measure and write benchmark.json, the adversarial-pruning benchmark's record.")
    ] = False,
    fill: Annotated[
        list[str] | None,
        typer.Option(help="Field of the taxonomy, e.g. key=Name_AuthorYearWord; repeat. This and below: records."),
    ] = None,
    n: Number = None,
    norm: Annotated[str, typer.Option(help="Threat, see `adamas ls threat`.")] = "linf",
    epsilons: Annotated[
        list[str] | None, typer.Option("--eps", help="Largest distance in pixels; repeat. Without it 0.031 and 8/255.")
    ] = None,
    data_dir: DataDir = None,
    seed: Seed = None,
    device: Device = "auto",
) -> None:
    """Compare artifacts in one table and one HTML report, or write each one's record for the benchmark."""
    if not benchmark and (fill or epsilons or n or seed is not None):
        raise AdamasError("expected --benchmark with --fill, --eps, -n or --seed; a report shows figures as they were measured")
    if not benchmark:
        return _report([Artifact.load(path) for path in artifacts], out, "")
    records = [
        write_record(
            path, fill=fill or [], norm=norm, epsilons=epsilons or [], n=n, seed=seed, data_dir=data_dir, device=device
        )
        for path in artifacts
    ]
    console.print(records_table(records))


# --------------------------------------------------------------------------------------------------------- helpers


def _chosen(attacks: list[str] | None) -> dict[str, Any]:
    """The key of an evaluation's settings that -a stands for, if it was given."""
    return changed({}, [f"attacks=[{', '.join(attacks)}]"]) if attacks else {}


def _extend(
    artifact: Path, stage: dict[str, Any], values: list[str] | None, out: Path, data_dir: Path | None, device: str
) -> None:
    """Add one stage to an artifact; `values` are settings of the stage's only part."""
    start = Artifact.load(artifact)
    (part,) = stage
    added = parse(Stage, changed(stage, [f"{part}.{value}" for value in values or []]))
    recipe = replace(start.recipe, stages=(*start.recipe.stages, added))
    _finish(run(recipe, out=out.parent, name=out.name, data_dir=data_dir, device=device, start=start))


def _finish(made: Artifact) -> None:
    _report([made], made.path / "report.html", "")


def _report(made: list[Artifact], path: Path, title: str) -> None:
    console.print(table(rows(made)))
    console.print(f"report: {write_report(made, path, title)}", markup=False)


def _network(path: Path) -> nn.Module:
    """A network with gradients: an artifact's, or the twin of an ONNX file."""
    return twin(path) if path.suffix == ".onnx" else Artifact.load(path).model()


def _write_json(out: Path | None, document: dict[str, Any]) -> None:
    if out is not None:
        console.print(f"figures: {write_json(out, document)}", markup=False)


def _recipe_files() -> dict[str, str]:
    """Recipes below ./recipes by path, with their titles."""
    found = {}
    for path in sorted(Path("recipes").rglob("*.yaml")):
        document = yaml.safe_load(path.read_text())
        found[str(path)] = document.get("title", "") if isinstance(document, dict) else ""
    return found


def main() -> None:
    """Run the command line; mistakes end in one sentence and exit code 1, never in a traceback."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.getLogger("adamas").addHandler(handler)
    logging.getLogger("adamas").setLevel(logging.INFO)
    logging.getLogger("adamas").propagate = False
    try:
        app()
    except AdamasError as error:
        error_console.print(str(error), style="red", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        error_console.print("stopped; finished epochs and stages are kept, the same command goes on from there", markup=False)
        sys.exit(130)
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        where = f" ({error.filename})" if error.filename else ""
        error_console.print(f"{reason}{where}; finished epochs and stages are kept", style="red", markup=False)
        sys.exit(1)
