"""The command line: verbs that call the library, and errors as sentences."""

from __future__ import annotations

import errno
import json
import logging
import sys
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.markup import escape
from rich.table import Table

from adamas import recipe as recipes
from adamas.artifact import Artifact
from adamas.data import load
from adamas.deploy.files import export_files
from adamas.errors import AdamasError, nearest
from adamas.evaluate import Evaluate, evaluate
from adamas.pipeline import run, slug
from adamas.progress import console
from adamas.progress import errors as error_console
from adamas.recipe import Recipe, Stage
from adamas.registry import KINDS, describe, parse, registered
from adamas.report.html import write_report
from adamas.report.rows import rows
from adamas.report.table import table
from adamas.sweep import sweep

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

Changes = Annotated[list[str] | None, typer.Argument(help="Settings as key=value, e.g. stages.1.compress.keep=0.2 seed=3.")]
Settings = Annotated[list[str] | None, typer.Argument(help="Settings as key=value, e.g. epochs=3 lr=0.01.")]
DataDir = Annotated[Path | None, typer.Option(help="Where data sets lie; without it they are downloaded to the cache.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
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
            console.print(f"{path}: {len(recipes.read(path))} rows, no mistakes", markup=False)
        except AdamasError as error:
            mistakes.append(str(error))
    if mistakes:
        raise AdamasError("\n".join(mistakes))


@app.command("run")
def run_recipe(
    recipe: Path,
    changes: Changes = None,
    out: Annotated[Path, typer.Option(help="Where artifacts and finished stages are kept.")] = Path("runs"),
    only: Annotated[str | None, typer.Option(help="Only rows whose name matches this pattern, e.g. '*seed=0'.")] = None,
    data_dir: DataDir = None,
    device: Device = "auto",
) -> None:
    """Run every row of a recipe and write a report; the same command goes on after an interruption."""
    found = recipes.read(recipe, changes or [])
    chosen = {name: row for name, row in found.items() if only is None or fnmatch(name, only)}
    if not chosen:
        raise AdamasError(f"no row matches {only!r}{nearest(only, found)}")
    made = sweep(
        chosen, out=out, group=recipe.stem, data_dir=data_dir, device=device,
        announce=lambda row: console.print(f"{row}", style="bold", markup=False),
    )  # fmt: skip
    _report(made, out / slug(recipe.stem) / "report.html", next(iter(chosen.values())).title or recipe.stem)


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
    recipe = parse(Recipe, recipes.changed(raw, changes or []))
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
    artifact: Path,
    method: Annotated[str, typer.Argument(help="Attack, see `adamas ls attack`.")] = "pgd",
    values: Settings = None,
    n: Annotated[int | None, typer.Option(help="Attack so many test images only.", min=1)] = None,
    data_dir: DataDir = None,
) -> None:
    """Attack an artifact with one attack and print what is left of its accuracy."""
    loaded = Artifact.load(artifact)
    chosen = recipes.changed({"name": method}, values or [])
    _print_evaluation(loaded, parse(Evaluate, {"attacks": [chosen]}), n, data_dir)


@app.command("evaluate")
def evaluate_artifact(
    artifact: Path,
    attacks: Annotated[list[str] | None, typer.Argument(help="Attacks in order; those of the recipe if none is named.")] = None,
    n: Annotated[int | None, typer.Option(help="Use so many test images only.", min=1)] = None,
    data_dir: DataDir = None,
) -> None:
    """Evaluate an artifact again: clean, every attack, worst case."""
    loaded = Artifact.load(artifact)
    _print_evaluation(loaded, parse(Evaluate, {"attacks": attacks}) if attacks else loaded.recipe.evaluate, n, data_dir)


@app.command()
def export(
    artifact: Path, out: Annotated[Path | None, typer.Option(help="Directory; the artifact's own if not given.")] = None
) -> None:
    """Export an artifact to ONNX: fp32, and int8 where it is quantized."""
    loaded = Artifact.load(artifact)
    folder = out or loaded.path
    folder.mkdir(parents=True, exist_ok=True)
    for path in export_files(loaded.model(), folder, tuple(loaded.card["image_shape"])).paths:
        console.print(f"{path}  {path.stat().st_size:,} bytes", markup=False)


@app.command()
def report(artifacts: list[Path], out: Annotated[Path, typer.Option(help="The HTML file.")] = Path("report.html")) -> None:
    """Compare artifacts in one table and one HTML report."""
    _report([Artifact.load(path) for path in artifacts], out, "")


# --------------------------------------------------------------------------------------------------------- helpers


def _extend(
    artifact: Path, stage: dict[str, Any], values: list[str] | None, out: Path, data_dir: Path | None, device: str
) -> None:
    """Add one stage to an artifact; `values` are settings of the stage's only part."""
    start = Artifact.load(artifact)
    (part,) = stage
    added = parse(Stage, recipes.changed(stage, [f"{part}.{value}" for value in values or []]))
    recipe = replace(start.recipe, stages=(*start.recipe.stages, added))
    _finish(run(recipe, out=out.parent, name=out.name, data_dir=data_dir, device=device, start=start))


def _finish(made: Artifact) -> None:
    _report([made], made.path / "report.html", "")


def _report(made: list[Artifact], path: Path, title: str) -> None:
    console.print(table(rows(made)))
    console.print(f"report: {write_report(made, path, title)}", markup=False)


def _print_evaluation(artifact: Artifact, chosen: Evaluate, n: int | None, data_dir: Path | None) -> None:
    recipe = artifact.recipe
    if recipe.data is None:
        raise AdamasError(
            f"{artifact.path}: its data came from the user's own loaders; evaluate it from Python with adamas.evaluate"
        )
    data = load(recipe.data, replace(recipe.split, test=n or recipe.split.test), data_dir=data_dir, seed=recipe.seed)
    result = evaluate(artifact.model(), data, chosen, recipe.threat, seed=recipe.seed)
    listing = Table("", "accuracy", "95 % interval", "attacked", "broken", "seconds", box=None)
    rates = [
        ("clean", result.clean, None),
        *((a.attack, a.accuracy, a) for a in result.attacks),
        ("worst case", result.worst_case, None),
    ]
    for name, rate, run_ in rates:
        extra = ["", "", ""] if run_ is None else [f"{run_.attacked}", f"{run_.broken}", f"{run_.seconds:.1f}"]
        listing.add_row(escape(name), f"{rate.value:.1%}", f"{rate.low:.1%} - {rate.high:.1%}", *extra)
    console.print(f"{artifact.path}: {result.threat}, n = {result.clean.n}, seed {result.seed}", markup=False)
    console.print(listing)
    for flag in result.flags:
        console.print(f"! {flag}", style="yellow", markup=False)


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
