"""Recipes: YAML to typed values and back; `extends`, `define` and `sweep` expand into plain recipes; all mistakes at once."""

from __future__ import annotations

import copy
import itertools
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from adamas.data import AnyDataset, Split
from adamas.errors import AdamasError, nearest
from adamas.evaluate import Evaluate
from adamas.fit import Fit
from adamas.models import AnyModel
from adamas.registry import mistakes, plain, settings
from adamas.roles import AnyCompressor, AnyThreat


@settings
class Normalise:
    """The model's first layer, (x - mean) / std per channel; None means the statistics of the training images."""

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


@settings
class Stage:
    """Compress, then fit; either may be absent, not both."""

    compress: AnyCompressor | None = None
    fit: Fit | None = None

    def __post_init__(self) -> None:
        if self.compress is None and self.fit is None:
            raise ValueError("expected a stage with 'compress', 'fit' or both, got neither")


@settings
class Deploy:
    """What is measured on the exported files: latency at these batch sizes on so many threads."""

    batch_sizes: tuple[int, ...] = (1, 64)
    threads: int = 1


@settings
class Recipe:
    """One run from data to report; every default is written out in the card that ships with the result."""

    title: str = ""
    data: AnyDataset | None = None
    split: Split = Split()
    normalise: Normalise = Normalise()
    model: AnyModel | None = None
    threat: AnyThreat = "linf"  # type: ignore[assignment]
    stages: tuple[Stage, ...] = ()
    evaluate: Evaluate = Evaluate()
    deploy: Deploy = Deploy()
    seed: int = 0


def read(path: Path | str, overrides: tuple[str, ...] | list[str] = ()) -> dict[str, Recipe]:
    """All rows of a recipe file by name (one row, named after the file, unless it sweeps).

    `overrides` are "path.to.key=value" with YAML values; one for a swept key replaces the sweep.
    Errors: every mistake of every row in one message, each with its path.
    """
    path = Path(path)
    raw = _load(path)
    sweep = raw.pop("sweep", None) or {}
    changes = [_split(override) for override in overrides]
    sweep = {key: values for key, values in sweep.items() if key not in dict(changes)}
    rows: dict[str, Recipe] = {}
    errors: dict[str, None] = {}
    for name, row in _expand(raw, sweep):
        try:
            for key, value in changes:
                _set(row, key, value)
            rows[name or path.stem] = TypeAdapter(Recipe).validate_python(_resolved(row))
        except ValidationError as error:
            errors |= dict.fromkeys(mistakes(error))
        except AdamasError as error:
            errors[str(error)] = None
    if errors:
        raise AdamasError("\n".join(f"{path.name}: {line}" for line in errors))
    return rows


def dump(recipe: Recipe) -> str:
    """The recipe as YAML with every default written out."""
    return yaml.safe_dump(plain(recipe), sort_keys=False, allow_unicode=True)


def schema() -> dict[str, Any]:
    """JSON schema of a recipe file, for editors."""
    document = TypeAdapter(Recipe).json_schema()
    fragment = {"type": "object", "additionalProperties": {"$ref": "#/$defs/Stage"}}
    document["properties"] |= {
        "extends": {"type": "string", "description": "A recipe file, relative to this one, that this one changes."},
        "define": fragment | {"description": "Named stages; `stages` may list them by name."},
        "sweep": {"type": "object", "description": "Keys to lists (or named values) of which every combination is one row."},
    }
    document["properties"]["stages"]["items"] = {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/Stage"}]}
    return document


# ------------------------------------------------------------------------------------------------- YAML documents


def _load(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The document with everything it extends merged in."""
    if path.resolve() in seen:
        raise AdamasError(f"{path}: extends itself through {' -> '.join(p.name for p in seen)}")
    try:
        document = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        siblings = [str(p.name) for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        raise AdamasError(f"expected a recipe file, there is no {path}{nearest(path.name, siblings)}") from None
    except (yaml.YAMLError, UnicodeDecodeError, IsADirectoryError) as error:
        raise AdamasError(f"{path}: expected YAML, got {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise AdamasError(f"{path}: expected keys and values, got {type(document).__name__}")
    parent = document.pop("extends", None)
    if parent is None:
        return document
    if not isinstance(parent, str):
        raise AdamasError(f"{path}: extends: expected the name of a recipe file, got {parent!r}")
    return merged(_load(path.parent / parent, (*seen, path.resolve())), document)


def merged(base: Any, change: Any) -> Any:
    """`change` over `base`: mappings merge key by key, unless their `name` differs; everything else is replaced."""
    if not (isinstance(base, dict) and isinstance(change, dict)) or base.get("name") != change.get("name", base.get("name")):
        return change
    return base | {key: merged(base.get(key), value) for key, value in change.items()}


def _expand(raw: dict[str, Any], sweep: Any) -> list[tuple[str, dict[str, Any]]]:
    """Every combination of the swept values as (row name, document)."""
    if not isinstance(sweep, dict) or not all(isinstance(values, list | dict) and values for values in sweep.values()):
        raise AdamasError(f"sweep: expected keys with lists or named values, got {sweep!r}")
    axes = []
    for key, values in sweep.items():
        named = values.items() if isinstance(values, dict) else [(f"{key.split('.')[-1]}={value}", value) for value in values]
        axes.append([(name, key, value) for name, value in named])
    rows = []
    for combination in itertools.product(*axes):
        row = copy.deepcopy(raw)
        for _, key, value in combination:
            _set(row, key, copy.deepcopy(value))
        rows.append((" ".join(str(name) for name, _, _ in combination), row))
    return rows


def _split(override: str) -> tuple[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise AdamasError(f"expected an override like stages.1.compress.keep=0.2, got {override!r}")
    try:
        return key, yaml.safe_load(text)
    except yaml.YAMLError:
        raise AdamasError(f"{key}: expected a YAML value, got {text!r}") from None


def _set(document: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted path; list items are numbers, and a stage given by name is first replaced by a copy of its definition."""
    *parents, last = key.split(".")
    here: Any = document
    for depth, part in enumerate(parents):
        where = ".".join(parents[: depth + 1])
        index = _index(here, part, where)
        if isinstance(here, dict):
            here.setdefault(index, {})
        if isinstance(here[index], str):
            here[index] = (
                _definition(document, here[index], where) if parents[0] == "stages" and depth == 1 else {"name": here[index]}
            )
        here = here[index]
        if not isinstance(here, dict | list):
            raise AdamasError(f"{where}: expected keys below it to set {key!r}, got {here!r}")
    here[_index(here, last, key)] = value


def _index(here: Any, part: str, where: str) -> Any:
    if not isinstance(here, list):
        return part
    if not re.fullmatch(r"\d+", part) or int(part) >= len(here):
        raise AdamasError(f"{where}: expected a number from 0 to {len(here) - 1}, got {part!r}")
    return int(part)


def _definition(document: dict[str, Any], name: str, where: str) -> Any:
    known = document.get("define") or {}
    if name not in known:
        raise AdamasError(f"{where}: no stage is defined as {name!r}{nearest(name, known)}")
    return copy.deepcopy(known[name])


def _resolved(document: dict[str, Any]) -> dict[str, Any]:
    """The plain document: stages given by name replaced by their definitions."""
    stages = document.get("stages")
    if isinstance(stages, list):
        document["stages"] = [
            _definition(document, stage, f"stages.{i}") if isinstance(stage, str) else stage for i, stage in enumerate(stages)
        ]
    return {key: value for key, value in document.items() if key != "define"}
